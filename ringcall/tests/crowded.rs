//! More busy threads than cores: a shard that looks on before it sleeps leaves others theirs. A file of its own, since what
//! other tests do meanwhile would take part.

#[path = "suite/common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Cook, Kitchen, KitchenClient, Pair};
use ringcall::Address;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// For how long this thread has had a core.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Stays on one of the cores that it may use.
fn stay_on(choose: impl FnOnce(&[usize]) -> usize) {
    let may_use = sched_getaffinity(None).unwrap();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| may_use.is_set(*core)).collect();
    let mut set = CpuSet::new();
    set.set(choose(&cores));
    sched_setaffinity(None, &set).unwrap();
}

/// Serves until it is told to stop; for how long it had a core.
fn serve(pair: Pair, told: &mpsc::Sender<Address>, stop: &AtomicBool) -> Duration {
    stay_on(|cores| cores[0]);
    let shard = pair.shard();
    shard.serve(Cook::default().into_kitchen()).unwrap();
    told.send(shard.listen(common::address(pair.socket)).unwrap()).unwrap();
    let began = own_time();
    shard.run(|| !stop.load(Ordering::Relaxed));
    own_time() - began
}

/// Calls once a millisecond, for which nobody need look on, until told to stop: how many were answered.
fn call(pair: Pair, address: &Address, stop: &AtomicBool) -> u32 {
    stay_on(|cores| cores[cores.len() - 1]);
    let client = pair.dial(address).unwrap();
    let kitchen = KitchenClient::new(&client);
    let mut calls = 0;
    loop {
        let is_answered = kitchen.nothing().wait().is_ok();
        if stop.load(Ordering::Relaxed) {
            return calls;
        }
        assert!(is_answered);
        calls += 1;
        common::block(Duration::from_millis(1));
    }
}

/// Wants the server's core until it has had it for so long.
fn be_busy(time: Duration) {
    stay_on(|cores| cores[0]);
    while own_time() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn a_shard_that_looks_on_leaves_others_their_core() {
    const BUSY: Duration = Duration::from_millis(500);
    common::over_every_engine_in_turn(|pair| {
        let stop = &AtomicBool::new(false);
        let (told, addresses) = mpsc::channel();
        let (served, calls) = thread::scope(|scope| {
            let server = scope.spawn(|| serve(pair, &told, stop));
            let address = addresses.recv().unwrap();
            let caller = scope.spawn(move || call(pair, &address, stop));
            scope.spawn(|| be_busy(BUSY)).join().unwrap();
            stop.store(true, Ordering::Relaxed);
            (server.join().unwrap(), caller.join().unwrap())
        });
        common::say(format_args!("{calls} calls, for which it had a core for {served:?}"));
        assert!(calls > 0);
        // One that never sleeps has as much as whoever is busy, one that sleeps at once a tenth or less.
        assert!(served < BUSY / 2, "{served:?} of {BUSY:?}");
    });
}
