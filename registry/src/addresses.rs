//! Which node to ask next.

use std::time::Duration;

use ringcall::{MachineClock, SpanIds};

/// How long to wait when none of the nodes could be asked: first, and at most.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// The addresses of the nodes, one after the other, beginning with any.
#[derive(Debug)]
pub(crate) struct Addresses {
    all: Vec<String>,
    next: usize,
    /// How many failed since one was heard.
    failed: usize,
    again: Duration,
}

impl Addresses {
    /// # Panics
    /// Without any.
    pub(crate) fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Addresses {
        let all: Vec<String> = addresses.into_iter().map(Into::into).collect();
        assert!(!all.is_empty(), "a registry has at least one address");
        let next = usize::try_from(MachineClock.next_span_id() >> 1).unwrap_or(0) % all.len();
        Addresses { all, next, failed: 0, again: AGAIN }
    }

    pub(crate) fn next(&mut self) -> String {
        let address = self.all[self.next].clone();
        self.next = (self.next + 1) % self.all.len();
        address
    }

    /// The node that was asked last has answered.
    pub(crate) fn heard(&mut self) {
        (self.failed, self.again) = (0, AGAIN);
    }

    /// The node that was asked last cannot be asked: how long to wait before the next one is, if all have failed.
    pub(crate) fn failed(&mut self) -> Option<Duration> {
        self.failed += 1;
        if !self.failed.is_multiple_of(self.all.len()) {
            return None;
        }
        let again = self.again;
        self.again = (2 * again).min(AGAIN_MAX);
        Some(again)
    }
}
