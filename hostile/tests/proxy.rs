//! Each knob of the proxy does what it says, and the same for the same seed.
#![expect(clippy::disallowed_methods, reason = "what slows down takes time")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ringcall_hostile::proxy::{Faults, Proxy};

/// A server that gives back what it is sent.
fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut copy, &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn sent() -> Vec<u8> {
    (0..50_000u32).map(|n| n as u8).collect()
}

/// What comes back of what is sent, and how it ended.
fn through(seed: u64, set: impl FnOnce(&mut Faults)) -> (Vec<u8>, Option<ErrorKind>) {
    let proxy = Proxy::start(mirror(), seed).unwrap();
    let mut faults = Faults::default();
    set(&mut faults);
    proxy.set(faults);
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let _ = writing.write_all(&sent());
        let _ = writing.shutdown(Shutdown::Write);
    });
    let mut came = Vec::new();
    let end = stream.read_to_end(&mut came).err().map(|error| error.kind());
    writer.join().unwrap();
    (came, end)
}

#[test]
fn without_faults_everything_passes() {
    assert_eq!(through(1, |_| ()), (sent(), None));
}

#[test]
fn chunks_change_nothing() {
    assert_eq!(through(1, |faults| faults.chunk_bytes = Some(100)), (sent(), None));
}

#[test]
fn changed_bytes_follow_from_the_seed() {
    let corrupt = |seed| through(seed, |faults| faults.corrupt_one_in = Some(5000)).0;
    let changed = corrupt(1).iter().zip(sent()).filter(|(came, sent)| **came != *sent).count();
    assert!(
        (1..100).contains(&changed),
        "{changed} bytes are changed, in both directions together"
    );
    assert_eq!(corrupt(1), corrupt(1));
    assert_ne!(corrupt(1), corrupt(2));
}

#[test]
fn a_reset_is_a_reset() {
    for seed in 0..10 {
        let (came, end) = through(seed, |faults| faults.reset_within = Some(10_000));
        assert!(came.len() < 10_000, "{} bytes", came.len());
        assert_eq!(end, Some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn delays_freezes_and_trickles_take_their_time() {
    let sets: [fn(&mut Faults); 3] = [
        |faults| faults.delay = Some(Duration::from_millis(100)),
        |faults| faults.freeze = Some((1000, Duration::from_millis(100))),
        |faults| faults.bytes_per_s = Some(500_000),
    ];
    for set in sets {
        let began = Instant::now();
        assert_eq!(through(1, set), (sent(), None));
        assert!(began.elapsed() >= Duration::from_millis(100));
    }
}

#[test]
fn what_was_cut_is_closed() {
    let proxy = Proxy::start(mirror(), 1).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!((proxy.made(), proxy.open()), (1, 1));
    proxy.cut();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}
