//! The doorbell, in every order of its threads: `cargo xtask models`. A wake that is lost leaves all of them
//! waiting, which loom reports.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use ringcall_buf::model::explore;
use ringcall_core::Bell as _;

use crate::Doorbell;

/// Work is a number that grows: the weakest thing that others can leave.
fn sleep_until(bell: &Doorbell, work: &AtomicUsize, enough: usize) -> u64 {
    let (mut seen, mut sleeps) = (0, 0);
    while seen < enough {
        bell.arm();
        if work.load(Ordering::Relaxed) == seen {
            bell.wait();
        }
        bell.disarm();
        sleeps += 1;
        seen = work.load(Ordering::Relaxed);
    }
    sleeps
}

fn model(ringers: usize, rings: usize) {
    let bell = Doorbell::new().unwrap();
    let work = Arc::new(AtomicUsize::new(0));
    let ringers = (0..ringers).map(|_| {
        let (bell, work) = (bell.clone(), Arc::clone(&work));
        thread::spawn(move || {
            for _ in 0..rings {
                work.fetch_add(1, Ordering::Relaxed);
                bell.ring();
            }
        })
    });
    let ringers: Vec<_> = ringers.collect();
    let sleeps = sleep_until(&bell, &work, ringers.len() * rings);
    ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    assert!(bell.times_raised() <= sleeps, "more than one write a sleep");
    // What was rung is over: one more sleep may be short, but not every one.
    bell.arm();
    bell.disarm();
    assert!(!bell.is_raised(), "nobody can sleep on it any more");
}

#[test]
fn one_ringer() {
    explore("doorbell: one thread leaves work twice, another sleeps", None, || model(1, 2));
}

#[test]
fn two_ringers() {
    explore("doorbell: two threads leave work, another sleeps", Some(3), || model(2, 1));
}
