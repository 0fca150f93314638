//! How a connection stands.

use super::digest::Digest;
use crate::{Instant, ReceiveHint};

/// How a connection stands: what can be asked about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The name of its state, see `docs/STATES.md`.
    pub state: &'static str,
    /// Calls of this side.
    pub calls_in_flight: usize,
    /// How many of them the other side accepts.
    pub in_flight_limit: u32,
    /// Calls of the other side.
    pub calls_served: usize,
    /// Body bytes that may be sent: as calls, and as replies.
    pub credit_available: (u64, u64),
    /// Body bytes of the other side that are held: of calls, and of replies.
    pub credit_held: (u64, u64),
    /// Items of the other side that are held: of calls, and of replies.
    pub items_held: (u64, u64),
    /// Bytes that wait to be sent.
    pub bytes_queued: usize,
    /// What is to be received next.
    pub hint: ReceiveHint,
    /// When it wants to be called.
    pub timeout: Option<Instant>,
}

impl Snapshot {
    pub(super) fn tell(&self, digest: &mut Digest) {
        digest.bytes(self.state.as_bytes());
        let hint = match self.hint {
            ReceiveHint::More => 0,
            ReceiveHint::Pause => 1,
            ReceiveHint::Land { len } => 2 + len as u64,
        };
        let numbers = [
            self.calls_in_flight as u64,
            u64::from(self.in_flight_limit),
            self.calls_served as u64,
            self.credit_available.0,
            self.credit_available.1,
            self.credit_held.0,
            self.credit_held.1,
            self.items_held.0,
            self.items_held.1,
            self.bytes_queued as u64,
            hint,
            self.timeout.map_or(u64::MAX, Instant::as_nanos),
        ];
        numbers.into_iter().for_each(|n| digest.number(n));
    }
}
