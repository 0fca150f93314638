//! What a call costs between builds that agree about a message, and between such that do not: CPU time of client,
//! server and kernel together, over a connection on loopback, in turns.
//!
//! ```text
//! $ cargo run --release -p ringcall-benches --bin skew [CALLS]
//! ```
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says what")]

use std::cell::Cell;
use std::rc::Rc;

use ringcall::{LocalClient, Server, Shard, ShardConfig, View};
use ringcall_benches::messages;

mod old {
    use ringcall::View;
    use ringcall_benches::messages::Level;

    #[ringcall::message]
    #[derive(Clone, Debug)]
    pub(super) struct Order {
        pub id: u64,
        pub symbol: String,
        pub levels: Vec<Level>,
    }

    #[ringcall::service(name = "skew.Desk")]
    pub(super) trait Desk {
        async fn put(&self, order: View<Order>) -> Order;
    }
}

/// Its order has another field, so that everything goes by names.
mod new {
    use ringcall::View;
    use ringcall_benches::messages::Order;

    #[ringcall::service(name = "skew.Desk")]
    pub(super) trait Desk {
        async fn put(&self, order: View<Order>) -> Order;
    }
}

struct Clerk;

impl old::Desk for Clerk {
    async fn put(&self, order: View<old::Order>) -> old::Order {
        order.to_owned()
    }
}

fn order() -> old::Order {
    let messages::Order { id, symbol, levels, .. } = messages::order();
    old::Order { id, symbol, levels }
}

const IN_FLIGHT: u64 = 64;

/// CPU seconds of the process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>());
    // Of user and system, a hundred a second.
    ticks.map(|ticks| ticks.expect("a number")).sum::<f64>() / 100.0
}

/// Nanoseconds of CPU a call.
fn measure(shard: &Shard, client: &LocalClient, calls: u64, is_skewed: bool) -> f64 {
    let left = Rc::new(Cell::new(calls));
    let running = Rc::new(Cell::new(IN_FLIGHT));
    let begun = cpu_seconds();
    for _ in 0..IN_FLIGHT {
        let (left, running, client) = (Rc::clone(&left), Rc::clone(&running), client.clone());
        shard.spawn(async move {
            let (old, new) = (old::DeskClient::new(&client), new::DeskClient::new(&client));
            let (order, newer) = (order(), messages::order());
            while left.get() > 0 {
                left.set(left.get() - 1);
                let id = match is_skewed {
                    false => old.put(&order).await.map(|order| order.id).expect("it is answered"),
                    true => new.put(&newer).await.map(|order| order.id).expect("it is answered"),
                };
                assert_eq!(id, 7);
            }
            running.set(running.get() - 1);
        });
    }
    shard.run(|| running.get() > 0);
    (cpu_seconds() - begun) * 1e9 / calls as f64
}

fn main() {
    let calls = std::env::args().nth(1).map_or(500_000, |n| n.parse().expect("a number of calls"));
    let server = Server::bind("127.0.0.1:0").service(old::Desk::into_desk(Clerk)).start();
    let server = server.expect("a port is free");
    let shard = Shard::new(ShardConfig::default()).expect("an engine works");
    let client = shard.block_on(shard.connect(server.address())).expect("it listens");
    measure(&shard, &client, 10_000, true);
    let mut rounds: Vec<(f64, f64)> = (0..5)
        .map(|_| (measure(&shard, &client, calls, false), measure(&shard, &client, calls, true)))
        .collect();
    rounds.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    for (plain, skewed) in &rounds {
        println!(
            "archives {plain:6.0} ns of CPU a call, MessagePack {skewed:6.0}, {:.2} times",
            skewed / plain
        );
    }
    let counters = shard.counters();
    println!("fell back: {} of {} calls", counters.fallback_encoded, counters.calls_made);
}
