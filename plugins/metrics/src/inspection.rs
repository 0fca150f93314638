//! A service that says what its server does, for people and tools that look at one server: `ringcall top`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringcall::observe::{Class, Role};
use ringcall::{EncodeAs, Encoded, SharedEncoded, each};

use crate::{Calls, ConnectionCounts, Counts, Histogram, Metrics, Snapshot};

/// Says what was counted, see [`Metrics::inspector`].
#[ringcall::service(send)]
pub trait Inspection {
    /// What was counted so far. Who wants to know what goes on asks again, and looks at the difference.
    #[method(idempotent, offload)]
    async fn look(&self) -> SharedEncoded<Look>;
}

/// What was counted, at one moment.
#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// For how long it was counted, in microseconds.
    pub counted_us: u64,
    /// Calls by method and peer, those of which most have begun first.
    pub calls: Vec<CallsLook>,
    /// Methods and peers that are left out, because there are more than a thousand.
    pub left_out: u64,
    /// Connections that were opened by the process.
    pub opened: ConnectionCounts,
    /// Connections that were accepted.
    pub accepted: ConnectionCounts,
    /// Connections that were closed at once because there were too many.
    pub turned_away: u64,
    /// Items that subscribers of topics have missed because they were slow.
    pub items_missed: u64,
    /// Subscribers of topics that were closed because they were slow.
    pub subscribers_closed: u64,
    /// ringcall's own counters, as they were up to a second ago.
    pub counters: Vec<Count>,
    /// What else is counted, by name.
    pub sources: Vec<SourceLook>,
}

/// Calls of one method and peer.
#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
pub struct CallsLook {
    /// Whether they are served here, or made here.
    pub is_served: bool,
    /// `package.Service/method`, or `other`.
    pub method: String,
    /// The peer; empty if it has no address, `other` if there were too many.
    pub peer: String,
    /// How many have begun.
    pub begun: u64,
    /// How many have ended as they should.
    pub ok: u64,
    /// How many have ended with the handler's own error.
    pub application: u64,
    /// How many were not sent.
    pub not_sent: u64,
    /// How many were not run.
    pub refused: u64,
    /// How many have failed and may have run.
    pub unknown: u64,
    /// Of those that have ended, how many because their time was over.
    pub expired: u64,
    /// Of those that have ended, how many because too much was going on.
    pub shed: u64,
    /// How many came in a codec that is neither rkyv's nor raw bytes.
    pub fallback: u64,
    /// How many were made again on another connection.
    pub repeated: u64,
    /// Bytes of arguments.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub reply_bytes: u64,
    /// How long they took.
    pub latency: Times,
    /// How long handlers had them.
    pub handled: Times,
}

/// How long something took.
#[ringcall::message]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// All of it together, in microseconds.
    pub sum_us: u64,
    /// How many took how long: the buckets in which there are any, the shortest first.
    pub buckets: Vec<Bucket>,
}

/// Some that took about as long.
#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// They took less than so many microseconds, and no less than four fifths of it.
    pub below_us: u64,
    /// How many.
    pub count: u64,
}

/// A count by name.
#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    /// What is counted.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What a [source](Metrics::source) has counted.
#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
pub struct SourceLook {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub counts: Vec<Count>,
}

/// Of methods and peers, so that a message stays below a megabyte or two.
const CALLS_MAX: usize = 1000;

/// Whoever asks within this time gets the same: to be asked often costs little.
const KEPT: Duration = Duration::from_millis(50);

/// Answers what an [`Inspection`] asks. A handle: clones answer the same.
#[derive(Clone)]
pub struct Inspector(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    since: Instant,
    last: Mutex<Option<(Instant, SharedEncoded<Look>)>>,
}

impl Inspector {
    pub(crate) fn of(metrics: &Metrics) -> Inspector {
        Inspector(Arc::new(Inner {
            metrics: metrics.clone(),
            since: now(),
            last: Mutex::new(None),
        }))
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("metrics", &self.0.metrics).finish_non_exhaustive()
    }
}

impl Inspection for Inspector {
    async fn look(&self) -> SharedEncoded<Look> {
        let Inner { metrics, since, last } = &*self.0;
        // One counts for all who ask at the same time.
        let mut last = last.lock();
        let now = now();
        if let Some((at, look)) = &*last
            && now.duration_since(*at) < KEPT
        {
            return look.clone();
        }
        let look = encoded(metrics.snapshot(), now.duration_since(*since));
        *last = Some((now, look.clone()));
        look
    }
}

fn now() -> Instant {
    #![expect(clippy::disallowed_methods, reason = "how long it was counted, which is for people")]
    Instant::now()
}

fn encoded(mut snapshot: Snapshot, counted: Duration) -> SharedEncoded<Look> {
    snapshot.series.sort_by_key(|calls| std::cmp::Reverse(calls.begun));
    let left_out = snapshot.series.len().saturating_sub(CALLS_MAX) as u64;
    snapshot.series.truncate(CALLS_MAX);
    let sources = snapshot.sources.iter();
    let look = LookRef {
        counted_us: counted.as_micros().try_into().unwrap_or(u64::MAX),
        calls: each(snapshot.series.iter().map(calls_look)),
        left_out,
        opened: snapshot.opened,
        accepted: snapshot.accepted,
        turned_away: snapshot.turned_away,
        items_missed: snapshot.items_missed,
        subscribers_closed: snapshot.subscribers_closed,
        counters: counts_look(&snapshot.counters),
        sources: each(
            sources.map(|(name, counts)| SourceLookRef { name, counts: counts_look(counts) }),
        ),
    };
    Encoded::of(&look).share()
}

fn calls_look(calls: &Calls) -> impl EncodeAs<CallsLook> {
    CallsLookRef {
        is_served: calls.role == Role::Server,
        method: calls.method,
        peer: &*calls.peer,
        begun: calls.begun,
        ok: calls.ended_as(Class::Ok),
        application: calls.ended_as(Class::Application),
        not_sent: calls.ended_as(Class::NotSent),
        refused: calls.ended_as(Class::Refused),
        unknown: calls.ended_as(Class::Unknown),
        expired: calls.expired,
        shed: calls.shed,
        fallback: calls.fallback,
        repeated: calls.repeated,
        request_bytes: calls.request_bytes,
        reply_bytes: calls.reply_bytes,
        latency: times(&calls.latency),
        handled: times(&calls.handled),
    }
}

fn times(histogram: &Histogram) -> Times {
    let buckets = histogram.buckets().map(|(below_us, count)| Bucket { below_us, count });
    Times {
        sum_us: histogram.sum().as_micros().try_into().unwrap_or(u64::MAX),
        buckets: buckets.collect(),
    }
}

fn counts_look(counts: &Counts) -> impl EncodeAs<Vec<Count>> {
    each(counts.iter().map(|(name, count)| CountRef { name: *name, count: *count }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn calls(number: u64) -> Calls {
        Calls {
            role: Role::Server,
            method: "test.Desk/half",
            peer: Arc::from(format!("peer {number}")),
            begun: number,
            ended: [1, 2, 3, 4, 5],
            expired: 6,
            shed: 7,
            fallback: 8,
            repeated: 9,
            request_bytes: 10,
            reply_bytes: 11,
            latency: Histogram::default(),
            handled: Histogram::default(),
        }
    }

    fn read(snapshot: Snapshot) -> Look {
        let server =
            ringcall::Server::bind("127.0.0.1:0").service(Fixed(snapshot).into_inspection());
        let server = server.start().unwrap();
        let inspection = InspectionClient::connect(server.address()).wait().unwrap();
        inspection.look().wait().unwrap().to_owned()
    }

    struct Fixed(Snapshot);

    impl Inspection for Fixed {
        async fn look(&self) -> SharedEncoded<Look> {
            encoded(self.0.clone(), Duration::from_micros(12))
        }
    }

    #[test]
    fn all_that_was_counted_is_told() {
        let snapshot = Snapshot {
            series: vec![calls(1)],
            opened: ConnectionCounts { total: 3, established: 2, open: 1 },
            accepted: ConnectionCounts { total: 6, established: 5, open: -4 },
            turned_away: 7,
            items_missed: 8,
            subscribers_closed: 9,
            counters: vec![("one", 1), ("two", 2)],
            sources: vec![("of mine".into(), vec![("three", 3)])],
        };
        let count = |name: &str, count| Count { name: name.to_owned(), count };
        let looked = CallsLook {
            is_served: true,
            method: "test.Desk/half".into(),
            peer: "peer 1".into(),
            begun: 1,
            ok: 1,
            application: 2,
            not_sent: 3,
            refused: 4,
            unknown: 5,
            expired: 6,
            shed: 7,
            fallback: 8,
            repeated: 9,
            request_bytes: 10,
            reply_bytes: 11,
            latency: Times::default(),
            handled: Times::default(),
        };
        let expected = Look {
            counted_us: 12,
            calls: vec![looked],
            left_out: 0,
            opened: ConnectionCounts { total: 3, established: 2, open: 1 },
            accepted: ConnectionCounts { total: 6, established: 5, open: -4 },
            turned_away: 7,
            items_missed: 8,
            subscribers_closed: 9,
            counters: vec![count("one", 1), count("two", 2)],
            sources: vec![SourceLook { name: "of mine".into(), counts: vec![count("three", 3)] }],
        };
        assert_eq!(read(snapshot), expected);
    }

    /// However many methods and peers there are, a look has a bound.
    #[test]
    fn those_that_have_done_least_are_left_out() {
        let snapshot = Snapshot { series: (0..1007).map(calls).collect(), ..Snapshot::default() };
        let look = read(snapshot);
        assert_eq!((look.calls.len(), look.left_out), (1000, 7));
        assert_eq!((look.calls[0].begun, look.calls[999].begun), (1006, 7));
    }
}
