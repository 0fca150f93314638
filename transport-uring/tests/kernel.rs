//! The same engine over the kernel's own ring, with everything and with each thing missing.
#![allow(clippy::print_stderr, reason = "what is skipped says why")]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use ringcall_buf::BLOCK_BYTES;
use ringcall_core::{
    Address, Batch, Handle, Memory, MemoryLimits, Park, Receive, Segment, SendQueue, Transport,
    TransportEvent,
};
use ringcall_net::Handover as _;
use ringcall_uring::{Features, Refusal, Uring, UringConfig};
use socket2::Socket;

/// Every feature alone, some together, and all.
const MISSING: [&str; 12] = [
    "",
    "no_sqarray",
    "submit_all",
    "coop_taskrun",
    "taskrun_flag",
    "defer_taskrun",
    "single_issuer",
    "defer_taskrun, coop_taskrun",
    "multishot_accept",
    "multishot_receive",
    "provided_buffers",
    "no_sqarray, single_issuer, coop_taskrun, submit_all, multishot_accept, provided_buffers",
];

/// Runs the body with what works of every mask. Where there is no ring at all, says so.
fn with_every_mask(body: impl Fn(Features)) {
    for missing in MISSING {
        let wanted = Features::without(missing).unwrap();
        match Features::probe(wanted) {
            Ok(features) => {
                let lacks_more = features.missing().count() > wanted.missing().count();
                if lacks_more {
                    eprintln!("this kernel lacks more than {missing:?}: {features:?}");
                }
                body(features);
            }
            Err(refusal) => {
                let is_required = std::env::var_os("RINGCALL_REQUIRE_URING").is_some();
                assert!(!is_required, "without {missing:?}: {refusal}");
                eprintln!("skipped: without {missing:?}: {refusal}");
            }
        }
    }
}

fn engine(features: Features, config: UringConfig) -> (Memory, Uring) {
    let memory = Memory::new(MemoryLimits::default());
    let engine = Uring::new(&memory, features, config).unwrap();
    (memory, engine)
}

/// Waits for an event that is asked for; the others are given back, in order.
fn wait<T>(
    engine: &mut Uring,
    others: &mut Vec<TransportEvent<Socket>>,
    mut wanted: impl FnMut(&TransportEvent<Socket>) -> Option<T>,
) -> T {
    let mut events = Vec::new();
    for _ in 0..1000 {
        engine.arm();
        engine.park(Some(Duration::from_millis(20)));
        engine.reap(&mut events);
        let mut found = None;
        for event in events.drain(..) {
            match found.is_none().then(|| wanted(&event)).flatten() {
                Some(value) => {
                    found = Some(value);
                    if let TransportEvent::Accepted(..) = event {
                        others.push(event);
                    }
                }
                None => others.push(event),
            }
        }
        if let Some(value) = found {
            return value;
        }
    }
    panic!("it never happened; instead: {others:?}");
}

/// Two connected handles of one engine.
fn connect(engine: &mut Uring, address: &Address) -> (Handle, Handle) {
    let listener = engine.listen(address).unwrap();
    let to = engine.local_address(listener).unwrap();
    let ours = engine.connect(&to).unwrap();
    let (mut connected, mut socket, mut events) = (false, None, Vec::new());
    for _ in 0..1000 {
        engine.park(Some(Duration::from_millis(20)));
        engine.reap(&mut events);
        for event in events.drain(..) {
            match event {
                TransportEvent::Connected(handle) => connected = handle == ours,
                TransportEvent::Accepted(_, accepted) => socket = Some(accepted),
                other => panic!("not yet: {other:?}"),
            }
        }
        if connected && socket.is_some() {
            break;
        }
    }
    let theirs = engine.adopt(socket.expect("accepted")).unwrap();
    engine.unlisten(listener);
    (ours, theirs)
}

/// A connection of an engine to somebody who uses the socket as it is.
fn connect_out(engine: &mut Uring, to: &UnixListener, address: &Address) -> (Handle, UnixStream) {
    let handle = engine.connect(address).unwrap();
    let mut others = Vec::new();
    wait(engine, &mut others, |event| matches!(event, TransportEvent::Connected(_)).then_some(()));
    (handle, to.accept().unwrap().0)
}

fn is_received(event: &TransportEvent<Socket>, by: Handle) -> Option<()> {
    matches!(event, TransportEvent::Received(handle, _) if *handle == by).then_some(())
}

/// A connection to somebody who uses the socket as it is, and who was accepted elsewhere.
fn adopt(engine: &mut Uring) -> (Handle, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (engine.adopt(near.into()).unwrap(), far)
}

fn addresses() -> [Address; 2] {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringcall-ring-{}-{number}", std::process::id()));
    ["127.0.0.1:0".parse().unwrap(), Address::Unix(path.display().to_string())]
}

#[test]
fn the_kernel_agrees() {
    with_every_mask(|features| {
        for address in addresses() {
            for direct_sends in [0, 2] {
                let mut config = UringConfig::default();
                config.direct_sends = direct_sends;
                config.buffer_bytes = 4096;
                config.buffers = 2;
                echo(features, &address, config);
            }
        }
    });
}

/// Bytes of many lengths go there, partly as bodies that land, and arrive in order.
fn echo(features: Features, address: &Address, config: UringConfig) {
    let (memory, mut engine) = engine(features, config);
    let (ours, theirs) = connect(&mut engine, address);
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    let mut batch = Batch::new(1 << 20);
    for (round, len) in [8, 16, 4088, 1, 70_000, 300_000, 15, 100, 1 << 20].into_iter().enumerate()
    {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + round) as u8).collect();
        for part in bytes.chunks(len / 3 + 1) {
            batch.push(Segment::Local(memory.pool().copy(part)));
        }
        sent.extend_from_slice(&bytes);
        let mut is_sent = engine.send(ours, &mut batch);
        let mut events = Vec::new();
        while received.len() < sent.len() || !is_sent {
            engine.arm();
            engine.park(Some(Duration::from_secs(5)));
            engine.reap(&mut events);
            for event in events.drain(..) {
                match event {
                    TransportEvent::Received(handle, chunk) => {
                        assert_eq!(handle, theirs);
                        received.extend_from_slice(&chunk);
                        let left = sent.len() - received.len();
                        if left > 10_000 {
                            let body = memory.pool().take(left);
                            engine.receive(theirs, Receive::Land(body, left - 5));
                        }
                    }
                    TransportEvent::Landed(handle, buffer, n) => {
                        assert_eq!((handle, buffer.filled_len()), (theirs, n));
                        received.extend_from_slice(buffer.filled());
                        engine.receive(theirs, Receive::More);
                    }
                    TransportEvent::Sent { handle, done, .. } => {
                        assert_eq!(handle, ours);
                        is_sent = done;
                    }
                    other => panic!("not expected: {other:?}"),
                }
            }
        }
        assert!(received == sent, "after {len} more bytes over {address}");
    }
    let mut others = Vec::new();
    engine.shutdown(ours);
    for _ in 0..2 {
        wait(&mut engine, &mut others, |event| match event {
            TransportEvent::InputEnd(handle) => (*handle == theirs).then_some(()),
            _ => None,
        });
        // Whoever asks again is told again: a connection that lingers waits for that.
        engine.receive(theirs, Receive::More);
    }
    for handle in [ours, theirs] {
        engine.close(handle);
        wait(&mut engine, &mut others, |event| match event {
            TransportEvent::Released(released) => (*released == handle).then_some(()),
            _ => None,
        });
    }
    drop(others);
    drop(engine);
    assert_eq!(memory.pool().stats().lent_bytes, 0, "all memory comes back");
}

#[test]
fn e17_dropping_an_engine_takes_everything_back() {
    with_every_mask(|features| {
        let (memory, mut engine) = engine(features, UringConfig::default());
        let [tcp, unix] = addresses();
        let _first = connect(&mut engine, &tcp);
        let (second, _) = connect(&mut engine, &unix);
        engine.receive(second, Receive::Land(memory.pool().take(5000), 5000));
        engine.park(Some(Duration::ZERO));
        assert!(engine.in_flight() > 0);
        drop(engine);
        assert_eq!(memory.pool().stats().lent_bytes, 0);
    });
}

#[test]
fn e13_more_completions_than_the_queue_holds_all_arrive() {
    with_every_mask(|features| {
        let mut config = UringConfig::default();
        config.entries = 2; // and a completion queue of 16
        config.direct_sends = 0;
        let (memory, mut engine) = engine(features, config);
        let pairs: Vec<_> = (0..40).map(|_| connect(&mut engine, &addresses()[0])).collect();
        let mut batch = Batch::new(1 << 20);
        for (ours, _) in &pairs {
            batch.push(Segment::Local(memory.pool().copy(b"hello")));
            let _ = engine.send(*ours, &mut batch);
        }
        let (mut received, mut events) = (0, Vec::new());
        for _ in 0..2000 {
            engine.park(Some(Duration::from_millis(20)));
            engine.reap(&mut events);
            for event in events.drain(..) {
                if let TransportEvent::Received(_, chunk) = event {
                    assert_eq!(&*chunk, b"hello");
                    received += 1;
                }
            }
            if received == pairs.len() {
                break;
            }
        }
        assert_eq!(received, pairs.len());
    });
}

#[test]
fn e13_completions_beyond_the_queue_arrive_also_while_nobody_waits() {
    with_every_mask(|features| {
        let mut config = UringConfig::default();
        config.entries = 2; // and a completion queue of 16
        config.direct_sends = 0;
        let (memory, mut engine) = engine(features, config);
        let [_, address] = addresses();
        let Address::Unix(path) = &address else { panic!("the second one is") };
        let listener = UnixListener::bind(path).unwrap();
        let mut peers = Vec::new();
        // A few more than the queue holds: the kernel makes 20 completions at a time.
        for _ in 0..20 {
            let (handle, peer) = connect_out(&mut engine, &listener, &address);
            peer.set_nonblocking(true).unwrap();
            peers.push((handle, peer));
        }
        // More than a socket takes, and less than twice as much.
        let mut batch = Batch::new(1 << 20);
        for (handle, _) in &peers {
            batch.push(Segment::Local(memory.pool().copy(&[7; 300 * 1024])));
            assert!(!engine.send(*handle, &mut batch));
        }
        let mut events = Vec::new();
        let is_done =
            |event: &TransportEvent<_>| matches!(event, TransportEvent::Sent { done: true, .. });
        for _ in 0..50 {
            engine.park(Some(Duration::from_millis(1)));
            engine.reap(&mut events);
            assert!(!events.drain(..).any(|event| is_done(&event)), "all wait for room");
        }
        for (_, peer) in &mut peers {
            while peer.read(&mut [0; 64 * 1024]).is_ok() {}
        }
        // All is sent now, and nothing is begun again that would enter the ring.
        let mut done = 0;
        for _ in 0..200_000 {
            engine.reap(&mut events);
            done += events.drain(..).filter(is_done).count();
            if done == peers.len() {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(done, peers.len());
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn what_a_reap_behind_a_wait_leaves_comes_with_the_next() {
    with_every_mask(|features| {
        let (_memory, mut engine) = engine(features, UringConfig::default());
        let [_, address] = addresses();
        let Address::Unix(path) = &address else { panic!("the second one is") };
        let listener = UnixListener::bind(path).unwrap();
        let mut peers: Vec<_> =
            (0..8).map(|_| connect_out(&mut engine, &listener, &address).1).collect();
        let mut events = Vec::new();
        // All receive by now.
        for _ in 0..10 {
            engine.park(Some(Duration::from_millis(1)));
            engine.reap(&mut events);
        }
        assert!(events.is_empty(), "{events:?}");
        peers.iter_mut().for_each(|peer| peer.write_all(&[7; 10_000]).unwrap());
        let (mut received, mut reaps) = (0, 0);
        while received < peers.len() * 10_000 && reaps < 1000 {
            engine.park(Some(Duration::from_millis(20)));
            engine.reap(&mut events);
            let before = received;
            for event in events.drain(..) {
                let TransportEvent::Received(_, chunk) = event else { panic!("{event:?}") };
                assert!(received - before < 32 * 1024, "there was enough for one reap");
                received += chunk.len();
            }
            reaps += 1;
        }
        assert_eq!(received, peers.len() * 10_000);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn whoever_looks_on_receives_from_the_only_busy_connection_without_entering_the_ring() {
    const ROUNDS: usize = 2_000;
    with_every_mask(|features| {
        let (_memory, mut engine) = engine(features, UringConfig::default());
        let [_, address] = addresses();
        let Address::Unix(path) = &address else { panic!("the second one is") };
        let listener = UnixListener::bind(path).unwrap();
        let (busy, mut to_busy) = connect_out(&mut engine, &listener, &address);
        let (quiet, mut to_quiet) = connect_out(&mut engine, &listener, &address);
        let (mut busy_bytes, mut quiet_bytes, mut events) = (Vec::new(), 0, Vec::new());
        let (mut wrote, mut entered, before) = (Vec::new(), 0, engine.enters());
        for round in 0..ROUNDS {
            // Of all lengths, so that some come by each way and some behind others.
            let line = vec![round as u8; 1 + round * 7 % 300];
            to_busy.write_all(&line).unwrap();
            wrote.extend(line);
            if round == ROUNDS / 2 {
                entered = engine.enters() - before;
                to_quiet.write_all(b"q").unwrap();
            }
            // Not behind every line.
            if round % 3 != 0 {
                engine.reap(&mut events);
            }
            for event in events.drain(..) {
                match event {
                    TransportEvent::Received(handle, chunk) if handle == busy => {
                        busy_bytes.extend_from_slice(&chunk);
                    }
                    TransportEvent::Received(handle, chunk) if handle == quiet => {
                        quiet_bytes += chunk.len();
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(
                round < ROUNDS / 2 + 100 || quiet_bytes == 1,
                "the other one is looked after, too"
            );
        }
        if features.defer_taskrun && features.taskrun_flag && features.multishot_receive {
            assert!(entered < ROUNDS as u64 / 10, "entered {entered} times");
        }
        // What is left comes in order, and then the end, once.
        drop(to_busy);
        let mut others = Vec::new();
        wait(&mut engine, &mut others, |event| {
            if let TransportEvent::Received(_, chunk) = event {
                busy_bytes.extend_from_slice(chunk);
            }
            matches!(event, TransportEvent::InputEnd(_)).then_some(())
        });
        assert!(
            busy_bytes == wrote,
            "{} of {} bytes, or not in order",
            busy_bytes.len(),
            wrote.len()
        );
        for _ in 0..5 {
            engine.reap(&mut events);
        }
        assert!(events.is_empty(), "{events:?}");
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn e22_the_place_of_one_that_left_is_the_next_ones_while_another_is_busy() {
    with_every_mask(|features| {
        let (_memory, mut engine) = engine(features, UringConfig::default());
        let [_, address] = addresses();
        let Address::Unix(path) = &address else { panic!("the second one is") };
        let listener = UnixListener::bind(path).unwrap();
        let (busy, mut to_busy) = connect_out(&mut engine, &listener, &address);
        let (left, to_left) = connect_out(&mut engine, &listener, &address);
        let mut events = Vec::new();
        // A preface, and then frames.
        to_busy.write_all(&[0; 8]).unwrap();
        wait(&mut engine, &mut events, |event| is_received(event, busy));
        let mut until = |engine: &mut Uring, is_it: fn(&TransportEvent<Socket>) -> bool| {
            for _ in 0..1000 {
                to_busy.write_all(&[7; 32]).unwrap();
                engine.reap(&mut events);
                if events.drain(..).filter(is_it).count() > 0 {
                    return;
                }
            }
            panic!("it never happened");
        };
        // By now everything comes from the busy one.
        (0..20).for_each(|_| until(&mut engine, |_| true));
        drop(to_left);
        until(&mut engine, |event| matches!(event, TransportEvent::InputEnd(_)));
        engine.close(left);
        until(&mut engine, |event| matches!(event, TransportEvent::Released(_)));
        let next = engine.adopt(UnixStream::pair().unwrap().0.into()).unwrap();
        assert!(next.index == left.index && next != left, "{next:?} after {left:?}");
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_bell_wakes_a_parked_ring() {
    with_every_mask(|features| {
        let (_memory, mut engine) = engine(features, UringConfig::default());
        for _ in 0..50 {
            let bell = engine.bell();
            engine.arm();
            let ringer = std::thread::spawn(move || ringcall_core::Bell::ring(&bell));
            // Returns because of the bell: nothing else happens.
            engine.park(None);
            ringer.join().unwrap();
            let mut events = Vec::new();
            engine.reap(&mut events);
            assert!(events.is_empty());
        }
    });
}

#[test]
fn e26_connections_that_say_nothing_hold_no_receive_memory() {
    with_every_mask(|features| {
        for are_unaligned in [false, true] {
            let (memory, mut engine) = engine(features, UringConfig::default());
            let before = memory.pool().stats().lent_bytes;
            let mut all: Vec<_> = (0..200).map(|_| adopt(&mut engine)).collect();
            if are_unaligned {
                all.iter().for_each(|(handle, _)| engine.receive_unaligned(*handle));
            }
            // Before the preface, in the middle of a frame, and behind as many pieces as bring receiving by itself
            // to an end.
            for len in [0, 8 + 20, 3, 100, 17, 1, 1, 21, 64] {
                for (handle, far) in &mut all {
                    far.write_all(&vec![7; len]).unwrap();
                    let mut left = len;
                    while left > 0 {
                        wait(&mut engine, &mut Vec::new(), |event| {
                            let TransportEvent::Received(by, chunk) = event else { return None };
                            assert_eq!(by, handle);
                            left -= chunk.len();
                            Some(())
                        });
                    }
                }
                let mut events = Vec::new();
                for _ in 0..3 {
                    engine.park(Some(Duration::from_millis(1)));
                    engine.reap(&mut events);
                }
                assert!(events.is_empty(), "{events:?}");
                // What is received into by system calls is the engine's own, once.
                let held = memory.pool().stats().lent_bytes - before;
                assert!(held <= BLOCK_BYTES, "{held} bytes are held behind {len} more");
            }
        }
    });
}

/// Whoever shares the socket may end it for all.
#[test]
fn e07_a_listener_that_accepts_nobody_any_more_is_asked_seldom() {
    with_every_mask(|features| {
        let (_memory, mut engine) = engine(features, UringConfig::default());
        for address in addresses() {
            let listener = engine.listen(&address).unwrap();
            let shared = engine.share(listener).unwrap();
            shared.shutdown(Shutdown::Both).unwrap();
            let before = engine.tally().accept_errors.get();
            let (until, mut turns, mut events) =
                (now() + Duration::from_millis(100), 0, Vec::new());
            while now() < until {
                engine.park(Some(Duration::from_millis(50)));
                engine.reap(&mut events);
                turns += 1;
            }
            let errors = engine.tally().accept_errors.get() - before;
            // It pauses for 10 ms, and for longer each time.
            assert!(errors <= 10 && turns <= 30, "{address}: {errors} in {turns} turns");
            assert_eq!((engine.tally().shed.get(), events.len()), (0, 0));
            engine.unlisten(listener);
        }
    });
}

/// How long a test goes on, not what it asserts.
#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn e10_what_a_refusal_means() {
    for number in [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENOMEM, libc::EMFILE] {
        let text = Refusal::Os(number).to_string();
        assert!(text.contains(": "), "says what to do: {text}");
    }
}
