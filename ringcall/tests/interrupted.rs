//! Calls while signals interrupt every thread, again and again. A file of its own, since signals are for
//! the whole process.

#[path = "suite/common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{KitchenClient, order, over_every_pair};
use ringcall::{Bytes, CallOptions};

static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn interrupted(_: libc::c_int) {
    INTERRUPTED.fetch_add(1, Ordering::Relaxed);
}

/// System calls that a signal interrupts are not begun again by the kernel.
fn interrupt_system_calls() {
    // SAFETY: all zeros is a `sigaction` without flags, and the handler does nothing but count.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = interrupted as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: both pointers are valid or null.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// Interrupts every thread but its own until it is told to stop.
fn storm(stop: &AtomicBool) {
    // SAFETY: it only says who this thread is.
    let own = unsafe { libc::gettid() };
    let process = std::process::id();
    while !stop.load(Ordering::Relaxed) {
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            let name = task.unwrap().file_name().into_string().unwrap();
            let thread: libc::pid_t = name.parse().unwrap();
            if thread != own {
                // SAFETY: the signal has a handler; a thread that has ended meanwhile is an error.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
            }
        }
        common::block(Duration::from_micros(20));
    }
}

#[test]
fn e02_calls_go_on_while_every_thread_is_interrupted() {
    interrupt_system_calls();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| storm(&stop));
        over_every_pair(|pair| {
            let (server, _) = pair.serve();
            let options = CallOptions::new().deadline(Duration::from_secs(60));
            let client = pair.kitchen(&server).with_options(options.clone());
            let callers: Vec<_> = (0..3)
                .map(|caller| {
                    let client = client.clone();
                    thread::spawn(move || {
                        for number in 0..100 {
                            let order = order(caller * 1000 + number);
                            assert_eq!(client.cook(&order).wait().unwrap().to_owned(), order);
                        }
                    })
                })
                .collect();
            let blocking = pair.blocking(&server);
            let local = KitchenClient::new(blocking.local().clone()).with_options(options);
            let body = Bytes::from(vec![7; 1 << 20]);
            for _ in 0..10 {
                let answer = blocking.run(local.raw(&body).into_future()).unwrap();
                assert!(answer[..] == body[..]);
                blocking.run(local.simmer(&1).into_future()).unwrap();
            }
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
        stop.store(true, Ordering::Relaxed);
    });
    let interrupted = INTERRUPTED.load(Ordering::Relaxed);
    assert!(interrupted > 1000, "{interrupted}");
}
