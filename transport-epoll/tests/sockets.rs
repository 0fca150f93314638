//! The engine by itself, over pairs of sockets.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringcall_core::{
    Batch, Handle, Memory, MemoryLimits, Park as _, Receive, Segment, SendQueue, Transport,
    TransportEvent,
};
use ringcall_epoll::{Epoll, EpollConfig};
use ringcall_net::Handover as _;
use socket2::Socket;

fn engine() -> Epoll {
    Epoll::new(&Memory::new(MemoryLimits::default()), EpollConfig::default()).unwrap()
}

/// A socket for the engine, and its other end.
fn pair() -> (Socket, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (near.into(), far)
}

fn reap(engine: &mut Epoll) -> Vec<TransportEvent<Socket>> {
    let mut events = Vec::new();
    engine.reap(&mut events);
    events
}

/// Segments of all lengths, in more system calls than one, to somebody who reads so much at a time.
#[test]
fn e01_short_writes_go_on_where_they_stopped() {
    let segments: Vec<Bytes> = (0..200_usize)
        .map(|n| (0..[1, n, 4096 - n, 2 * n + 1, 13][n % 5]).map(|i| (n * 7 + i) as u8).collect())
        .filter(|segment: &Bytes| !segment.is_empty())
        .collect();
    let expected = segments.concat();
    for step in [1, 2, 15, 100, 4095, 4096, 4097, 100_000] {
        let (near, mut far) = pair();
        near.set_send_buffer_size(1).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut engine = engine();
        let handle = engine.adopt(near).unwrap();
        let mut batch = Batch::new(usize::MAX);
        segments.iter().for_each(|segment| batch.push(Segment::Bytes(segment.clone())));
        assert!(!engine.send(handle, &mut batch), "the kernel cannot have taken all");
        assert!(batch.is_empty());
        let (mut read, mut sent, mut done) = (Vec::new(), 0, false);
        let mut room = vec![0; step];
        while read.len() < expected.len() {
            for event in reap(&mut engine) {
                let TransportEvent::Sent { bytes, done: last, .. } = event else {
                    panic!("{event:?}")
                };
                assert!(!done, "nothing follows the last one");
                (sent, done) = (sent + bytes, last);
            }
            if let Ok(n) = far.read(&mut room) {
                read.extend_from_slice(&room[..n]);
            }
        }
        assert!(read == expected, "{step} bytes at a time");
        // What went at once is counted by nobody but whoever reads `done`.
        assert!(done && sent <= expected.len() && reap(&mut engine).is_empty());
    }
}

/// More at a time from a connection by which more comes than fits, and no more than usual from it afterwards.
#[test]
fn a_flood_is_received_in_larger_pieces() {
    const BLOCK: usize = 4096;
    let mut config = EpollConfig::default();
    config.receive_bytes = BLOCK;
    let mut engine = Epoll::new(&Memory::new(MemoryLimits::default()), config).unwrap();
    let (near, mut far) = pair();
    let flooded = engine.adopt(near).unwrap();
    let mut receive = |bytes: usize| {
        let sent: Vec<u8> = (0..bytes).map(|i| (i / 7) as u8).collect();
        std::io::Write::write_all(&mut far, &sent).unwrap();
        let (mut received, mut pieces) = (Vec::new(), Vec::new());
        while received.len() < bytes {
            for event in reap(&mut engine) {
                let TransportEvent::Received(handle, chunk) = event else { panic!("{event:?}") };
                assert_eq!(handle, flooded);
                pieces.push(chunk.len());
                received.extend_from_slice(&chunk);
            }
        }
        assert!(received == sent);
        pieces
    };
    let pieces = receive(10 * BLOCK);
    assert!(pieces[0] <= BLOCK && pieces[1..].iter().any(|len| *len > 2 * BLOCK), "{pieces:?}");
    assert_eq!(receive(10), [10]);
    assert!(receive(3 * BLOCK)[0] <= BLOCK, "that was enough for little");
}

/// Nobody looks at memory in the middle of a reap.
#[test]
fn e26_floods_are_received_in_larger_pieces_within_a_part_of_memory() {
    const BLOCK: usize = 4096;
    const BOUND: usize = 1 << 20;
    let mut config = EpollConfig::default();
    config.receive_bytes = BLOCK;
    let mut limits = MemoryLimits::default();
    limits.total_bytes = Some(BOUND);
    let memory = Memory::new(limits);
    let mut engine = Epoll::new(&memory, config).unwrap();
    let mut far: Vec<_> = (0..32)
        .map(|_| {
            let (near, far) = pair();
            engine.adopt(near).unwrap();
            far
        })
        .collect();
    let mut flood = |engine: &mut Epoll| {
        far.iter_mut().for_each(|far| std::io::Write::write_all(far, &[7; 20 * BLOCK]).unwrap());
        let (mut left, mut most) = (far.len() * 20 * BLOCK, 0);
        while left > 0 {
            let mut in_larger = 0;
            for event in reap(engine) {
                let TransportEvent::Received(_, chunk) = event else { panic!("{event:?}") };
                left -= chunk.len();
                in_larger += if chunk.len() > BLOCK { chunk.len() } else { 0 };
            }
            most = most.max(in_larger);
        }
        most
    };
    let most = flood(&mut engine);
    // The last of these pieces may reach beyond it.
    assert!((1..BOUND / 16 + 4 * BLOCK).contains(&most), "{most} bytes in larger pieces");
    let held = memory.pool().reserve(BOUND);
    assert_eq!(flood(&mut engine), 0, "memory is short");
    drop(held);
    assert!(flood(&mut engine) > 0);
}

/// Whoever shares the socket may end it for all.
#[test]
fn e07_a_listener_that_accepts_nobody_any_more_is_asked_seldom() {
    let path = std::env::temp_dir().join(format!("ringcall-epoll-{}.sock", std::process::id()));
    for address in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let mut engine = engine();
        let listener = engine.listen(&address.parse().unwrap()).unwrap();
        let shared = engine.share(listener).unwrap();
        shared.shutdown(Shutdown::Both).unwrap();
        let (until, mut turns) = (now() + Duration::from_millis(100), 0);
        while now() < until {
            engine.park(Some(Duration::from_millis(50)));
            assert!(reap(&mut engine).is_empty());
            turns += 1;
        }
        let (errors, shed) = (engine.tally().accept_errors.get(), engine.tally().shed.get());
        // It pauses for 10 ms, and for longer each time.
        assert!((1..=10).contains(&errors) && turns <= 30, "{errors} in {turns} turns");
        assert_eq!(shed, 0);
    }
    std::fs::remove_file(path).unwrap();
}

/// How long a test goes on, not what it asserts.
#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn e22_a_stale_event_finds_nothing() {
    let mut engine = engine();
    let ((first, first_far), (second, second_far)) = (pair(), pair());
    let (closed, kept) = (engine.adopt(first).unwrap(), engine.adopt(second).unwrap());
    for mut far in [&first_far, &second_far] {
        std::io::Write::write_all(&mut far, b"readable").unwrap();
    }
    // Both are known to be readable before one is closed.
    ringcall_core::Park::park(&mut engine, None);
    engine.close(closed);
    let (third, _third_far) = pair();
    let new = engine.adopt(third).unwrap();
    let mut received = Vec::new();
    for event in reap(&mut engine) {
        match event {
            TransportEvent::Received(handle, chunk) => received.push((handle, chunk.to_vec())),
            TransportEvent::Released(handle) => assert_eq!(handle, closed),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, [(kept, b"readable".to_vec())]);
    assert!(new != closed && new != kept);
}

#[test]
fn e22_an_old_handle_is_nobodys() {
    let mut engine = engine();
    let (first, _first_far) = pair();
    let old = engine.adopt(first).unwrap();
    engine.close(old);
    assert!(matches!(reap(&mut engine)[..], [TransportEvent::Released(handle)] if handle == old));
    let (second, mut far) = pair();
    let new = engine.adopt(second).unwrap();
    assert!(new.index == old.index && new != old, "the place is used again");
    let mut batch = Batch::new(usize::MAX);
    batch.push(Segment::Bytes(Bytes::from_static(b"stale")));
    assert!(!engine.send(old, &mut batch));
    engine.receive(old, Receive::Pause);
    engine.shutdown(old);
    engine.close(old);
    let never = Handle { index: 77, generation: 0 };
    engine.close(never);
    assert!(reap(&mut engine).is_empty());
    std::io::Write::write_all(&mut far, b"for the new one").unwrap();
    let events = reap(&mut engine);
    assert!(
        matches!(&events[..], [TransportEvent::Received(handle, _)] if *handle == new),
        "{events:?}"
    );
    far.set_nonblocking(true).unwrap();
    assert!(far.read(&mut [0; 16]).is_err(), "nothing was sent, and it is still open");
}
