//! The byte layer of one connection.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringcall_buf::{Arena, BLOCK_BYTES, Chunk, Pool, Segment};
use ringcall_core::{
    Batch, ByteLayer, CloseReason, SendQueue, TlsFault, TransportError, frame::MAGIC,
};
use rustls::crypto::cipher::OutboundChunks;

use crate::handshake::{Advance, Finished, Handshake};
use crate::peer::PeerIdentity;
use crate::traffic::{HEAD_LEN, Opened, RECORD_BYTES_MAX, Traffic, is_cut};
use crate::{TlsClient, TlsConfigError, TlsServer};

/// Plaintext that did not come to lie as bodies must is moved, unless it is as long as this: then it is
/// most likely a part of a body that is put together elsewhere.
const MOVED_BYTES_MAX: usize = 8 * 1024;
/// Whoever begins with another byte does not speak TLS.
const HANDSHAKE_RECORD: u8 = 0x16;
/// "Unexpected message", in the clear, for whoever speaks ringcall without TLS.
const PLAINTEXT_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];

/// The memory that the TLS connections of a thread share. A handle: clones are the same.
#[derive(Clone)]
pub struct Workspace(Rc<RefCell<Shared>>);

struct Shared {
    /// Where records are opened.
    arena: Arena,
    /// Where the plaintext of the records lies that were opened last.
    ranges: Vec<Range<usize>>,
    /// Records that were sealed.
    sealed: Vec<Segment>,
    /// Where those of long batches wait until they are sent.
    outgoing: Arena,
}

/// From so many bytes on a batch is a long one: what glibc gives back to the system when that much is free at the end of its heap.
const LONG_BATCH_BYTES: usize = 128 * 1024;

impl Workspace {
    /// Takes its memory from this pool.
    #[must_use]
    pub fn new(pool: &Pool) -> Workspace {
        Workspace(Rc::new(RefCell::new(Shared {
            arena: Arena::new(pool, BLOCK_BYTES),
            ranges: Vec::new(),
            sealed: Vec::new(),
            outgoing: Arena::new(pool, BLOCK_BYTES),
        })))
    }
}

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").finish_non_exhaustive()
    }
}

/// TLS between a connection and its transport.
pub struct Tls {
    stage: Stage,
    workspace: Workspace,
    /// What has arrived of a message or a record that is not whole.
    partial: Vec<u8>,
    /// Messages of TLS's own that wait to be sent, as they go out.
    out: Vec<u8>,
    /// How much plaintext the connection was given.
    given: usize,
    copied: u64,
    /// The other side speaks TLS, by its first bytes.
    is_tls: bool,
    input_ended: bool,
    goodbye: Goodbye,
    peer: Option<Arc<PeerIdentity>>,
}

enum Stage {
    Handshake(Box<Handshake>),
    Traffic(Box<Traffic>),
    /// Nothing more is taken or given.
    Over,
}

/// What the other side's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Tls,
    Unclear,
    Stranger([u8; 8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    NotYet,
    Wanted,
    Said,
}

impl Tls {
    /// The layer of a connection that this side opens to `host`, a DNS name or an IP address.
    ///
    /// # Errors
    /// When the host cannot be the name of a server.
    pub fn client(
        client: &TlsClient,
        host: &str,
        workspace: &Workspace,
    ) -> Result<Tls, TlsConfigError> {
        let handshake = Handshake::client(client, host)?;
        let mut tls = Tls::with(handshake, workspace);
        // The first message. An error shows when the other side has answered, if not before.
        let _ = tls.shake(&mut |_| {});
        Ok(tls)
    }

    /// The layer of a connection that was accepted.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn server(server: &TlsServer, workspace: &Workspace) -> Result<Tls, TlsConfigError> {
        Ok(Tls::with(Handshake::server(server.current())?, workspace))
    }

    fn with(handshake: Handshake, workspace: &Workspace) -> Tls {
        Tls {
            stage: Stage::Handshake(Box::new(handshake)),
            workspace: workspace.clone(),
            partial: Vec::new(),
            out: Vec::new(),
            given: 0,
            copied: 0,
            is_tls: false,
            input_ended: false,
            goodbye: Goodbye::NotYet,
            peer: None,
        }
    }

    /// Who the other side has proved to be, once the handshake is done.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<PeerIdentity>> {
        self.peer.as_ref()
    }

    /// Whether the other side waits for another key. It is made when there is room for the answer, not
    /// before: whoever asks without reading would have answers pile up. Behind a goodbye there is none.
    #[inline]
    fn owes_key(&self) -> bool {
        match &self.stage {
            Stage::Traffic(traffic) => traffic.owes_key() && self.goodbye != Goodbye::Said,
            _ => false,
        }
    }

    /// How much memory waits for the rest of a record or a message.
    #[cfg(test)]
    pub(crate) fn partial_capacity(&self) -> usize {
        self.partial.capacity()
    }

    #[cfg(test)]
    pub(crate) fn change_key_after(&mut self, records: u64) {
        if let Stage::Traffic(traffic) = &mut self.stage {
            traffic.change_key_after(records);
        }
    }

    #[cfg(test)]
    pub(crate) fn ask_for_new_key(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        if let Stage::Traffic(traffic) = &mut self.stage {
            traffic.update_key(true, &mut out).unwrap_or_default();
        }
        out
    }

    /// A record with anything inside.
    #[cfg(test)]
    pub(crate) fn say_anything(&mut self, typ: u8, bytes: &[u8]) -> Vec<u8> {
        match &mut self.stage {
            Stage::Traffic(traffic) => traffic.seal_anything(typ, bytes).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    // ---- the handshake ----

    /// Whoever does not speak TLS is told apart by the first bytes.
    fn greet(&self) -> Greeting {
        if self.is_tls {
            return Greeting::Tls;
        }
        match self.partial.first() {
            None => Greeting::Unclear,
            Some(&HANDSHAKE_RECORD) => Greeting::Tls,
            // An answer may be an alert.
            Some(0x14..=0x17) if self.is_client() => Greeting::Tls,
            Some(_) => match self.partial.first_chunk::<8>() {
                Some(preface) => Greeting::Stranger(*preface),
                None => Greeting::Unclear,
            },
        }
    }

    fn stranger(&mut self, preface: [u8; 8]) -> CloseReason {
        if !preface.starts_with(&MAGIC) {
            return CloseReason::UnknownPreface(preface);
        }
        self.out.extend(PLAINTEXT_ALERT);
        CloseReason::PeerSpeaksPlaintext
    }

    fn is_client(&self) -> bool {
        matches!(&self.stage, Stage::Handshake(handshake) if handshake.is_client())
    }

    /// Goes on with the handshake.
    fn shake(&mut self, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason> {
        let Stage::Handshake(handshake) = &mut self.stage else { return Ok(()) };
        let mut early = Vec::new();
        let advance = handshake.advance(&mut self.partial, &mut self.out, &mut early)?;
        match advance {
            Advance::Going => {}
            Advance::PeerClosed => self.input_ended = true,
            Advance::Done => {
                let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Over)
                else {
                    return Ok(());
                };
                let Finished { mut traffic, peer, speaks_ringcall } =
                    handshake.finish().map_err(CloseReason::Tls)?;
                if !speaks_ringcall {
                    traffic.refuse(TlsFault::NoCommonProtocol, &mut self.out);
                    return Err(CloseReason::Tls(TlsFault::NoCommonProtocol));
                }
                self.peer = peer;
                self.stage = Stage::Traffic(Box::new(traffic));
                // It had to hold chains of certificates. From now on it holds less than a record.
                self.partial.shrink_to_fit();
            }
        }
        if !early.is_empty() {
            self.give_copy(&early, plain);
        }
        Ok(())
    }

    /// Gives the connection what came along with the end of the handshake.
    fn give_copy(&mut self, bytes: &[u8], plain: &mut dyn FnMut(Chunk)) {
        let phase = self.given.wrapping_add(8) & 15;
        let chunk = copied(bytes, phase, &mut self.workspace.0.borrow_mut().arena);
        self.count(bytes.len());
        plain(chunk);
    }

    /// The connection is given so much plaintext.
    fn count(&mut self, bytes: usize) {
        self.given = self.given.wrapping_add(bytes);
        self.copied = self.copied.wrapping_add(bytes as u64);
    }

    // ---- records ----

    /// Opens the records of a chunk, where its plaintext is to lie.
    fn open_records(
        &mut self,
        chunk: &Chunk,
        plain: &mut dyn FnMut(Chunk),
    ) -> Result<(), CloseReason> {
        let Stage::Traffic(traffic) = &mut self.stage else { return Ok(()) };
        let len = self.partial.len().saturating_add(chunk.len());
        if is_cut(&self.partial, len) {
            self.partial.extend_from_slice(chunk);
            return Ok(());
        }
        let mut shared = self.workspace.0.borrow_mut();
        let Shared { arena, ranges, .. } = &mut *shared;
        // Behind the head of the first record its plaintext lies as it must.
        let phase = self.given.wrapping_add(8).wrapping_sub(HEAD_LEN) & 15;
        let spare = arena.spare(len, phase);
        let buffer = spare.get_mut(..len).unwrap_or_default();
        if let Some((front, back)) = buffer.split_at_mut_checked(self.partial.len()) {
            front.copy_from_slice(&self.partial);
            back.copy_from_slice(chunk);
        }
        self.partial.clear();
        self.copied = self.copied.wrapping_add(len as u64);
        let mut laying = Laying { ranges, given: 0, end: 0, moved: 0 };
        let opened = laying.open(traffic, buffer);
        match opened {
            Ok(Some(at)) => self.partial.extend_from_slice(buffer.get(at..).unwrap_or_default()),
            // Nothing may follow a goodbye, and what does is nobody's.
            Ok(None) => self.input_ended = true,
            Err(_) => {}
        }
        let Laying { given, end, moved, .. } = laying;
        self.given = self.given.wrapping_add(given);
        self.copied = self.copied.wrapping_add(moved as u64);
        // Whole records before a bad one are as good as if they had come alone.
        give(shared, end, plain);
        opened.map(drop).map_err(|fault| {
            traffic.refuse(fault, &mut self.out);
            CloseReason::Tls(fault)
        })
    }

    /// Seals the segments of a batch, as few records as they fit into.
    fn seal_segments(&mut self, batch: &mut Batch) -> Result<(), TlsFault> {
        let Stage::Traffic(traffic) = &mut self.stage else { return Err(TlsFault::Internal) };
        let mut shared = self.workspace.0.borrow_mut();
        let Shared { sealed, outgoing, .. } = &mut *shared;
        sealed.clear();
        {
            let mut slices = Vec::new();
            let mut rest = match batch.segments() {
                [segment] => OutboundChunks::Single(segment.as_slice().ok_or(TlsFault::Internal)?),
                segments => {
                    slices.reserve_exact(segments.len());
                    for segment in segments {
                        slices.push(segment.as_slice().ok_or(TlsFault::Internal)?);
                    }
                    OutboundChunks::new(&slices)
                }
            };
            let is_long = rest.len() >= LONG_BATCH_BYTES;
            while !rest.is_empty() {
                let (record, behind) = rest.split_at(RECORD_BYTES_MAX.min(rest.len()));
                let record = traffic.seal(record, &mut self.out)?;
                if !self.out.is_empty() {
                    sealed.push(Bytes::from(std::mem::take(&mut self.out)).into());
                }
                // rustls allocates each record. When all of a long batch are sent, the allocator may give their memory back to
                // the system, which clears it for the next batch.
                sealed.push(match is_long {
                    true => copied(&record, 0, outgoing).into(),
                    false => Bytes::from(record).into(),
                });
                rest = behind;
            }
        }
        batch.clear();
        sealed.drain(..).for_each(|segment| batch.push(segment));
        Ok(())
    }
}

/// The bytes in memory that is used again, at an address that is `phase` modulo 16.
fn copied(bytes: &[u8], phase: usize, arena: &mut Arena) -> Chunk {
    let place = arena.spare(bytes.len(), phase);
    if let Some(place) = place.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    arena.commit(bytes.len())
}

/// Gives the connection the plaintext that was opened, which ends at `end`.
fn give(mut shared: RefMut<'_, Shared>, end: usize, plain: &mut dyn FnMut(Chunk)) {
    let Shared { arena, ranges, .. } = &mut *shared;
    if let [range] = &ranges[..] {
        let mut chunk = arena.commit(range.end);
        chunk.advance(range.start);
        ranges.clear();
        drop(shared);
        plain(chunk);
    } else if !ranges.is_empty() {
        let chunk = arena.commit(end);
        ranges.drain(..).for_each(|range| plain(chunk.slice(range)));
    }
}

/// Where plaintext comes to lie in the buffer of its records: at the addresses that bodies need, and without
/// gaps if that costs little.
struct Laying<'a> {
    ranges: &'a mut Vec<Range<usize>>,
    /// How much there is so far.
    given: usize,
    /// Where the last of it ends.
    end: usize,
    moved: usize,
}

impl Laying<'_> {
    /// Opens the records that are whole. Says where the first one begins that is not; `None` if one was a
    /// goodbye.
    fn open(
        &mut self,
        traffic: &mut Traffic,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, TlsFault> {
        let mut at = 0_usize;
        while let Some((opened, len)) = traffic.open(buffer.get_mut(at..).unwrap_or_default())? {
            match opened {
                Opened::Data(n) => self.lay(buffer, at.saturating_add(HEAD_LEN), n),
                Opened::Own => {}
                Opened::Goodbye => return Ok(None),
            }
            at = at.saturating_add(len);
        }
        Ok(Some(at))
    }

    /// Plaintext of `len` bytes lies at `start`.
    fn lay(&mut self, buffer: &mut [u8], start: usize, len: usize) {
        // Behind the head of a record that the buffer begins with, the first byte lies right.
        let wanted = HEAD_LEN.wrapping_add(self.given) & 15;
        let mut place = start;
        if start & 15 != wanted && len <= MOVED_BYTES_MAX {
            let next = self.end.wrapping_add(wanted.wrapping_sub(self.end) & 15);
            // Between the plaintexts of two records there is more than 15 bytes of room.
            if next < start && start.saturating_add(len) <= buffer.len() {
                buffer.copy_within(start..start.saturating_add(len), next);
                self.moved = self.moved.saturating_add(len);
                place = next;
            }
        }
        let end = place.saturating_add(len);
        match self.ranges.last_mut() {
            Some(last) if last.end == place => last.end = end,
            _ => self.ranges.push(place..end),
        }
        self.end = end;
        self.given = self.given.wrapping_add(len);
    }
}

impl ByteLayer for Tls {
    fn open(&mut self, chunk: Chunk, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason> {
        if self.input_ended {
            return Ok(());
        }
        let opened = match &mut self.stage {
            Stage::Over => return Ok(()),
            Stage::Traffic(_) => self.open_records(&chunk, plain),
            Stage::Handshake(handshake) => {
                handshake.arrives(chunk.len());
                self.partial.extend_from_slice(&chunk);
                drop(chunk);
                match self.greet() {
                    Greeting::Tls => {
                        self.is_tls = true;
                        self.shake(plain)
                    }
                    Greeting::Unclear => Ok(()),
                    Greeting::Stranger(preface) => Err(self.stranger(preface)),
                }
            }
        };
        if opened.is_err() {
            self.stage = Stage::Over;
            self.partial = Vec::new();
        }
        opened
    }

    fn seal(&mut self, batch: &mut Batch) -> Result<(), CloseReason> {
        if !batch.is_empty() {
            self.seal_segments(batch).map_err(CloseReason::Tls)?;
        }
        if self.owes_key()
            && let Stage::Traffic(traffic) = &mut self.stage
        {
            traffic.update_key(false, &mut self.out).map_err(CloseReason::Tls)?;
        }
        if self.goodbye == Goodbye::Wanted {
            self.goodbye = Goodbye::Said;
            if let Stage::Traffic(traffic) = &mut self.stage {
                traffic.say_goodbye(&mut self.out).map_err(CloseReason::Tls)?;
            }
        }
        if !self.out.is_empty() {
            batch.push(Bytes::from(std::mem::take(&mut self.out)).into());
        }
        Ok(())
    }

    #[inline]
    fn wants_seal(&self) -> bool {
        !self.out.is_empty() || self.goodbye == Goodbye::Wanted || self.owes_key()
    }

    #[inline]
    fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Traffic(_))
    }

    #[inline]
    fn has_input_ended(&self) -> bool {
        self.input_ended
    }

    fn end_input(&mut self) -> Result<(), CloseReason> {
        let unanswered = CloseReason::Tls(TlsFault::Unanswered);
        let fault = match &self.stage {
            _ if self.input_ended => return Ok(()),
            Stage::Over => return Ok(()),
            Stage::Traffic(_) => CloseReason::Tls(TlsFault::Truncated),
            Stage::Handshake(handshake) if !handshake.has_heard() => match handshake.is_client() {
                true => unanswered,
                false => return Ok(()),
            },
            Stage::Handshake(_) if self.greet() != Greeting::Tls => {
                let mut preface = [0; 8];
                preface.iter_mut().zip(&self.partial).for_each(|(to, from)| *to = *from);
                self.stranger(preface)
            }
            Stage::Handshake(_) => CloseReason::Tls(TlsFault::Truncated),
        };
        self.stage = Stage::Over;
        Err(fault)
    }

    fn end_output(&mut self) {
        if self.goodbye == Goodbye::NotYet && self.is_ready() {
            self.goodbye = Goodbye::Wanted;
        }
    }

    #[inline]
    fn owes_goodbye(&self) -> bool {
        self.is_ready() && self.goodbye != Goodbye::Said
    }

    fn explain(&self, reason: CloseReason) -> CloseReason {
        match (&self.stage, reason) {
            (
                Stage::Handshake(handshake),
                CloseReason::Transport(TransportError::Reset) | CloseReason::PeerClosed,
            ) if handshake.is_client() && !handshake.has_heard() => {
                CloseReason::Tls(TlsFault::Unanswered)
            }
            _ => reason,
        }
    }

    #[inline]
    fn take_copied(&mut self) -> u64 {
        std::mem::take(&mut self.copied)
    }

    fn can_land(&self) -> bool {
        false
    }

    fn can_file(&self) -> bool {
        false
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Handshake(_) => "handshake",
            Stage::Traffic(_) => "traffic",
            Stage::Over => "over",
        };
        f.debug_struct("Tls")
            .field("stage", &stage)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
