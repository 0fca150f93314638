//! Does again what was recorded of a connection, and compares.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use ringcall_buf::{Chunk, ChunkMut, External, Object, ObjectError, Segment};

use super::digest::Digest;
use super::file::{Record, RecordError, Step};
use super::input::{Input, RecordedBody, RecordedPayload, Rest};
use super::pieces::{Piece, Pieces};
use super::snapshot::Snapshot;
use crate::connection::Written;
use crate::{
    CallId, Codec, Connection, EncodeError, Event, Expected, Failure, Identity, Instant, Item,
    ItemError, Memory, Payload, ReplyError, SendQueue, Writer,
};

/// A connection to which everything is done again that a record says. The ticket of a call is the number of
/// its step.
pub struct Replay {
    connection: Connection<u64>,
    memory: Memory,
    digest: Digest,
    window: u64,
    /// Something that is held, so that memory can count as hoarded.
    ballast: Chunk,
    /// Buffers that a transport would receive into.
    lent: Vec<ChunkMut>,
    /// What is being written: owners and lengths.
    writes: Vec<(u64, usize)>,
    bytes_max: usize,
    departed: Option<Output>,
}

/// What a step gave out.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Nothing, as its method does.
    Nothing,
    /// What `poll_event` gave.
    Event(Option<Event<u64>>),
    /// What `poll_items` gave.
    Items(Vec<Item>),
    /// The bytes that `poll_transmit` gave; zeros for those that were not in memory.
    Sent(Vec<u8>),
    /// Of a call.
    Called(Result<CallId, Failure>),
    /// The ticket of a call that was cancelled.
    Cancelled(Option<u64>),
    /// Of an answer.
    Replied(Result<(), ReplyError>),
    /// Of an item.
    ItemSent(Result<(), ItemError>),
    /// How large the buffer of `begin_landing` is.
    Lent(Option<usize>),
    /// How many bytes `poll_write` gave.
    Write(Option<usize>),
}

/// Why a replay does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The record does not have the connection's beginning.
    NotWhole,
    /// The record cannot be read.
    Record(RecordError),
    /// What came out of this step is not what came out when it was recorded.
    Departed(u64),
    /// No connection could have been told this.
    Impossible(u64),
    /// More memory is held than was allowed.
    TooMuch(u64),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::NotWhole => f.write_str(
                "the record does not have the connection's beginning: it can be looked at, but not replayed",
            ),
            ReplayError::Record(error) => write!(f, "{error}"),
            ReplayError::Departed(step) => {
                write!(f, "step {step} gives something else than when it was recorded")
            }
            ReplayError::Impossible(step) => {
                write!(f, "step {step} cannot have happened to a connection")
            }
            ReplayError::TooMuch(step) => {
                write!(f, "before step {step} the connection holds more memory than it may")
            }
        }
    }
}

impl core::error::Error for ReplayError {}

impl From<RecordError> for ReplayError {
    fn from(error: RecordError) -> ReplayError {
        ReplayError::Record(error)
    }
}

impl Replay {
    /// Before the first step. Records come from anywhere, so `bytes_max` bounds the memory that the connection
    /// holds between two steps.
    ///
    /// # Errors
    /// [`ReplayError::NotWhole`].
    pub fn new(record: &Record<'_>, bytes_max: usize) -> Result<Replay, ReplayError> {
        if !record.is_whole {
            return Err(ReplayError::NotWhole);
        }
        let memory = Memory::scattered(record.landing_max);
        let config = Rc::new(record.config.clone());
        Ok(Replay {
            connection: Connection::new(record.side, config, memory.clone(), record.began),
            ballast: memory.pool().copy(&[0]),
            memory,
            digest: Digest::new(record.hides_bodies),
            window: record.config.calls_window.min(record.config.replies_window),
            lent: Vec::new(),
            writes: Vec::new(),
            bytes_max,
            departed: None,
        })
    }

    /// Does the next step of the record.
    ///
    /// # Errors
    /// When it gives something else than it did, or cannot be done; nothing of use follows.
    pub fn step(&mut self, step: &Step<'_>) -> Result<Output, ReplayError> {
        let held = self.memory.pool().stats().lent_bytes;
        if held.max(self.connection.bytes_queued()) > self.bytes_max {
            return Err(ReplayError::TooMuch(step.number));
        }
        if let Some(state) = step.memory {
            self.memory.set_landing(state.landing);
            self.memory.set_room(state.room);
            let mark = if state.is_hoarded { 0 } else { usize::MAX };
            self.memory.pool().set_high_water(mark);
            self.ballast = self.memory.pool().copy(&[0]);
        }
        let done = self.apply(step.now, &step.input, step.number);
        let output = done.ok_or(ReplayError::Impossible(step.number))?;
        self.connection.snapshot().tell(&mut self.digest);
        if self.digest.short() != step.digest {
            self.departed = Some(output);
            return Err(ReplayError::Departed(step.number));
        }
        Ok(output)
    }

    /// What came out of the step that [departed](ReplayError::Departed).
    #[must_use]
    pub fn departed(&self) -> Option<&Output> {
        self.departed.as_ref()
    }

    /// How the connection stands.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.connection.snapshot()
    }

    /// The connection, to ask.
    #[must_use]
    pub fn connection(&self) -> &Connection<u64> {
        &self.connection
    }

    /// The digest of everything that came out so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.long()
    }

    /// `None` for what cannot be.
    fn apply(&mut self, now: Instant, input: &Input<'_>, number: u64) -> Option<Output> {
        match *input {
            Input::Received { .. }
            | Input::Landed { .. }
            | Input::InputEnd
            | Input::Closed { .. }
            | Input::Transmitted { .. }
            | Input::Unreadable { .. }
            | Input::Written { .. }
            | Input::Timeout => self.handle(now, input)?,
            Input::PollEvent
            | Input::PollItems { .. }
            | Input::PollTransmit { .. }
            | Input::BeginLanding
            | Input::PollWrite => return self.poll(now, input),
            Input::Call { .. }
            | Input::Cancel { .. }
            | Input::Reply { .. }
            | Input::BeginItems { .. }
            | Input::SendItem { .. } => return self.ask(now, input, number),
            _ => self.tell(now, input)?,
        }
        Some(Output::Nothing)
    }

    /// What comes from the transport and the clock.
    fn handle(&mut self, now: Instant, input: &Input<'_>) -> Option<()> {
        let connection = &mut self.connection;
        match *input {
            Input::Received { phase, bytes } => {
                let phase = Some(usize::from(phase)).filter(|phase| *phase < 64)?;
                let mut buffer = self.memory.pool().take(phase.checked_add(bytes.len())?);
                buffer.spare().fill(0);
                buffer.fill(phase);
                fill(&mut buffer, bytes);
                let mut chunk = buffer.freeze();
                chunk.advance(phase);
                connection.handle_received(now, chunk);
            }
            Input::Landed { capacity, filled, bytes } => {
                let is_it =
                    |lent: &ChunkMut| (lent.capacity(), lent.filled_len()) == (capacity, filled);
                let at = self.lent.iter().position(is_it)?;
                if bytes.len() > capacity.checked_sub(filled)? {
                    return None;
                }
                let mut buffer = self.lent.remove(at);
                fill(&mut buffer, bytes);
                connection.handle_landed(now, buffer, bytes.len());
            }
            Input::InputEnd => connection.handle_input_end(now),
            Input::Closed { reason } => connection.handle_closed(now, reason),
            Input::Transmitted { bytes } => connection.handle_transmitted(now, bytes),
            Input::Unreadable { owner, error } => connection.handle_unreadable(now, owner, error),
            Input::Written { owner, len, result } => {
                let at = self.writes.iter().position(|write| *write == (owner, len))?;
                self.writes.remove(at);
                connection.handle_written(now, Written { owner, len, result });
            }
            _ => connection.handle_timeout(now),
        }
        Some(())
    }

    /// What is asked for.
    fn poll(&mut self, now: Instant, input: &Input<'_>) -> Option<Output> {
        let Replay { connection, digest, .. } = self;
        Some(match *input {
            Input::PollItems { stream, max } => {
                let mut items = Vec::new();
                connection.poll_items(now, stream, max, |item| {
                    digest.item(&item);
                    items.push(item);
                });
                Output::Items(items)
            }
            Input::PollTransmit { bytes, is_full, .. } => {
                let room = if is_full { bytes } else { usize::MAX };
                let mut queue = Queue { room, digest, sent: Vec::new() };
                connection.poll_transmit(now, &mut queue);
                let sent = queue.sent;
                digest.transmitted(sent.len());
                Output::Sent(sent)
            }
            Input::BeginLanding => {
                let buffer = connection.begin_landing();
                digest.lent(&buffer);
                let capacity = buffer.as_ref().map(ChunkMut::capacity);
                self.lent.extend(buffer);
                Output::Lent(capacity)
            }
            Input::PollWrite => {
                let write = connection.poll_write();
                digest.write(&write);
                let len = write.as_ref().map(|write| write.bytes.len());
                self.writes.extend(write.map(|write| (write.owner, write.bytes.len())));
                Output::Write(len)
            }
            _ => {
                let event = connection.poll_event(now);
                digest.event(&event);
                Output::Event(event)
            }
        })
    }

    /// The application's verbs that give an answer.
    fn ask(&mut self, now: Instant, input: &Input<'_>, number: u64) -> Option<Output> {
        let Replay { connection, digest, .. } = self;
        Some(match *input {
            Input::Call { call, payload } => {
                let result = connection.call(now, &call, &Again::new(payload), number);
                digest.called(&result);
                Output::Called(result.map_err(|refused| refused.failure))
            }
            Input::Cancel { call, reason } => {
                let ticket = connection.cancel(now, call, reason);
                digest.cancelled(&ticket);
                Output::Cancelled(ticket)
            }
            Input::Reply { request, header, payload } => {
                let result = connection.reply(now, request, header, &Again::new(payload));
                digest.replied(&result);
                Output::Replied(result)
            }
            Input::BeginItems { request, header, extensions } => {
                let extensions = extensions.to_vec();
                let result = connection.begin_items(now, request, header, &extensions);
                digest.replied(&result);
                Output::Replied(result)
            }
            Input::SendItem { stream, encoding, payload } => {
                let result = connection.send_item(now, stream, encoding, &Again::new(payload));
                digest.item_sent(&result);
                Output::ItemSent(result)
            }
            _ => return None,
        })
    }

    /// Those that give none.
    fn tell(&mut self, now: Instant, input: &Input<'_>) -> Option<()> {
        let connection = &mut self.connection;
        match *input {
            Input::EndItems { call } => connection.end_items(now, call),
            Input::Consumed { stream, items, bytes } => {
                connection.consumed_many(stream, items, bytes);
            }
            Input::RefuseExpired { request } => connection.refuse_expired(now, request),
            Input::WatchDeadline { request, deadline } => {
                connection.watch_deadline(request, deadline);
            }
            Input::Ping { opaque } => connection.ping(now, opaque),
            Input::GoAway { refuse } => connection.go_away(now, refuse),
            Input::Drain => connection.drain(now),
            Input::DrainAt { at } => connection.drain_at(at),
            Input::SetLimits { in_flight_max, message_bytes_max } => {
                if in_flight_max == 0 || message_bytes_max as u64 > self.window / 2 {
                    return None;
                }
                connection.set_limits(in_flight_max, message_bytes_max);
            }
            Input::Present { credentials } => connection.present(&credentials.to_vec()).ok()?,
            Input::Introduce { identity } => {
                connection.introduce(&Identity::from_bytes(&identity.to_vec())?).ok()?;
            }
            Input::ExpectPeer { identity, is_required } => {
                let identity = Identity::from_bytes(&identity.to_vec())?;
                connection.expect_peer(Expected { identity, is_required });
            }
            Input::Close { reason } => connection.close(now, reason),
            _ => return None,
        }
        Some(())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// The buffer has room for them.
fn fill(buffer: &mut ChunkMut, bytes: Pieces<'_>) {
    for piece in bytes.iter() {
        match piece {
            Piece::Kept(kept) => buffer.extend_from_slice(kept),
            Piece::Hidden(n) => {
                if let Some(hidden) = buffer.spare().get_mut(..n) {
                    hidden.fill(0);
                }
                buffer.fill(n);
            }
        }
    }
}

/// Takes as much as the queue of then did.
struct Queue<'a> {
    room: usize,
    digest: &'a mut Digest,
    sent: Vec<u8>,
}

impl SendQueue for Queue<'_> {
    fn room(&self) -> usize {
        self.room
    }

    fn push(&mut self, segment: Segment) {
        self.digest.sent(&segment);
        self.room = match self.room {
            usize::MAX => usize::MAX,
            room => room.saturating_sub(segment.len()),
        };
        match segment.as_slice() {
            Some(bytes) => self.sent.extend_from_slice(bytes),
            None => self.sent.resize(self.sent.len().saturating_add(segment.len()), 0),
        }
    }
}

/// A message, as it was encoded then.
struct Again<'a> {
    payload: RecordedPayload<'a>,
    extensions: Vec<u8>,
}

impl<'a> Again<'a> {
    fn new(payload: RecordedPayload<'a>) -> Again<'a> {
        Again { payload, extensions: payload.extensions.to_vec() }
    }
}

impl Payload for Again<'_> {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        let (front, rest, is_beside) = match self.payload.body {
            RecordedBody::Unused => return Err(EncodeError::Failed),
            RecordedBody::Failed(error) => return Err(error),
            RecordedBody::Encoded { front, rest, is_beside } => (front, rest, is_beside),
        };
        for piece in front.iter() {
            match piece {
                Piece::Kept(kept) => out.put(kept)?,
                Piece::Hidden(n) => put_zeros(out, n)?,
            }
        }
        let rest = match rest {
            Rest::Nothing => return Ok(()),
            Rest::Memory(pieces) => Segment::from(Bytes::from(pieces.to_vec())),
            Rest::External(len) => External::new(Arc::new(Nowhere), 0, len).into(),
        };
        match is_beside {
            true => out.attach_beside(rest)?,
            false => out.attach(rest)?,
        }
        Ok(())
    }

    fn landing(&self) -> Option<External> {
        self.payload.landing.map(|len| External::new(Arc::new(Nowhere), 0, len))
    }

    fn extensions(&self) -> &[u8] {
        &self.extensions
    }
}

fn put_zeros(out: &mut Writer, n: usize) -> Result<(), EncodeError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut left = n;
    while let Some(zeros) = ZEROS.get(..left.min(ZEROS.len())).filter(|zeros| !zeros.is_empty()) {
        out.put(zeros)?;
        left = left.saturating_sub(zeros.len());
    }
    Ok(())
}

/// In place of a file.
#[derive(Debug)]
struct Nowhere;

impl Object for Nowhere {
    fn read_at(&self, _: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        into.fill(0);
        Ok(into.len())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), ObjectError> {
        Ok(())
    }
}
