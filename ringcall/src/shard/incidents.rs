//! What goes wrong on a shard, and is got over: counted where other threads can read it.

use std::sync::Arc;

use ringcall_core::CloseReason;
use ringcall_net::{Count, Tally};

/// What a shard, or all shards of a server, have met and got over: for dashboards, and to see why
/// something is slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incidents {
    /// Connections that ended in order: by either side, with or without goodbye.
    pub closed_in_order: u64,
    /// Connections that ended because the peer broke the protocol, or was no ringcall.
    pub closed_for_protocol: u64,
    /// Connections that ended because the peer took too long, or was silent.
    pub closed_for_time: u64,
    /// Connections that ended because they were reset, could not be made, or because of TLS.
    pub closed_by_transport: u64,
    /// Connections that the peer ended because it found a fault with this side.
    pub closed_by_blame: u64,
    /// Connections that were closed because memory was at its bound and they held the most of it, see
    /// [`MemoryLimits::total_bytes`](crate::MemoryLimits::total_bytes). Calls that were refused before it came to that
    /// are [`Counters::requests_short_of_memory`](crate::Counters::requests_short_of_memory).
    pub closed_for_memory: u64,
    /// Connections that ended, for whatever reason, before the peer had said HELLO.
    pub handshakes_failed: u64,
    /// Connections that were closed because whoever made them may not, or made too many calls that it may
    /// not make.
    pub denied: u64,
    /// Accepted connections that were closed because there were too many, or because memory was at its bound.
    pub turned_away: u64,
    /// Connections that were closed unseen because file descriptors ran out.
    pub shed: u64,
    /// Accepting failed, for whatever reason.
    pub accept_errors: u64,
    /// Sends of which the kernel took only a part, because the peer does not read fast enough.
    pub short_sends: u64,
    /// Sends and receives that were tried again because the kernel was out of memory.
    pub memory_short: u64,
    /// Receives that had to wait for a buffer (io_uring).
    pub buffers_short: u64,
    /// Spawned tasks, and callbacks of calls, that panicked.
    pub panics: u64,
    /// Turns that took longer than [`ShardConfig::stall_threshold`](crate::ShardConfig::stall_threshold), because a
    /// handler computed or blocked; only of shards that run by themselves, not of those that another loop turns.
    pub stalls: u64,
    /// Calls that were refused because there were as many as [`Limits`](crate::limits::Limits) allow.
    pub over_limit: u64,
    /// Calls that were refused because there had been as many as a [`Rate`](crate::limits::Rate) allows.
    pub over_rate: u64,
    /// Calls that did not run because one with the same key had, and that got its answer, see
    /// [`Deduplication`](crate::Deduplication).
    pub answered_again: u64,
    /// Calls that were refused because they had waited too long, see [`QueueRule`](crate::limits::QueueRule).
    pub waited_too_long: u64,
}

impl Incidents {
    /// Every count with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("closed_in_order", self.closed_in_order),
            ("closed_for_protocol", self.closed_for_protocol),
            ("closed_for_time", self.closed_for_time),
            ("closed_by_transport", self.closed_by_transport),
            ("closed_by_blame", self.closed_by_blame),
            ("closed_for_memory", self.closed_for_memory),
            ("handshakes_failed", self.handshakes_failed),
            ("denied", self.denied),
            ("turned_away", self.turned_away),
            ("shed", self.shed),
            ("accept_errors", self.accept_errors),
            ("short_sends", self.short_sends),
            ("memory_short", self.memory_short),
            ("buffers_short", self.buffers_short),
            ("panics", self.panics),
            ("stalls", self.stalls),
            ("over_limit", self.over_limit),
            ("over_rate", self.over_rate),
            ("answered_again", self.answered_again),
            ("waited_too_long", self.waited_too_long),
        ]
        .into_iter()
    }

    /// Adds another shard's counts.
    pub fn add(&mut self, other: &Incidents) {
        self.closed_in_order += other.closed_in_order;
        self.closed_for_protocol += other.closed_for_protocol;
        self.closed_for_time += other.closed_for_time;
        self.closed_by_transport += other.closed_by_transport;
        self.closed_by_blame += other.closed_by_blame;
        self.closed_for_memory += other.closed_for_memory;
        self.handshakes_failed += other.handshakes_failed;
        self.denied += other.denied;
        self.turned_away += other.turned_away;
        self.shed += other.shed;
        self.accept_errors += other.accept_errors;
        self.short_sends += other.short_sends;
        self.memory_short += other.memory_short;
        self.buffers_short += other.buffers_short;
        self.panics += other.panics;
        self.stalls += other.stalls;
        self.over_limit += other.over_limit;
        self.over_rate += other.over_rate;
        self.answered_again += other.answered_again;
        self.waited_too_long += other.waited_too_long;
    }
}

/// Where a shard counts them.
pub(crate) struct Register {
    engine: Arc<Tally>,
    in_order: Count,
    for_protocol: Count,
    for_time: Count,
    by_transport: Count,
    by_blame: Count,
    for_memory: Count,
    handshakes_failed: Count,
    pub(crate) denied: Count,
    pub(crate) turned_away: Count,
    pub(crate) panics: Count,
    pub(crate) stalls: Count,
    pub(crate) over_limit: Count,
    pub(crate) over_rate: Count,
    pub(crate) answered_again: Count,
    pub(crate) waited_too_long: Count,
}

impl Register {
    pub(crate) fn new(engine: Arc<Tally>) -> Register {
        Register {
            engine,
            in_order: Count::default(),
            for_protocol: Count::default(),
            for_time: Count::default(),
            by_transport: Count::default(),
            by_blame: Count::default(),
            for_memory: Count::default(),
            handshakes_failed: Count::default(),
            denied: Count::default(),
            turned_away: Count::default(),
            panics: Count::default(),
            stalls: Count::default(),
            over_limit: Count::default(),
            over_rate: Count::default(),
            answered_again: Count::default(),
            waited_too_long: Count::default(),
        }
    }

    /// A connection has ended, before or after its handshake.
    pub(crate) fn closed(&self, reason: CloseReason, had_hello: bool) {
        let count = match reason {
            reason if reason.is_protocol_error() => &self.for_protocol,
            CloseReason::HandshakeTimeout
            | CloseReason::BodyStalled
            | CloseReason::SendStalled
            | CloseReason::PeerSilent => &self.for_time,
            CloseReason::Transport(_) | CloseReason::Tls(_) => &self.by_transport,
            CloseReason::MemoryShort => &self.for_memory,
            CloseReason::GoAway(code) if code.0 != 0 => &self.by_blame,
            _ => &self.in_order,
        };
        count.add();
        if !had_hello {
            self.handshakes_failed.add();
        }
    }

    pub(crate) fn read(&self) -> Incidents {
        Incidents {
            closed_in_order: self.in_order.get(),
            closed_for_protocol: self.for_protocol.get(),
            closed_for_time: self.for_time.get(),
            closed_by_transport: self.by_transport.get(),
            closed_by_blame: self.by_blame.get(),
            closed_for_memory: self.for_memory.get(),
            handshakes_failed: self.handshakes_failed.get(),
            denied: self.denied.get(),
            turned_away: self.turned_away.get(),
            shed: self.engine.shed.get(),
            accept_errors: self.engine.accept_errors.get(),
            short_sends: self.engine.short_sends.get(),
            memory_short: self.engine.memory_short.get(),
            buffers_short: self.engine.buffers_short.get(),
            panics: self.panics.get(),
            stalls: self.stalls.get(),
            over_limit: self.over_limit.get(),
            over_rate: self.over_rate.get(),
            answered_again: self.answered_again.get(),
            waited_too_long: self.waited_too_long.get(),
        }
    }
}
