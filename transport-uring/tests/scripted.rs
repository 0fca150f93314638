//! The driver against scripts: whatever the order in which operations end, and however they end, bytes
//! arrive and leave in order, connections are released once, and all memory comes back.

mod script;

use std::collections::VecDeque;

use proptest::prelude::*;
use ringcall_core::{Transport, Write};
use ringcall_uring::Features;
use script::world::{self, World};
use script::{Decide, Seed};
use socket2::{Domain, Socket, Type};

/// Everything that happens follows from the seed.
fn seeded(seed: u64, features: Features) -> World<Seed> {
    let seed = seed.max(1);
    World::new(Seed(seed), Seed(seed ^ 0x9e37_79b9_7f4a_7c15), features)
}

fn features() -> impl Strategy<Value = Features> {
    prop_oneof![
        3 => Just(Features::ALL),
        1 => Just(Features::without("multishot_receive").unwrap()),
        1 => Just(Features::without("multishot_accept, coop_taskrun").unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn e16_bytes_are_in_order_and_memory_comes_back_whatever_completes_when(
        seed: u64,
        features in features(),
        steps in 10usize..300,
    ) {
        let mut world = seeded(seed, features);
        for _ in 0..steps {
            world.act();
            if world.decide.one_in(2) {
                world.reap();
            }
        }
        world.settle();
        let World { engine, memory, .. } = world;
        drop(engine);
        assert_eq!(memory.pool().stats().lent_bytes, 0, "all memory comes back");
    }

    #[test]
    fn e17_an_engine_dropped_in_the_middle_takes_everything_back(seed: u64, steps in 1usize..100) {
        let mut world = seeded(seed, Features::ALL);
        for _ in 0..steps {
            world.act();
            if world.decide.one_in(3) {
                world.reap();
            }
        }
        let World { engine, memory, users, events, .. } = world;
        drop(engine);
        drop((users, events));
        assert_eq!(memory.pool().stats().lent_bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn e16_writes_end_once_and_leave_what_they_should(seed: u64, writes in 1usize..60, is_dropped: bool) {
        let mut world = seeded(seed, Features::ALL);
        world.open();
        let file = world::file(b"");
        let mut expected = Vec::new();
        for number in 0..writes {
            let bytes = vec![number as u8; 1 + world.decide.below(900) as usize];
            let chunk = world.memory.pool().copy(&bytes);
            let range = file.range(expected.len() as u64, bytes.len());
            expected.extend(bytes);
            let write = Write::new(&range, chunk);
            assert!(world.engine.write(world.handle(0), write).is_none(), "it is an operation");
            if world.decide.one_in(2) {
                world.reap();
            }
        }
        if !is_dropped {
            world.settle();
            assert_eq!(world.written.len(), writes);
            let mut got = vec![0; expected.len()];
            file.whole().unwrap().read(&mut got).unwrap();
            assert!(got == expected);
        }
        let World { engine, memory, .. } = world;
        drop(engine);
        assert_eq!(memory.pool().stats().lent_bytes, 0, "all memory comes back");
        let last = file.whole().unwrap();
        drop(file);
        assert_eq!(std::sync::Arc::strong_count(last.object()), 1, "and the file");
    }
}

#[test]
fn e14_running_out_of_buffers_ends_and_begins_receiving_once() {
    let mut world = seeded(7, Features::ALL);
    for _ in 0..6 {
        world.open();
    }
    for round in 0..50 {
        for index in 0..6 {
            world.peer_sends(index);
        }
        if round % 2 == 0 {
            world.reap();
        }
    }
    world.settle();
    assert!(world.engine.kernel().no_buffers > 0, "the script did run out");
    // One receive for each connection, and the bell.
    assert_eq!(world.engine.kernel().outstanding(), 7);
    assert_eq!(world.engine.in_flight(), 7);
}

#[test]
fn e14_buffers_that_run_out_for_many_at_once_are_doubled_once() {
    let mut world = seeded(7, Features::ALL);
    for _ in 0..6 {
        world.open();
    }
    // As far as the first multiple of 16, up to which streams do without provided buffers.
    (0..6).for_each(|index| world.peer_sends_bytes(index, 8));
    world.settle();
    (0..6).for_each(|index| world.peer_sends_bytes(index, 512));
    // The first reap hears of several that found none, the second provides more.
    world.reap();
    assert!(world.engine.kernel().no_buffers > 1, "they ran out for more than one");
    assert_eq!(world.engine.kernel().numbers, 2);
    world.reap();
    assert_eq!(world.engine.kernel().numbers, 4);
    world.settle();
}

#[test]
fn e16_a_connection_accepted_after_its_listener_left_is_closed() {
    let mut decisions = VecDeque::from([1, 2, 3, 4, 5, 6, 7, 8]);
    while let Some(seed) = decisions.pop_front() {
        let mut world = seeded(seed, Features::ALL);
        let listener = world.engine.listen(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let (accepted, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let accepted = std::os::fd::IntoRawFd::into_raw_fd(accepted);
        world.engine.unlisten(listener);
        for peer in 0..64 {
            // Whichever number the listener has.
            let waiting = &mut world.engine.kernel_mut().peers.entry(peer).or_default().waiting;
            waiting.push_back(accepted);
        }
        for _ in 0..20 {
            world.reap();
        }
        assert_eq!(world.engine.in_flight(), 1, "only the bell is left");
        let was_taken =
            world.engine.kernel_mut().peers.values().any(|peer| peer.waiting.is_empty());
        if was_taken {
            other.set_nonblocking(true).unwrap();
            let mut byte = [std::mem::MaybeUninit::uninit(); 1];
            assert_eq!(other.recv(&mut byte).unwrap(), 0, "it was closed");
        } else {
            // SAFETY: nobody took it, so it is still ours to close.
            drop(unsafe { <Socket as std::os::fd::FromRawFd>::from_raw_fd(accepted) });
        }
    }
}
