//! A server says what it does.

use std::time::Duration;

use ringcall::Server;
use ringcall_metrics::{Inspection as _, InspectionClient, Metrics};

#[ringcall::service(name = "test.Desk")]
trait Desk {
    async fn half(&self, number: u64) -> Result<u64, bool>;
}

struct Clerk;

impl Desk for Clerk {
    async fn half(&self, number: u64) -> Result<u64, bool> {
        if number.is_multiple_of(2) { Ok(number / 2) } else { Err(true) }
    }
}

#[test]
fn who_looks_sees_what_was_done() {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk()).shards(2);
    let server = server.service(metrics.inspector().into_inspection());
    let server = server.observer(metrics.observer()).start().unwrap();
    metrics.source("mine", || vec![("found", 7)]);
    let desk = DeskClient::connect(server.address()).wait().unwrap();
    for number in 0..30 {
        let _ = desk.half(&number).wait();
    }
    let inspection = InspectionClient::connect(server.address()).wait().unwrap();
    let looked = loop {
        let look = inspection.look().wait().unwrap().to_owned();
        let half = look.calls.iter().find(|calls| calls.method == "test.Desk/half").cloned();
        // The last answer may be on its way before it is counted, counters are told once a second, and what was asked a
        // moment ago is said again.
        let half = half.filter(|half| half.ok + half.application == 30);
        if let Some(half) = half.filter(|_| !look.counters.is_empty()) {
            break (look, half);
        }
    };
    let (look, half) = looked;
    assert_eq!((half.is_served, half.begun, half.ok, half.application), (true, 30, 15, 15));
    assert_eq!(half.latency.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 30);
    assert!(half.latency.buckets.is_sorted_by_key(|bucket| bucket.below_us));
    assert!(half.request_bytes >= 30 * 8 && look.accepted.open == 2, "{look:?}");
    assert_eq!((&*look.sources[0].name, look.sources[0].counts[0].count), ("mine", 7));
    assert!(look.counted_us > 0 && look.counters.iter().any(|count| count.name == "calls_made"));
}

/// Many who ask have the same read for all of them.
#[test]
fn those_who_ask_at_the_same_time_see_the_same() {
    let metrics = Metrics::new();
    let inspector = metrics.inspector();
    let server = Server::bind("127.0.0.1:0").service(inspector.into_inspection());
    let server = server.start().unwrap();
    let inspection = InspectionClient::connect(server.address()).wait().unwrap();
    let moments: Vec<u64> =
        (0..200).map(|_| inspection.look().wait().unwrap().counted_us.to_native()).collect();
    let mut different = moments.clone();
    different.dedup();
    let took = Duration::from_micros(moments[199] - moments[0]);
    // One each 50 ms, and one to begin with.
    assert!(different.len() as u128 <= took.as_millis() / 50 + 1, "{different:?}");
}
