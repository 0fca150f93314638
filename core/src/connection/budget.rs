//! The landing budget, which the connections of a shard share: how long one waits for a part of it, and how long one
//! may hold a part while others wait.
//!
//! Who waits is not read, nor are the answers and PINGs behind the body that waits, so that its other side would give
//! it up in the end, although that did nothing wrong. Therefore nobody waits longer than a fraction of the time which
//! that takes: then a request is refused, so that it certainly did not run, and what cannot be refused lands all the
//! same, within the windows of its connection. And who holds a part and makes no use of it is closed when others wait.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use core::time::Duration;

use super::assembly::{Arriving, Assembly};
use super::{Config, Connection};
use crate::Instant;

/// How long a connection waits for the budget, as a part of `stall_timeout`.
const WAIT: u32 = 8;
/// How long one that holds some of it may be silent while others wait. Less, so that those are served rather than
/// refused.
const SILENCE: u32 = 10;
/// How many times `stall_timeout` a body may take while others wait: its memory is worth that much.
const WHOLE: u32 = 6;

impl<T> Connection<T> {
    /// Memory for a body that arrives in parts; `None` if the budget does not allow it now.
    pub(super) fn assemble(&mut self, now: Instant, total: usize) -> Option<Assembly> {
        let assembly = self.begin_assembly(now, total, false)?;
        self.watch.denied = None;
        Some(assembly)
    }

    /// The same for a body that cannot be refused: it waits, and lands then.
    pub(super) fn assemble_at_last(&mut self, now: Instant, total: usize) -> Option<Assembly> {
        if let Some(assembly) = self.assemble(now, total) {
            return Some(assembly);
        }
        self.has_waited(now).then(|| self.begin_assembly(now, total, true)).flatten()
    }

    fn begin_assembly(&self, now: Instant, total: usize, must: bool) -> Option<Assembly> {
        Assembly::begin(now, total, &self.memory, &self.landing, must)
    }

    /// Whether the connection, which the budget has just denied something, has waited for as long as it may. Then it is
    /// read for as long without waiting, or those behind each other would all wait.
    pub(super) fn has_waited(&mut self, now: Instant) -> bool {
        let wait = part(&self.config, WAIT);
        let since = self.watch.denied.filter(|&since| now < since + wait + wait).unwrap_or(now);
        self.watch.denied = Some(since);
        since + wait <= now && !bug!("waits_for_ever")
    }

    /// Whether it holds some of the budget that others could use: it brings nothing, or too little for what it holds.
    pub(crate) fn holds_back(&self, now: Instant) -> bool {
        let is_own_fault = self.is_paused() || self.writes_bytes > 0;
        if !self.landing.any() || self.ending.is_some() || is_own_fault {
            return false;
        }
        let silence = part(&self.config, SILENCE);
        if self.watch.received + silence <= now {
            return true;
        }
        let whole = self.config.stall_timeout.saturating_mul(WHOLE);
        let requests = self.served.arriving().map(Arriving::assembly);
        let replies = self.calls.arriving().map(Arriving::assembly);
        let items = self.served.arriving_items().map(Arriving::assembly);
        let items = items.chain(self.calls.arriving_items().map(Arriving::assembly));
        let mut bodies = requests.chain(replies).chain(items).flatten();
        bodies.any(|body| body.due(whole) + silence <= now)
    }
}

fn part(config: &Config, of_stall: u32) -> Duration {
    config.stall_timeout.checked_div(of_stall).unwrap_or_default()
}
