//! Of connections that were, nothing is left at a client. Counted is what is allocated, by one test only, since
//! everything in the process counts.
#![allow(clippy::print_stderr, reason = "what is skipped says why")]

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringcall::{Bytes, LocalClient, Shard, ShardConfig, TransportChoice};
use ringcall_hostile::live::Live;
use ringcall_hostile::process::Process;
use ringcall_hostile::proxy::{Faults, Proxy};
use ringcall_hostile::victim::{Setting, VictimClient};

/// Each waits for about a tenth of a second between two connections.
const CLIENTS: usize = 200;
const CONNECTIONS: u64 = 10_000;
/// Some are reset in the handshake, most in the middle of a body.
const RESET_WITHIN: u64 = 20_000;
const DEADLINE: Duration = Duration::from_secs(30);

type Victim = Rc<VictimClient<LocalClient>>;

#[test]
fn a_client_that_reconnects_holds_nothing_of_connections_that_were() {
    for engine in [TransportChoice::Epoll, TransportChoice::Uring] {
        let mut config = ShardConfig::default();
        config.transport = engine;
        match Shard::new(config) {
            Ok(shard) => blocks_stay(&shard, engine),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

fn blocks_stay(shard: &Shard, engine: TransportChoice) {
    let program = Path::new(env!("CARGO_BIN_EXE_ringcall-hostile"));
    let server = Process::start(program, engine, &Setting::default()).unwrap();
    let proxy = Proxy::start(server.address(), 1).unwrap();
    let victims: Vec<Victim> = (0..CLIENTS).map(|_| connect(shard, &proxy)).collect();
    let mut seen = Vec::new();
    for connections in [CONNECTIONS / 10, CONNECTIONS] {
        reconnect(shard, &proxy, &victims, connections);
        seen.push(Live::now().blocks);
    }
    // Tables and pools may have had to be a little larger.
    assert!(seen[1] < seen[0] + CONNECTIONS / 20, "{engine}: {seen:?}");
}

fn connect(shard: &Shard, proxy: &Proxy) -> Victim {
    let local = shard.block_on(shard.connect(proxy.address().to_string())).unwrap();
    Rc::new(VictimClient::new(local))
}

/// Calls until so many connections were made. At last each client has one that works, and nothing under way.
fn reconnect(shard: &Shard, proxy: &Proxy, victims: &[Victim], connections: u64) {
    let until = proxy.made() + connections;
    let mut faults = Faults::default();
    faults.reset_within = Some(RESET_WITHIN);
    set(proxy, faults);
    let (running, is_over) = (Rc::new(Cell::new(CLIENTS)), Rc::new(Cell::new(false)));
    for victim in victims {
        let (victim, running) = (Rc::clone(victim), Rc::clone(&running));
        let is_over = Rc::clone(&is_over);
        shard.spawn(async move {
            while !is_over.get() {
                some_calls(&victim).await;
            }
            running.set(running.get() - 1);
        });
    }
    shard.run(|| proxy.made() < until);
    is_over.set(true);
    set(proxy, Faults::default());
    shard.run(|| running.get() > 0);
    for victim in victims {
        let body = Bytes::new();
        let answer = victim.measure(&body).wait_for_ready(true).deadline(DEADLINE);
        shard.block_on(answer.into_future()).unwrap();
    }
    shard.run(|| proxy.open() > CLIENTS);
}

/// Connections keep what they began with.
fn set(proxy: &Proxy, faults: Faults) {
    proxy.set(faults);
    proxy.cut();
}

/// A small body, a large one, and a stream, as far as they get.
async fn some_calls(victim: &Victim) {
    let (small, large) = (Bytes::from_static(&[1; 200]), Bytes::from_static(&[2; 100_000]));
    let wanted = [10u32.to_le_bytes(), 1000u32.to_le_bytes()].concat();
    // Those to a connection that is broken would fail at once, and again and again.
    let _ = victim.echo(&small).wait_for_ready(true).deadline(DEADLINE).await;
    let items = victim.count(&wanted.into()).deadline(DEADLINE).await;
    let _ = victim.echo(&large).deadline(DEADLINE).await;
    if let Ok(mut items) = items {
        while let Some(Ok(_)) = items.next().await {}
    }
}
