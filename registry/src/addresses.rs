//! Which node to ask next.

use std::time::Duration;

use ringcall::cluster::Clock;
use ringcall::{LocalClient, MachineClock, Shard, SpanIds, ToAddress as _};

use crate::RegistryError;
use crate::thread::within;

/// How long to wait when none of the nodes could be asked: first, and at most, and half as long again by chance.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// A node that was heard for so long was no accident.
const LASTED: Duration = Duration::from_secs(5);

/// The addresses of the nodes, one after the other, in an order that others do not have: those that lose one node go to
/// different ones.
#[derive(Debug)]
pub(crate) struct Addresses {
    all: Vec<String>,
    next: usize,
    /// How many failed since one was heard.
    failed: usize,
    again: Duration,
}

/// Those that make sense, at least one: others would be asked in vain for ever.
pub(crate) fn check(
    addresses: impl IntoIterator<Item = impl Into<String>>,
) -> Result<Vec<String>, RegistryError> {
    let all: Vec<String> = addresses.into_iter().map(Into::into).collect();
    if all.is_empty() {
        return Err(RegistryError::NoAddress);
    }
    match all.iter().find_map(|address| Some((address, address.target().err()?))) {
        Some((address, reason)) => Err(RegistryError::Address { address: address.clone(), reason }),
        None => Ok(all),
    }
}

impl Addresses {
    /// # Panics
    /// Without any.
    pub(crate) fn new(addresses: impl IntoIterator<Item = impl Into<String>>) -> Addresses {
        let mut all: Vec<String> = addresses.into_iter().map(Into::into).collect();
        assert!(!all.is_empty(), "a registry has at least one address");
        for place in (1..all.len()).rev() {
            all.swap(place, below(place + 1));
        }
        Addresses { all, next: 0, failed: 0, again: AGAIN }
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

    /// The node that was asked last was heard for so long, and is not any more: how long to wait before the next one is
    /// asked, if that was no more than an accident and all have failed.
    pub(crate) fn ended(&mut self, lasted: Duration) -> Option<Duration> {
        if lasted > LASTED {
            self.heard();
            return None;
        }
        self.failed()
    }

    /// The node that was asked last cannot be asked: how long to wait before the next one is, if all have failed.
    pub(crate) fn failed(&mut self) -> Option<Duration> {
        self.failed += 1;
        if !self.failed.is_multiple_of(self.all.len()) {
            return None;
        }
        let again = self.again;
        self.again = (2 * again).min(AGAIN_MAX);
        Some(again.mul_f64(1.0 + below(500) as f64 / 1000.0))
    }
}

/// How long a node may take to begin.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Goes from one node to the next for ever: each is watched until that ends. Says when none of them can be.
pub(crate) async fn follow(
    mut addresses: Addresses,
    shard: &Shard,
    mut watch: impl AsyncFnMut(LocalClient) -> Result<(), String>,
    mut outage: impl FnMut(String),
) {
    loop {
        let address = addresses.next();
        let begun = MachineClock.now();
        let watched = match within(shard, ANSWER, shard.connect(address.as_str())).await {
            None => Err("it does not answer".to_owned()),
            Some(Err(failure)) => Err(failure.to_string()),
            Some(Ok(client)) => watch(client).await,
        };
        // It drains, or this side was too slow; the next one has the same.
        let reason = watched.err().unwrap_or_else(|| "it has ended".to_owned());
        log::warn!("the registry at {address} cannot be watched: {reason}");
        if let Some(again) = addresses.ended(MachineClock.now().since(begun)) {
            outage(format!("{address}: {reason}"));
            shard.sleep(again).await;
        }
    }
}

/// A number below this one, by chance.
fn below(end: usize) -> usize {
    usize::try_from(MachineClock.next_span_id() >> 1).unwrap_or(0) % end
}
