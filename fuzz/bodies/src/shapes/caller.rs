//! A caller, and somebody who answers it with headers of their own making.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ringcall::{CallError, LocalClient, Shard, Wait};
use ringcall_core::frame::{Credit, CreditPool, CreditUnit, Head, Kind, PREFACE, ReplyHeader, tag};
use ringcall_core::{Codec, Status, StatusClass};

use super::{
    Item, TURNS_MAX, TargetClient, Wrong, body, decode, encode, plain_config, spoil, table,
};
use crate::harness::raw::{Frame, hello, plain};

pub(super) struct Rig {
    shard: Shard,
    client: TargetClient<LocalClient>,
    stream: TcpStream,
}

type Outcome = std::result::Result<Item, CallError<Wrong>>;

impl Default for Rig {
    fn default() -> Rig {
        let mut config = plain_config();
        // When the process is stopped for a while, a PING would come where a call is expected.
        config.client = config
            .client
            .keepalive_idle(Duration::ZERO, 0)
            .keepalive_busy(Duration::ZERO, Duration::ZERO);
        let shard = Shard::new(config).expect("a shard can be made");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let client = Rc::new(RefCell::new(None));
        let (task_shard, task_client) = (shard.clone(), Rc::clone(&client));
        shard.spawn(async move {
            let connected = task_shard.connect(&address).await;
            *task_client.borrow_mut() = Some(connected.expect("it shakes hands"));
        });
        shard.turn(Wait::Now);
        let (mut stream, _) = listener.accept().expect("it connects");
        stream.set_nodelay(true).expect("it is TCP");
        stream.set_nonblocking(true).expect("it is a socket");
        receive(&shard, &mut stream, PREFACE.len() + 96);
        let greeting = [&PREFACE[..], &hello(|_| {}).bytes()].concat();
        stream.write_all(&greeting).expect("a few bytes fit");
        let client = wait(&shard, || client.borrow_mut().take());
        Rig { shard, client: TargetClient::new(client), stream }
    }
}

impl Rig {
    pub(super) fn answer(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let (header, is_critical, body) = arbitrary_reply(input)?;
        let outcome: Rc<RefCell<Option<Outcome>>> = Rc::default();
        let result = Rc::clone(&outcome);
        let item = Item { name: "name".to_owned(), sizes: vec![1], is_new: false };
        // Whoever pauses the process does not end its calls.
        let call = self.client.view(&item).deadline(Duration::from_secs(24 * 3600));
        call.callback(move |answer| {
            *result.borrow_mut() = Some(answer.map(|view| view.to_owned()));
        });
        let id = self.receive_request(&item);

        let mut frame = plain(Kind::Reply).patch(0, &header.encode());
        if is_critical {
            frame = frame.tlv(tag::CRITICAL | 0x7000, b"?");
        }
        let bytes = [credit(&item).bytes(), frame.id(id).body(&body).bytes()].concat();
        self.stream.write_all(&bytes).expect("a few bytes fit");
        let outcome = wait(&self.shard, || outcome.borrow_mut().take());
        check(&header, is_critical, &body, outcome);
        Ok(())
    }

    /// Reads the call; returns its id. Credit for replies to earlier ones comes in between.
    fn receive_request(&mut self, item: &Item) -> u64 {
        loop {
            let mut request = receive(&self.shard, &mut self.stream, Head::LEN);
            let head = Head::parse(request.first_chunk().expect("it was waited for"));
            let len = head.length as usize + head.padding();
            request.extend(receive(&self.shard, &mut self.stream, len));
            if head.kind == Kind::Credit as u8 {
                continue;
            }
            let archive = encode(item, Codec::RKYV);
            assert_eq!(head.kind, Kind::Request as u8);
            assert_eq!(request[48..48 + archive.len()], archive);
            return head.id.to_wire();
        }
    }
}

/// For what a call with this item has taken: without, there is none left after some hundred thousand calls.
fn credit(item: &Item) -> Frame {
    let amount = encode(item, Codec::RKYV).len() as u64;
    let credit = Credit { amount, pool: CreditPool::Calls, unit: CreditUnit::Bytes };
    plain(Kind::Credit).patch(0, &credit.encode())
}

fn arbitrary_reply(input: &mut Unstructured<'_>) -> Result<(ReplyHeader, bool, Vec<u8>)> {
    let methods = table().methods();
    let signatures: Vec<u64> = methods
        .iter()
        .map(|method| method.signatures())
        .flat_map(|both| [both.in_signature, both.out_signature])
        .collect();
    let is_error = input.arbitrary::<bool>()?;
    let status = if is_error { Status::APPLICATION_ERROR } else { Status::OK };
    let others: Vec<u64> = Status::ALL.iter().map(|(s, _)| u64::from(s.to_wire())).collect();
    let status = spoil(input, u64::from(status.to_wire()), &others)? as u16;
    let header = ReplyHeader {
        signature: spoil(input, methods[0].signatures().out_signature, &signatures)?,
        codec: Codec(spoil(input, u64::from(Codec::RKYV.0), &[0, 1, 2, 3])? as u8),
        compression: spoil(input, 0, &[1])? as u8,
        retry_after_ms: input.arbitrary()?,
        ..ReplyHeader::new(Status::from_wire(status))
    };
    let is_critical = input.ratio(1_u8, 16_u8)?;
    let codec = header.codec;
    let body = match is_error {
        true => body::<Wrong>(input, codec)?,
        false => body::<Item>(input, codec)?,
    };
    Ok((header, is_critical, body))
}

/// A value only if everything says so.
fn check(header: &ReplyHeader, is_critical: bool, body: &[u8], outcome: Outcome) {
    let is_readable = !is_critical && header.compression == 0;
    let expected = table().methods()[0].signatures().out_signature;
    let is_archive = header.codec == Codec::RKYV && header.signature == expected;
    let is_meant = is_readable && (is_archive || header.codec.has_names());
    let codec = header.codec;
    match (header.status.class(), outcome) {
        (StatusClass::Ok, Ok(item)) => {
            assert!(is_meant, "{header:?}");
            assert_eq!(Some(item), decode::<Item>(body, codec));
        }
        (StatusClass::Ok, Err(CallError::Failed(_))) => {
            assert!(!is_meant || decode::<Item>(body, codec).is_none(), "{header:?}");
        }
        (StatusClass::Application, Err(CallError::App(error))) => {
            assert!(is_meant, "{header:?}");
            assert_eq!(Some(error), decode::<Wrong>(body, codec));
        }
        (StatusClass::Application, Err(CallError::Failed(_))) => {
            assert!(!is_meant || decode::<Wrong>(body, codec).is_none(), "{header:?}");
        }
        (StatusClass::Refused, Err(CallError::Failed(failure))) => {
            assert_eq!(failure.is_safe_to_retry(), is_readable, "{header:?}");
        }
        (StatusClass::Unknown, Err(CallError::Failed(failure))) => {
            assert!(!failure.is_safe_to_retry(), "{header:?}");
        }
        (class, outcome) => panic!("{class:?} became {outcome:?}"),
    }
}

fn wait<T>(shard: &Shard, mut ready: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TURNS_MAX {
        if let Some(ready) = ready() {
            return ready;
        }
        shard.turn(Wait::AtMost(Duration::from_millis(1)));
    }
    panic!("the caller does not go on");
}

/// Exactly `len` bytes.
fn receive(shard: &Shard, stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    for _ in 0..TURNS_MAX {
        if have == len {
            return bytes;
        }
        match stream.read(&mut bytes[have..]) {
            Ok(0) => panic!("the caller has closed the connection"),
            Ok(n) => have += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                shard.turn(Wait::AtMost(Duration::from_millis(1)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the caller sends nothing");
}
