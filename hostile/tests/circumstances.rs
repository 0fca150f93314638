//! A server as a process of its own under what its system does to it, attacked meanwhile.
#![allow(clippy::print_stderr, reason = "what is skipped says why")]

use std::path::Path;
use std::time::Duration;

use ringcall::TransportChoice;
use ringcall_hostile::attackers::{Attackers, Manner, has_python, python};
use ringcall_hostile::honest::Honest;
use ringcall_hostile::process::{Process, Usage};
use ringcall_hostile::victim::Setting;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringcall-hostile");
const ENGINES: [TransportChoice; 2] = [TransportChoice::Epoll, TransportChoice::Auto];
const SECOND: Duration = Duration::from_secs(1);

fn start(engine: TransportChoice, setting: impl FnOnce(&mut Setting)) -> Process {
    let mut set = Setting::default();
    setting(&mut set);
    Process::start(Path::new(PROGRAM), engine, &set).unwrap()
}

fn attack(server: &Process, name: &str, connections: u64, seconds: u64) -> Attackers {
    let manner = Manner { connections, seconds, seed: 1, is_idle: false };
    Attackers::start(name, server.address(), manner).unwrap()
}

/// An honest client that is served until the attackers end.
fn serves(server: &mut Process, mut attackers: Attackers) {
    let honest = Honest::connect(server.address(), TransportChoice::Epoll).unwrap();
    let measured = honest.run(100, 20 * SECOND, || server.is_alive() && !attackers.is_over());
    let tally = measured.tally;
    assert!(tally.ok > 0 && tally.ok == tally.begun, "{tally}");
    let seen = attackers.seen().unwrap();
    assert!(seen.violations.is_empty(), "{seen:?}");
}

/// What the server holds when only honest connections are left, or after ten seconds.
fn settled(server: &mut Process, honest: &Honest, descriptors: u64) -> Usage {
    let mut usage = server.usage().unwrap();
    honest.wait_while(10 * SECOND, || {
        usage = server.usage().unwrap();
        usage.descriptors > descriptors
    });
    usage
}

#[test]
fn f12_when_connections_have_come_and_gone_descriptors_and_memory_are_back() {
    if !has_python() {
        return eprintln!("skipped: there is no python3");
    }
    for engine in ENGINES {
        let mut server = start(engine, |_| ());
        let honest = Honest::connect(server.address(), TransportChoice::Epoll).unwrap();
        let before = server.usage().unwrap();
        let mut resident: Vec<u64> = Vec::new();
        // Pools and tables are as large as what was needed at once, and each round may need a little more than those
        // before. What is lost is lost in each of them, by thousands of connections.
        let has_settled = |resident: &[u64]| match resident {
            [before @ .., last] => {
                before.iter().any(|before| last.saturating_sub(*before) < 256 << 10)
            }
            [] => false,
        };
        while !has_settled(&resident) {
            assert!(resident.len() < 8, "{engine}: {resident:?}");
            for name in ["reconnect_flood", "reset_at_every_byte"] {
                let mut attackers = attack(&server, name, 50, 1);
                honest.run(100, 20 * SECOND, || !attackers.is_over());
                assert!(attackers.seen().unwrap().opened > 100, "{name}");
            }
            let after = settled(&mut server, &honest, before.descriptors);
            assert_eq!(after.descriptors, before.descriptors, "{engine}");
            assert_eq!(after.threads, before.threads, "{engine}");
            resident.push(after.resident);
        }
        server.stop().unwrap();
    }
}

#[test]
fn e07_who_is_connected_is_served_while_others_find_no_descriptor() {
    if !has_python() {
        return eprintln!("skipped: there is no python3");
    }
    for engine in ENGINES {
        let mut server = start(engine, |setting| setting.files = Some(64));
        let honest = Honest::connect(server.address(), TransportChoice::Epoll).unwrap();
        let mut attackers = attack(&server, "silent_after_hello", 300, 2);
        let tally = honest.run(100, 20 * SECOND, || !attackers.is_over()).tally;
        assert!(tally.ok > 0 && tally.ok == tally.begun, "{engine}: {tally}");
        // And whoever comes later, too.
        let later = Honest::connect(server.address(), TransportChoice::Epoll).unwrap();
        let tally = later.run(100, SECOND, || true).tally;
        assert!(tally.ok > 0 && tally.ok == tally.begun, "{engine}: {tally}");
        assert!(server.is_alive());
        let incidents = server.stop().unwrap().incidents;
        assert!(incidents["turned_away"] + incidents["shed"] > 0, "{engine}: {incidents:?}");
    }
}

#[test]
fn e10_where_io_uring_is_forbidden_epoll_withstands() {
    if !has_python() {
        return eprintln!("skipped: there is no python3");
    }
    let mut launcher = python("without_io_uring.py");
    launcher.args([PROGRAM, "serve"]).env("RINGCALL_TRANSPORT", "auto");
    let mut server = Process::spawn(launcher).unwrap();
    assert_eq!(server.started().engine, "epoll", "{:?}", server.started());
    let attackers = attack(&server, "everything", 40, 3);
    serves(&mut server, attackers);
    server.stop().unwrap();
}

#[test]
fn e11_without_memory_to_lock_it_withstands() {
    if !has_python() {
        return eprintln!("skipped: there is no python3");
    }
    let mut server = start(TransportChoice::Auto, |setting| setting.locked_kib = Some(0));
    assert_eq!(server.started().engine, "epoll", "{:?}", server.started());
    let attackers = attack(&server, "everything", 40, 3);
    serves(&mut server, attackers);
    server.stop().unwrap();
}

#[test]
fn f02_a_server_that_aborts_ends_its_calls_once_and_the_next_one_is_found() {
    for engine in ENGINES {
        let server = start(engine, |setting| setting.is_mortal = true);
        let address = server.address();
        let honest = Honest::connect(address, TransportChoice::Epoll).unwrap();
        let minute = ringcall::Bytes::copy_from_slice(&60_000u32.to_le_bytes());
        let victim = honest.victim();
        let (held, aborted) = honest.shard().block_on(async {
            let mut held = std::pin::pin!(victim.hold(&minute).deadline(30 * SECOND).into_future());
            std::future::poll_fn(|cx| std::task::Poll::Ready(held.as_mut().poll(cx).is_ready()))
                .await;
            let aborted = victim.abort().await.map(|_| ());
            (held.await.map(|_| ()), aborted)
        });
        for end in [held, aborted] {
            let error = end.unwrap_err();
            assert!(!error.is_safe_to_retry(), "{engine}: it may have run, but: {error}");
        }
        drop(server);
        let mut next = start(engine, |setting| setting.address = Some(address.to_string()));
        honest.shard().block_on(honest.local().ready()).unwrap();
        let tally = honest.run(100, SECOND, || true).tally;
        assert!(tally.ok > 0 && tally.ok == tally.begun, "{engine}: {tally}");
        assert!(next.is_alive());
    }
}
