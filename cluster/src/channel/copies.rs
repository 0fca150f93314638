//! Copies of calls, whose outcome nobody waits for.
//!
//! A call ends with its caller, and its argument is the caller's; so a copy has its argument encoded, and is kept here
//! until it has ended. Nobody is woken for it: whether it has ended is looked at when the next one is made, and when somebody
//! watches the channel's instances or asks for its counts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringcall_core::frame::{Extension, ExtensionWriter, Extensions, request_flags, tag};
use ringcall_core::{
    Codec, EncodeError, Encoded, Instant, Outgoing, OwnedChannel, Payload, SharedPool, Transcode,
    Writer,
};

use super::{Connector, Guard as _, Shared};
use crate::fleet::CallState;
use crate::settings::MirrorConfig;

/// Blocks that copies are encoded into.
const BLOCK_BYTES: usize = 64 * 1024;
/// The metadata by which a server knows a copy: the name of the rule that asked for it.
const MARK: &str = "mirrored-by";

/// The copies of a channel that are under way.
pub(super) struct Copies<N: Connector> {
    running: Vec<Running<N>>,
    /// Those that are being looked at, too.
    in_flight: u32,
    bytes: usize,
    pool: Option<SharedPool>,
}

pub(super) struct Running<N: Connector> {
    future: <N::Channel as OwnedChannel>::Owned<Copied>,
    bytes: usize,
    until: Instant,
}

/// An argument that was encoded for a copy.
#[derive(Clone, Debug)]
pub(super) struct Copied(Arc<Encoded>);

impl Payload for Copied {
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        self.0.encode(codec, signature, out)
    }

    fn transcode(&self) -> Option<Transcode> {
        Payload::transcode(&*self.0)
    }

    fn extensions(&self) -> &[u8] {
        self.0.extensions()
    }
}

impl<N: Connector> Default for Copies<N> {
    fn default() -> Copies<N> {
        Copies { running: Vec::new(), in_flight: 0, bytes: 0, pool: None }
    }
}

impl<N: Connector> Shared<N> {
    /// Makes a copy of a call if a rule asks for one, and there is room for it.
    pub(super) fn mirror<P: Payload>(&self, call: &Outgoing, payload: &P, state: &CallState) {
        let has_items = call.flags & (request_flags::ITEMS_IN | request_flags::ITEMS_OUT) != 0;
        if !state.is_mirrored() || has_items {
            return;
        }
        self.look_at_copies();
        let readiness = |channel: &N::Channel| self.connector.readiness(channel);
        let (config, to) =
            self.fleet.with(|fleet| (fleet.settings().mirror, fleet.mirror(state, readiness)));
        let is_made = to.is_some_and(|(rule, to)| self.copy(call, payload, &config, &rule, to));
        self.fleet.with(|fleet| fleet.count_mirrors(is_made.into(), (!is_made).into(), 0));
    }

    /// Whether it is made.
    fn copy<P: Payload>(
        &self,
        call: &Outgoing,
        payload: &P,
        config: &MirrorConfig,
        rule: &str,
        to: N::Channel,
    ) -> bool {
        let Some((pool, left)) = self.copies.with(|copies| copies.room(config)) else {
            return false;
        };
        let Ok(copied) = Copied::of(payload, call, rule, &pool, left) else { return false };
        let bytes = copied.0.len();
        if !self.copies.with(|copies| copies.reserve(bytes, config)) {
            return false;
        }
        let running = Running::new(to, *call, copied, self.connector.now());
        self.look_at(vec![running]);
        true
    }

    /// Looks which copies have ended.
    pub(super) fn look_at_copies(&self) {
        let running = self.copies.with(|copies| std::mem::take(&mut copies.running));
        if !running.is_empty() {
            self.look_at(running);
        }
    }

    /// Without the guard: making and ending calls may run code of somebody's that makes further ones.
    fn look_at(&self, mut running: Vec<Running<N>>) {
        let now = self.connector.now();
        let (mut ended, mut bytes, mut failed) = (0, 0, 0);
        running.retain_mut(|copy| match copy.look(now) {
            Poll::Pending => true,
            Poll::Ready(is_answered) => {
                (ended, bytes) = (ended + 1, bytes + copy.bytes);
                failed += u64::from(!is_answered);
                false
            }
        });
        self.copies.with(|copies| copies.give_back(running, ended, bytes));
        if failed > 0 {
            self.fleet.with(|fleet| fleet.count_mirrors(0, 0, failed));
        }
    }
}

impl<N: Connector> Copies<N> {
    /// Those that go on, of some of which so many have ended, with so many bytes.
    fn give_back(&mut self, mut left: Vec<Running<N>>, ended: u32, bytes: usize) {
        self.running.append(&mut left);
        self.in_flight = self.in_flight.saturating_sub(ended);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Where a copy may be encoded, and how long it may be, if there is room for one.
    fn room(&mut self, config: &MirrorConfig) -> Option<(SharedPool, usize)> {
        let left = (config.bytes_max as usize).saturating_sub(self.bytes);
        if self.in_flight >= config.in_flight_max || left == 0 {
            return None;
        }
        let pool = self.pool.get_or_insert_with(|| SharedPool::new(BLOCK_BYTES));
        Some((pool.clone(), left))
    }

    /// Takes up room, if there is still as much: another thread may have been faster.
    fn reserve(&mut self, bytes: usize, config: &MirrorConfig) -> bool {
        let has_room = self.in_flight < config.in_flight_max
            && self.bytes.saturating_add(bytes) <= config.bytes_max as usize;
        if has_room {
            self.in_flight += 1;
            self.bytes += bytes;
        }
        has_room
    }
}

impl<N: Connector> Running<N> {
    /// A copy that is made when it is looked at first. Nobody below makes it again.
    fn new(channel: N::Channel, call: Outgoing, copied: Copied, now: Instant) -> Running<N> {
        let (bytes, until) = (copied.0.len(), now + call.timeout);
        let flags = call.flags | request_flags::RETRIED;
        let call = Outgoing { flags, wait_for_ready: false, ..call };
        Running { future: channel.call_owned(call, copied), bytes, until }
    }

    /// Whether it was answered, once it is over.
    fn look(&mut self, now: Instant) -> Poll<bool> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.future).poll(&mut cx) {
            Poll::Ready(end) => Poll::Ready(end.is_ok()),
            Poll::Pending if self.until <= now => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What goes with a call, without what makes it that call: a server that keeps answers would take the copy for it and
/// run whichever comes first, and one that tells who has begun would tell it of the copy.
fn carried(extensions: &[u8]) -> ExtensionWriter {
    let is_its_own = |found: &Extension<'_>| matches!(found.tag, tag::IDEMPOTENCY_KEY | tag::TIED);
    let mut writer = ExtensionWriter::new();
    for found in Extensions::new(extensions).flatten().filter(|found| !is_its_own(found)) {
        // It was as long before.
        let _fits = writer.push(found);
    }
    writer
}

impl Copied {
    /// The argument of a call, and what goes with it, in at most so many bytes.
    fn of<P: Payload>(
        payload: &P,
        call: &Outgoing,
        rule: &str,
        pool: &SharedPool,
        bytes_max: usize,
    ) -> Result<Copied, EncodeError> {
        let mut writer = pool.writer(bytes_max);
        payload.encode(call.codec, call.in_signature, &mut writer)?;
        let mut encoded = Encoded::take(pool, writer, call.codec);
        encoded.transcode = payload.transcode();
        let mut extensions = carried(payload.extensions());
        let key = [&[MARK.len() as u8], MARK.as_bytes()].concat();
        // The names of rules are short.
        let _fits = extensions.push_parts(tag::METADATA, [&key[..], rule.as_bytes()]);
        encoded.extensions = extensions.finish().into();
        Ok(Copied(Arc::new(encoded)))
    }
}
