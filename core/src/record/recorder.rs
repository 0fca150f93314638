//! Records a connection while it runs.

use alloc::vec::Vec;
use core::cell::OnceCell;
use core::fmt;

use ringcall_buf::Segment;

use super::digest::Digest;
use super::file;
use super::input::{Input, RecordedBody, RecordedPayload, Rest};
use super::pieces::Pieces;
use super::snapshot::Snapshot;
use super::values::{Value, Values, fields};
use super::walker::Walker;
use crate::{
    Codec, Config, EncodeError, External, Instant, Memory, Payload, SendQueue, Side, Writer,
};

/// Which part of a connection is kept, and how many bytes of memory that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// From the beginning until the bytes are used up: what can be replayed.
    First(usize),
    /// What was last, at least half of so many bytes: to look at only, since where a connection stands follows
    /// from its beginning.
    Last(usize),
}

/// What is recorded of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordSettings {
    /// Which part.
    pub keep: Keep,
    /// Whether what belongs to the application stays out of the record: bodies, attachments, and the values of
    /// metadata and other extensions, of which only the lengths are kept. Names of metadata stay.
    /// Credentials are never recorded.
    pub hides_bodies: bool,
}

impl RecordSettings {
    /// With bodies hidden.
    #[must_use]
    pub const fn new(keep: Keep) -> RecordSettings {
        RecordSettings { keep, hides_bodies: true }
    }

    /// Bodies and everything that goes with them are recorded, too.
    #[must_use]
    pub const fn with_bodies(mut self) -> RecordSettings {
        self.hides_bodies = false;
        self
    }
}

/// The connection is not at its beginning any more, so that a record of it would have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection can be recorded from its beginning only")
    }
}

impl core::error::Error for TooLate {}

/// What the memory of a shard decides for one connection, although others have filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryState {
    /// How much bodies hold that are arriving.
    pub landing: usize,
    /// Whether so much is held that bodies are copied out of their receive buffers.
    pub is_hoarded: bool,
    /// What the connection may hold: anything, unless memory is short.
    pub room: usize,
}

fields! { MemoryState { landing, is_hoarded, room } }

impl MemoryState {
    fn of(memory: &Memory) -> MemoryState {
        MemoryState {
            landing: memory.landing(),
            is_hoarded: memory.is_hoarded(),
            room: memory.room(),
        }
    }
}

/// Records what goes into one connection, and a digest of what comes out of it, see
/// [`Connection::record`](crate::Connection::record).
pub struct Recorder {
    settings: RecordSettings,
    /// What the connection began with.
    beginning: Vec<u8>,
    steps: Steps,
    /// What came before these steps, if the last ones are kept.
    older: Option<Steps>,
    /// How many steps there were.
    number: u64,
    now: Instant,
    memory: MemoryState,
    digest: Digest,
    place: Place,
    /// Of the step that goes on: how much later it is, what others have done to the memory, where it began.
    later: u64,
    change: Option<MemoryState>,
    before: Place,
    is_full: bool,
    scratch: Vec<u8>,
}

/// Some steps that follow each other.
pub(super) struct Steps {
    pub(super) bytes: Vec<u8>,
    /// The number of the first.
    pub(super) first: u64,
    /// From when its time counts.
    pub(super) from: Instant,
    pub(super) place: Place,
}

/// Where in the streams of either direction a step is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) inbound: Walker,
    /// Followed only if what is sent is recorded.
    pub(super) outbound: Walker,
}

impl Steps {
    /// Room for so many bytes more, without going far beyond what may be kept.
    fn make_room(&mut self, len: usize, keep: Keep) {
        let most = match keep {
            Keep::First(most) => most,
            Keep::Last(most) => most / 2,
        };
        let needed = self.bytes.len() + len;
        if needed > self.bytes.capacity() {
            let wished = (self.bytes.capacity() * 2).clamp(4096, most.max(4096)).max(needed);
            self.bytes.reserve_exact(wished - self.bytes.len());
        }
    }
}

impl Place {
    fn new(hides_bodies: bool) -> Place {
        Place { inbound: Walker::new(hides_bodies), outbound: Walker::new(hides_bodies) }
    }
}

impl Recorder {
    pub(crate) fn new(
        settings: RecordSettings,
        side: Side,
        config: &Config,
        memory: &Memory,
        now: Instant,
    ) -> Recorder {
        let place = Place::new(settings.hides_bodies);
        Recorder {
            settings,
            beginning: file::beginning(side, now, memory.landing_max(), config),
            steps: Steps { bytes: Vec::new(), first: 0, from: now, place: place.clone() },
            older: None,
            number: 0,
            now,
            memory: MemoryState { landing: 0, is_hoarded: false, room: usize::MAX },
            digest: Digest::new(settings.hides_bodies),
            before: place.clone(),
            place,
            later: 0,
            change: None,
            is_full: false,
            scratch: Vec::new(),
        }
    }

    /// What is recorded.
    #[must_use]
    pub fn settings(&self) -> RecordSettings {
        self.settings
    }

    /// Whether the bytes are used up, so that nothing more is recorded.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// How many bytes the record has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let older = self.older.as_ref().map_or(0, |older| older.bytes.len());
        self.beginning.len() + older + self.steps.bytes.len()
    }

    /// How many steps were recorded, also those that were dropped since.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.number
    }

    /// The record as it is now, as a file has it, see `docs/REPLAY.md`. `note` is for people; 1024 bytes of
    /// it are kept.
    #[must_use]
    pub fn to_bytes(&self, note: &str) -> Vec<u8> {
        let Recorder { settings, is_full, older, steps, .. } = self;
        let first = older.as_ref().unwrap_or(steps);
        let mut out = Vec::new();
        file::put_head(&mut out, *settings, *is_full, &self.beginning, first, note);
        for steps in older.iter().chain([steps]) {
            out.extend_from_slice(&steps.bytes);
        }
        out
    }

    // ---- a step ----

    /// Something is about to be done.
    pub(crate) fn begin(&mut self, now: Option<Instant>, memory: &Memory) {
        let now = now.unwrap_or(self.now).max(self.now);
        let state = MemoryState::of(memory);
        self.later = now.as_nanos() - self.now.as_nanos();
        self.change = (state != self.memory).then_some(state);
        (self.now, self.memory) = (now, state);
        if self.settings.is_last() {
            self.before.clone_from(&self.place);
        }
    }

    /// It was done.
    pub(crate) fn end(
        &mut self,
        input: &Input<'_>,
        memory: &Memory,
        snapshot: &Snapshot,
        tell: impl FnOnce(&mut Digest),
    ) {
        // What is different when the next step begins is the work of others.
        self.memory.landing = memory.landing();
        if !self.settings.is_last() {
            tell(&mut self.digest);
            snapshot.tell(&mut self.digest);
        }
        self.scratch.clear();
        (self.later, self.change).put(&mut self.scratch);
        input.put(&mut self.scratch);
        self.digest.short().put(&mut self.scratch);
        self.append();
    }

    fn append(&mut self) {
        let len = self.scratch.len() + file::STEP_FRAME_MAX;
        match self.settings.keep {
            Keep::First(most) if self.bytes() + len > most => {
                self.is_full = true;
                self.scratch = Vec::new();
                return;
            }
            Keep::Last(most) if self.steps.bytes.len() + len > most / 2 => self.turn_over(most),
            _ => {}
        }
        self.steps.make_room(len, self.settings.keep);
        file::put_step(&mut self.steps.bytes, self.number, &self.scratch);
        self.number += 1;
        if self.scratch.capacity() > SCRATCH_MAX {
            self.scratch = Vec::new();
        }
    }

    /// Forgets the older half of what is kept.
    fn turn_over(&mut self, most: usize) {
        let bytes = self.older.take().map(|older| older.bytes);
        // A step may be longer than half of what is to be kept; its memory does not stay.
        let mut bytes = bytes.filter(|bytes| bytes.capacity() <= most / 2).unwrap_or_default();
        bytes.clear();
        let steps = Steps {
            bytes,
            first: self.number,
            from: Instant::from_nanos(self.now.as_nanos() - self.later),
            place: self.before.clone(),
        };
        self.older = Some(core::mem::replace(&mut self.steps, steps));
    }

    // ---- what goes into it ----

    /// Bytes of the other side.
    pub(crate) fn arrived<'a>(&mut self, bytes: &[u8], scratch: &'a mut Vec<u8>) -> Pieces<'a> {
        Pieces::walked(bytes, &mut self.place.inbound, scratch)
    }

    /// What was sent, for records that cannot be replayed.
    pub(crate) fn left<'a>(&mut self, bytes: &[u8], scratch: &'a mut Vec<u8>) -> Pieces<'a> {
        Pieces::walked(bytes, &mut self.place.outbound, scratch)
    }

    /// Extensions of a message of this side.
    pub(crate) fn extensions<'a>(&self, bytes: &[u8], scratch: &'a mut Vec<u8>) -> Pieces<'a> {
        let mut walker = Walker::of_extensions(self.settings.hides_bodies, bytes.len());
        Pieces::walked(bytes, &mut walker, scratch)
    }

    /// What of messages of this side is not recorded.
    pub(crate) fn hides_payloads(&self) -> Hides {
        let RecordSettings { hides_bodies, .. } = self.settings;
        // Where what is sent is recorded, bodies are in that.
        Hides { values: hides_bodies, bodies: hides_bodies || self.settings.is_last() }
    }

    /// The queue that what is sent goes to, and what is noticed of it.
    pub(crate) fn tap<'a, Q: SendQueue>(&'a mut self, queue: &'a mut Q) -> Tapped<'a, Q> {
        let sent = self.settings.is_last().then(Vec::new);
        Tapped { queue, digest: &mut self.digest, bytes: 0, sent }
    }

    pub(crate) fn digest(&mut self) -> &mut Digest {
        &mut self.digest
    }
}

/// More scratch memory than this is not kept.
const SCRATCH_MAX: usize = 64 * 1024;

impl RecordSettings {
    pub(super) fn is_last(&self) -> bool {
        matches!(self.keep, Keep::Last(_))
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("settings", &self.settings)
            .field("steps", &self.number)
            .field("bytes", &self.bytes())
            .field("is_full", &self.is_full)
            .finish_non_exhaustive()
    }
}

/// What of a message is not recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hides {
    values: bool,
    bodies: bool,
}

/// A message of which is noticed what it encodes to.
pub(crate) struct Taped<'a, P: ?Sized> {
    payload: &'a P,
    hides: Hides,
    /// As a record has it.
    body: OnceCell<Vec<u8>>,
    extensions: Vec<u8>,
}

impl<'a, P: Payload + ?Sized> Taped<'a, P> {
    pub(crate) fn new(payload: &'a P, hides: Hides) -> Taped<'a, P> {
        let (mut extensions, bytes) = (Vec::new(), payload.extensions());
        let mut walker = Walker::of_extensions(hides.values, bytes.len());
        Pieces::walked(bytes, &mut walker, &mut Vec::new()).put(&mut extensions);
        Taped { payload, hides, body: OnceCell::new(), extensions }
    }

    /// What was noticed.
    pub(crate) fn recorded(&self) -> RecordedPayload<'_> {
        let body = self.body.get().and_then(|body| RecordedBody::take(&mut Values(body)));
        RecordedPayload {
            body: body.unwrap_or(RecordedBody::Unused),
            extensions: Pieces::take(&mut Values(&self.extensions)).unwrap_or_default(),
            landing: self.payload.landing().map(|range| range.len()),
        }
    }

    fn pieces<'s>(&self, bytes: &[u8], scratch: &'s mut Vec<u8>) -> Pieces<'s> {
        match self.hides.bodies {
            true => Pieces::hidden(bytes.len(), scratch),
            false => Pieces::kept(bytes, scratch),
        }
    }
}

impl<P: Payload + ?Sized> Payload for Taped<'_, P> {
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        let begin = out.len();
        // A record has two parts; what would be sent from where it is, is copied while somebody records.
        let result = out.in_one_part(|out| self.payload.encode(codec, signature, out));
        let (mut front, mut rest) = (Vec::new(), Vec::new());
        let body = match result {
            Err(error) => RecordedBody::Failed(error),
            Ok(()) => RecordedBody::Encoded {
                rest: match out.attached() {
                    None => Rest::Nothing,
                    Some(segment) => match segment.as_slice() {
                        Some(bytes) => Rest::Memory(self.pieces(bytes, &mut rest)),
                        None => Rest::External(segment.len()),
                    },
                },
                is_beside: out.beside_len() > 0,
                front: self.pieces(out.written().get(begin..).unwrap_or_default(), &mut front),
            },
        };
        let mut taken = Vec::new();
        body.put(&mut taken);
        // It is encoded once.
        let _ = self.body.set(taken);
        result
    }

    fn landing(&self) -> Option<External> {
        self.payload.landing()
    }

    fn extensions(&self) -> &[u8] {
        self.payload.extensions()
    }
}

/// A queue of which is noticed what it takes.
pub(crate) struct Tapped<'a, Q> {
    queue: &'a mut Q,
    digest: &'a mut Digest,
    bytes: usize,
    sent: Option<Vec<u8>>,
}

impl<Q: SendQueue> Tapped<'_, Q> {
    /// How many bytes it took, whether it has no room for more, and what they were, if that is recorded.
    pub(crate) fn taken(self) -> (usize, bool, Option<Vec<u8>>) {
        (self.bytes, self.queue.room() == 0, self.sent)
    }
}

impl<Q: SendQueue> SendQueue for Tapped<'_, Q> {
    fn room(&self) -> usize {
        self.queue.room()
    }

    fn push(&mut self, segment: Segment) {
        self.bytes += segment.len();
        match &mut self.sent {
            None => self.digest.sent(&segment),
            Some(sent) => match segment.as_slice() {
                Some(bytes) => sent.extend_from_slice(bytes),
                None => sent.resize(sent.len() + segment.len(), 0),
            },
        }
        self.queue.push(segment);
    }
}
