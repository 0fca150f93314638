//! Counts calls and times some of them. Thread-local, since each client makes its calls on one thread,
//! and its tasks may have to be `Send`.
#![expect(clippy::disallowed_methods, reason = "measures")]

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cases::Case;
use crate::histograms::{self, Counts};
use crate::machine::{Both, Usage};
use crate::pace::{self, Pace};
use crate::{Error, Result};

const WARM_UP: Duration = Duration::from_millis(300);

/// What a client found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) calls_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Of both processes together.
    pub(crate) cpu_s_per_mcall: f64,
    /// Of both cores' time, what the hypervisor gave to others while they were wanted here.
    #[serde(default)]
    pub(crate) stolen: f64,
    /// How long a word of memory takes from one core to the other and back, before the measurement; if there are two.
    #[serde(default)]
    pub(crate) between_cores_ns: Option<f64>,
    /// Of both processes together, a call; if that was counted, which makes everything else slower.
    #[serde(default)]
    pub(crate) allocations: Option<f64>,
    #[serde(default)]
    pub(crate) system_calls: Option<f64>,
    /// Pairs of a share of the calls and what that many were no slower than, in µs.
    pub(crate) curve: Vec<(f64, f64)>,
    /// All latencies that were measured, in nanoseconds; not for reports.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub(crate) latencies: Counts,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// How long to measure, and which server.
pub(crate) struct Watch {
    pub(crate) time: Duration,
    pub(crate) server: u32,
    /// Whether allocations and system calls are counted.
    pub(crate) counts: bool,
}

/// Makes one call and compares what comes back with what was sent.
pub(crate) trait Caller {
    /// `turn` is 0 or 1: two messages in turns, so that the reply to an earlier call is noticed.
    async fn call(&mut self, turn: usize) -> Result<()>;
}

pub(crate) fn mismatch() -> Error {
    "a reply is not what was sent".into()
}

/// Makes calls, one after the other, until the time is over. `index` is which of several callers it is.
pub(crate) async fn work(mut caller: impl Caller, index: usize) {
    let stride = with(|meter| meter.stride);
    let mut number = index as u64;
    while !is_over() {
        let start = match pace::is_set() {
            // What a call waits for its caller counts: else a server that is slow would be asked less.
            true => pace::next().await,
            false => number.is_multiple_of(stride).then(Instant::now),
        };
        if let Err(error) = caller.call((number % 2) as usize).await {
            return fail(error);
        }
        done(start);
        number += 1;
    }
}

struct Meter {
    time: Duration,
    both: Both,
    stride: u64,
    stage: Stage,
    until: Instant,
    since: Instant,
    usage: Usage,
    calls: u64,
    latencies: Histogram<u64>,
    end: Option<Result<Measured>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    WarmingUp,
    Measuring,
    Over,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Meter) -> T) -> T {
    METER.with_borrow_mut(|meter| act(meter.as_mut().expect("begun before the first call")))
}

/// All connections are there; calls begin.
pub(crate) fn begin(case: &Case, watch: Watch) -> Result<()> {
    let mut both = Both::new(watch.server, watch.counts)?;
    let usage = both.usage()?;
    let now = Instant::now();
    pace::set(case.rate.map(|rate| Pace::new(rate, now)));
    let meter = Meter {
        time: watch.time,
        both,
        stride: case.stride(),
        stage: Stage::WarmingUp,
        until: now + WARM_UP,
        since: now,
        usage,
        calls: 0,
        latencies: histograms::new()?,
        end: None,
    };
    METER.set(Some(meter));
    Ok(())
}

/// What came of it, when all callers have stopped.
pub(crate) fn finish() -> Result<Measured> {
    with(|meter| meter.end.take()).unwrap_or_else(|| Err("the calls stopped early".into()))
}

pub(crate) fn is_over() -> bool {
    with(|meter| meter.stage == Stage::Over)
}

/// A call has ended; `start` is when it began, if it is one that is timed.
pub(crate) fn done(start: Option<Instant>) {
    with(|meter| {
        meter.calls += 1;
        if let Some(start) = start {
            let now = Instant::now();
            meter.record(now - start);
            meter.look_at(now);
        }
    });
}

/// Several calls have ended, of which some were timed.
pub(crate) fn done_many(calls: u64, latencies: impl Iterator<Item = Duration>, now: Instant) {
    with(|meter| {
        meter.calls += calls;
        latencies.for_each(|latency| meter.record(latency));
        meter.look_at(now);
    });
}

/// Counts the items of a stream. What is timed is how far they are apart, on average of so many.
pub(crate) struct Items {
    since: Instant,
    count: u32,
}

const ITEMS_A_LOOK: u32 = 64;

impl Items {
    pub(crate) fn new() -> Items {
        Items { since: Instant::now(), count: 0 }
    }

    pub(crate) fn arrived(&mut self) {
        self.count += 1;
        if self.count == ITEMS_A_LOOK {
            let now = Instant::now();
            let apart = (now - self.since) / ITEMS_A_LOOK;
            done_many(u64::from(ITEMS_A_LOOK), std::iter::once(apart), now);
            *self = Items { since: now, count: 0 };
        }
    }
}

/// The first failure counts.
pub(crate) fn fail(error: Error) {
    with(|meter| meter.stop(Err(error)));
}

impl Meter {
    fn record(&mut self, latency: Duration) {
        self.latencies.saturating_record((latency.as_nanos() as u64).max(1));
    }

    fn look_at(&mut self, now: Instant) {
        if now < self.until {
            return;
        }
        match (self.stage, self.both.usage()) {
            (Stage::Over, _) => {}
            (_, Err(error)) => self.stop(Err(error)),
            (Stage::WarmingUp, Ok(usage)) => {
                self.stage = Stage::Measuring;
                self.usage = usage;
                self.calls = 0;
                self.latencies.reset();
                self.since = Instant::now();
                self.until = self.since + self.time;
            }
            (Stage::Measuring, Ok(usage)) => {
                let measured = self.measured(now - self.since, usage);
                self.stop(Ok(measured));
            }
        }
    }

    fn stop(&mut self, end: Result<Measured>) {
        self.stage = Stage::Over;
        self.end.get_or_insert(end);
    }

    fn measured(&self, time: Duration, end: Usage) -> Measured {
        let begin = &self.usage;
        let (time, calls) = (time.as_secs_f64(), self.calls as f64);
        let a_call = |begin: Option<u64>, end: Option<u64>| Some((end? - begin?) as f64 / calls);
        let stolen = end.stolen_seconds - begin.stolen_seconds;
        let micros = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Measured {
            calls_per_s: calls / time,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            cpu_s_per_mcall: (end.cpu_seconds - begin.cpu_seconds) * 1e6 / calls,
            stolen: stolen / (time * self.both.cores() as f64),
            between_cores_ns: None,
            allocations: a_call(begin.allocations, end.allocations),
            system_calls: a_call(begin.system_calls, end.system_calls),
            curve: CURVE.iter().map(|&share| (share, micros(share))).collect(),
            latencies: histograms::counts(&self.latencies),
        }
    }
}

/// Where the curve of latencies is looked at.
const CURVE: &[f64] = &[
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999, 0.9995, 0.99975,
    0.9999, 0.99999,
];
