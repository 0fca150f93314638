//! Names are asked for over a socket, of a name server that is a few lines long.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use ringcall_cluster::discovery::{
    DnsConfig, DnsSource, HickoryResolver, Instance, Source, Update,
};
use ringcall_core::Instant;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut name: Vec<u8> =
        labels.flat_map(|it| [&[it.len() as u8], it.as_bytes()].concat()).collect();
    name.push(0);
    name
}

/// What there is of a name; `None`: no such name.
fn records(asked: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
    let srv = |priority: u16, weight: u16, port: u16, host| {
        let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
        [numbers, name(host)].concat()
    };
    match (asked, kind) {
        ("_quotes._tcp.test.", SRV) => {
            Some(vec![srv(0, 3, 7001, "a.test."), srv(1, 0, 7002, "b.test.")])
        }
        ("a.test.", A) => Some(vec![vec![10, 0, 0, 1]]),
        ("b.test.", AAAA) => Some(vec![[0xfd; 16].into()]),
        ("b.test.", A) => Some(vec![]),
        _ => None,
    }
}

/// The name of a query, and where what follows it begins.
fn read_name(message: &[u8]) -> (String, usize) {
    let (mut text, mut at) = (String::new(), 12);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        text += &format!("{}.", String::from_utf8_lossy(&message[at + 1..end]));
        at = end;
    }
    (text.to_lowercase(), at + 1)
}

fn answer(query: &[u8]) -> Vec<u8> {
    let (asked, at) = read_name(query);
    let kind = u16::from_be_bytes([query[at], query[at + 1]]);
    let found = records(&asked, kind);
    let code = if found.is_some() { 0 } else { 3 };
    let records = found.unwrap_or_default();
    // An answer, recursion was wished for and is there; one question.
    let mut message =
        [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
    message.extend_from_slice(&query[12..at + 4]);
    for record in records {
        // Of the name that was asked for, class IN, for a minute.
        message.extend_from_slice(&[0xc0, 12]);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, record.len() as u8]);
        message.extend_from_slice(&record);
    }
    message
}

/// Answers until its process ends.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((bytes, from)) = socket.recv_from(&mut query) {
            socket.send_to(&answer(&query[..bytes]), from).unwrap();
        }
    });
    address
}

/// What is said first, within ten seconds.
#[expect(clippy::disallowed_methods, reason = "this thread is no shard")]
fn first(source: &mut DnsSource<HickoryResolver>) -> Update {
    for _ in 0..1000 {
        if let Some(update) = source.poll_update(Instant::from_nanos(1)) {
            return update;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing is said");
}

fn resolver() -> HickoryResolver {
    HickoryResolver::servers([name_server()]).unwrap()
}

#[test]
fn g17_a_service_is_found_by_a_name_server() {
    let config = DnsConfig::default();
    let mut source = DnsSource::srv("quotes", "_quotes._tcp.test.", config, resolver()).unwrap();
    let Update::Snapshot { snapshot, .. } = first(&mut source) else { panic!("no list") };
    let said = |it: &Instance| (it.name.clone(), it.priority, it.tags["host"].clone());
    let said: Vec<_> = snapshot.instances.iter().map(said).collect();
    let v6 = "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:7002";
    assert_eq!(
        said,
        [("10.0.0.1:7001".into(), 0, "a.test.".into()), (v6.into(), 1, "b.test.".into())]
    );
}

#[test]
fn g17_a_name_that_is_not_there_is_an_outage() {
    let config = DnsConfig::default();
    let mut source = DnsSource::host("quotes", "none.test.", 1, config, resolver()).unwrap();
    assert_eq!(first(&mut source), Update::Outage("none.test.: there are no addresses".into()));
}
