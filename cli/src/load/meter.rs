//! Counts calls, and how long they took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringcall::{CallError, Failure, UntypedResult};

use crate::exit::{cause, told, whether_it_ran};

/// What became of calls.
pub(crate) struct Meter {
    begun: u64,
    replies: u64,
    handler_errors: u64,
    /// By the word for their cause: there are as many as there are words.
    failures: BTreeMap<&'static str, Failures>,
    /// Of the calls that handlers have answered, in nanoseconds.
    latencies: Histogram<u64>,
    last: Option<Instant>,
}

/// Those of one cause.
pub(crate) struct Failures {
    pub(crate) count: u64,
    /// What the first one said.
    pub(crate) text: String,
}

/// Longer than a call may be made to take here; what takes longer counts as this.
const LATENCY_NS_MAX: u64 = 24 * 3600 * 1_000_000_000;

impl Meter {
    pub(crate) fn new() -> Meter {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        Meter {
            begun: 0,
            replies: 0,
            handler_errors: 0,
            failures: BTreeMap::new(),
            latencies: latencies.expect("bounds that make sense"),
            last: None,
        }
    }

    pub(crate) fn begins(&mut self) {
        self.begun += 1;
    }

    pub(crate) fn ends<B>(&mut self, at: Instant, latency: Duration, result: &UntypedResult<B>) {
        self.last = Some(at);
        match result {
            Ok(_) => self.replies += 1,
            Err(CallError::App(_)) => self.handler_errors += 1,
            Err(CallError::Failed(failure)) => return self.failed(failure),
        }
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(ns);
    }

    fn failed(&mut self, failure: &Failure) {
        let text = || format!("{}; {}", told(failure), whether_it_ran(failure));
        let of_cause = self.failures.entry(cause(failure));
        of_cause.or_insert_with(|| Failures { count: 0, text: text() }).count += 1;
    }

    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    pub(crate) fn handler_errors(&self) -> u64 {
        self.handler_errors
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, &Failures)> {
        self.failures.iter().map(|(cause, failures)| (*cause, failures))
    }

    /// How many have ended, one way or another.
    pub(crate) fn ended(&self) -> u64 {
        let failures: u64 = self.failures.values().map(|failures| failures.count).sum();
        self.replies + self.handler_errors + failures
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    pub(crate) fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    /// From then until the last call ended.
    pub(crate) fn time_since(&self, start: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last - start)
    }
}
