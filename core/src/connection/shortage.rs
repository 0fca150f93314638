//! What a connection may hold when its shard is short of memory, see [`MemoryLimits::total_bytes`].
//!
//! Every connection has a part of what is left, and is refused what goes beyond it: so whoever holds little is
//! served, whatever the others do. It is looked at only where bodies do not go the ordinary way, which no frame does
//! that arrives while memory is short.
//!
//! [`MemoryLimits::total_bytes`]: crate::MemoryLimits::total_bytes
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::Connection;
use super::ahead::SHORT;

/// What a call that runs takes beside its body, about: its handler, what that has on the heap, and what it is found by.
pub(super) const CALL_BYTES: usize = 4096;

impl<T> Connection<T> {
    /// What calls and answers hold that are there now. Not tables, which were as large before.
    fn in_use(&self) -> usize {
        let bodies = self.credit.calls_in.held().saturating_add(self.credit.replies_in.held());
        let calls = self.calls_served().saturating_mul(CALL_BYTES);
        usize::try_from(bodies)
            .unwrap_or(usize::MAX)
            .saturating_add(self.bytes_queued())
            .saturating_add(calls)
    }

    /// About what would be free if it was closed.
    pub(crate) fn held(&self) -> usize {
        // Otherwise it is parsed in this turn.
        let is_kept = self.ahead.is_stalled() || self.is_paused();
        let received = if is_kept { self.inbound.bytes() } else { 0 };
        self.in_use().saturating_add(received).saturating_add(self.share.bytes())
    }

    /// Whether memory is short, and the connection would hold more than its part with so many bytes more.
    #[inline]
    pub(super) fn lacks_room(&self, more: usize) -> bool {
        self.memory.is_short() && self.is_beyond_room(more)
    }

    #[cold]
    fn is_beyond_room(&self, more: usize) -> bool {
        self.in_use().saturating_add(more) > self.memory.room() && !bug!("e26")
    }

    /// Whether credit that is due may be granted now. Not inlined: it seldom is due.
    #[inline(never)]
    pub(super) fn may_grant(&self) -> bool {
        !self.lacks_room(0)
    }

    /// Whether so much waits to be sent that streams must not add to it. Something does then, whose end lets
    /// them go on.
    #[inline]
    pub(super) fn lacks_room_to_send(&self) -> bool {
        let queued = self.outbound.queued();
        queued > 0 && queued >= self.memory.room()
    }

    /// Memory has become short since bytes last arrived: no frame is ordinary any more.
    pub(crate) fn go_around(&mut self) {
        // A replay does not learn of it, so it must change nothing for a record.
        if self.recorder.is_none() {
            self.ahead.set(SHORT, true);
        }
    }
}
