//! From received bytes to frames, in place.
//!
//! A frame that lies whole in a received chunk is cut out of it without copying. One that does not is
//! gathered in memory of its own if it is small; of a large one only the header is gathered, its body
//! is handed on in parts.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::collections::VecDeque;

use ringcall_buf::{Chunk, ChunkMut, FrontFrame};

use crate::counters::Counters;
use crate::frame::{self, Head, MAGIC, PREFACE_LEN, Shape};
use crate::{CloseReason, Memory, MessageId};

/// Frames up to this length are gathered whole; of longer ones the body goes to its own memory.
pub(super) const GATHER_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Inbound {
    /// What is being parsed.
    current: Chunk,
    /// What came after it.
    waiting: VecDeque<Chunk>,
    mode: Mode,
    /// The largest `length` that a head may have.
    length_max: u32,
    /// Beyond the longest body of an ordinary frame. Zero before the connection is established, when there are no
    /// calls either that such a frame could belong to.
    body_end: u32,
    /// The same of the next frame: zero if it has begun, or does not lie where frames do, so that it cannot be ordinary.
    next_body_end: u32,
}

#[derive(Debug)]
enum Mode {
    /// Before the first frame.
    Preface { bytes: [u8; PREFACE_LEN], have: usize },
    /// Between frames.
    Between,
    /// Inside a head.
    Head { bytes: [u8; Head::LEN], have: usize },
    /// Inside a small frame that did not come in one piece.
    Gather { head: Head, frame: ChunkMut },
    /// Inside the header of a large frame.
    Header { head: Head, header: ChunkMut },
    /// Inside the body of a large frame.
    Body { left: usize, padding: usize },
    /// Behind the body of a large frame.
    Padding { left: usize },
}

/// A frame that lies in front of us whole and aligned, with no padding but zeros, if its header has `N` bytes: whoever
/// compares the shape looks at that.
pub(super) struct Plain<'a, const N: usize> {
    pub(super) shape: Shape,
    pub(super) id: MessageId,
    /// Its header, and its body.
    pub(super) frame: FrontFrame<'a, N>,
}

/// Why no ordinary frame lies in front of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotPlain {
    /// Nothing does: all that was received is parsed, and no frame has begun.
    AtRest,
    /// Something else does, or something has begun.
    Other,
}

/// What was found in the received bytes.
#[derive(Debug)]
pub(super) enum Found {
    Preface([u8; PREFACE_LEN]),
    /// A whole frame: header and body.
    Frame(Head, Chunk),
    /// The header of a frame whose body follows in parts.
    Large(Head, Chunk),
    /// A part of that body.
    Part(Chunk),
}

impl Inbound {
    pub(super) fn new() -> Inbound {
        Inbound {
            current: Chunk::empty(),
            waiting: VecDeque::new(),
            mode: Mode::Preface { bytes: [0; PREFACE_LEN], have: 0 },
            length_max: frame::HANDSHAKE_FRAME_MAX as u32,
            body_end: 0,
            next_body_end: 0,
        }
    }

    /// The connection is established, or has new limits: from now on bodies may be this long.
    pub(super) fn set_body_max(&mut self, body_max: usize) {
        let length_max = u32::try_from(body_max.saturating_add(frame::HEADER_LEN_MAX));
        self.length_max = length_max.unwrap_or(u32::MAX);
        let header_len = frame::HEADER_LEN_MAX as u32;
        self.body_end = self.length_max.saturating_sub(header_len).saturating_add(1);
        self.note_next();
    }

    /// To be said when something else is current, or in another mode. Ordinary frames change neither, nor where frames
    /// lie, since they are as long as a multiple of what they are aligned to.
    #[inline]
    fn note_next(&mut self) {
        let may_be_plain =
            matches!(self.mode, Mode::Between) && self.current.is_aligned_to(frame::ALIGN);
        self.next_body_end = if may_be_plain { self.body_end } else { 0 };
    }

    #[inline]
    pub(super) fn push(&mut self, chunk: Chunk) {
        // What was parsed to its end may still have others behind it.
        if self.current.is_empty() && (self.waiting.is_empty() || bug!("later_first")) {
            self.current = chunk;
            self.note_next();
        } else {
            self.waiting.push_back(chunk);
        }
    }

    /// Forgets everything that was received and not parsed.
    pub(super) fn clear(&mut self) {
        *self = Inbound::new();
    }

    /// How much waits to be parsed.
    pub(super) fn bytes(&self) -> usize {
        let waiting = self.waiting.iter().map(Chunk::len);
        waiting.fold(self.current.len(), usize::saturating_add)
    }

    /// Whether nothing waits to be parsed.
    pub(super) fn is_drained(&self) -> bool {
        self.current.is_empty() && self.waiting.is_empty()
    }

    /// Whether a frame, or the preface, has begun whose end is not here.
    #[inline]
    pub(super) fn is_inside_frame(&self) -> bool {
        !matches!(self.mode, Mode::Between | Mode::Preface { have: 0, .. })
    }

    /// Why nothing came of what has begun, when nothing more will come: a stranger may have been brief.
    pub(super) fn cut_off(&self) -> CloseReason {
        match self.mode {
            Mode::Preface { bytes, have } if bytes.get(..have) != MAGIC.get(..have) => {
                stranger(bytes)
            }
            _ => CloseReason::Truncated,
        }
    }

    /// How much of a large body is still to come, if nothing of it waits to be parsed.
    pub(super) fn body_left(&self) -> Option<usize> {
        match self.mode {
            Mode::Body { left, .. } if self.is_drained() => Some(left),
            _ => None,
        }
    }

    /// The transport received `n` bytes of a large body elsewhere; `false` if there cannot be so many.
    pub(super) fn body_landed(&mut self, n: usize) -> bool {
        let Mode::Body { left, padding } = &mut self.mode else { return false };
        let Some(rest) = left.checked_sub(n) else { return false };
        *left = rest;
        if rest == 0 {
            self.mode = after_body(*padding);
            self.note_next();
        }
        true
    }

    /// Looks whether an ordinary frame with a header of `N` bytes lies in front of us.
    #[inline(always)]
    pub(super) fn peek_plain<const N: usize>(&mut self) -> Result<Plain<'_, N>, NotPlain> {
        let front_len = Head::LEN.wrapping_add(N);
        if self.current.len() < front_len {
            self.next_chunk()?;
        }
        let bytes = self.current.first_chunk().ok_or(NotPlain::Other)?;
        let (head, shape) = (Head::parse(bytes), Shape::parse(bytes));
        // A frame that is shorter than its header has a body longer than all.
        let body_len = head.length.wrapping_sub(N as u32);
        if body_len >= self.next_body_end {
            return Err(NotPlain::Other);
        }
        match self.current.front_frame(Head::LEN as u32, body_len) {
            Some(frame) if frame.is_filled_with_zeros() => Ok(Plain { shape, id: head.id, frame }),
            _ => Err(NotPlain::Other),
        }
    }

    /// Too little of the current chunk is left for an ordinary frame: goes on with the next one if nothing is.
    #[inline]
    fn next_chunk(&mut self) -> Result<(), NotPlain> {
        let Mode::Between = self.mode else { return Err(NotPlain::Other) };
        if !self.current.is_empty() {
            return Err(NotPlain::Other);
        }
        self.current = self.waiting.pop_front().ok_or(NotPlain::AtRest)?;
        self.note_next();
        Ok(())
    }

    /// The next thing in the received bytes, `None` when more are needed.
    #[inline]
    pub(super) fn next(
        &mut self,
        memory: &Memory,
        counters: &mut Counters,
    ) -> Result<Option<Found>, CloseReason> {
        let found = self.find(memory, counters);
        self.note_next();
        found
    }

    #[inline]
    fn find(
        &mut self,
        memory: &Memory,
        counters: &mut Counters,
    ) -> Result<Option<Found>, CloseReason> {
        loop {
            if self.current.is_empty() {
                match self.waiting.pop_front() {
                    Some(chunk) => self.current = chunk,
                    None => return Ok(None),
                }
            }
            // The common case first: a whole frame lies in front of us.
            if let Mode::Between = self.mode
                && let Some(bytes) = self.current.first_chunk::<{ Head::LEN }>()
            {
                let head = Head::parse(bytes);
                let frame_len = self.check(&head)?;
                if frame_len <= self.current.len() {
                    let mut frame = self.cut(frame_len);
                    frame.advance(Head::LEN);
                    trim_padding(&head, &mut frame)?;
                    counters.frames_received = counters.frames_received.wrapping_add(1);
                    return Ok(Some(Found::Frame(head, frame)));
                }
            }
            if let Some(found) = self.step(memory, counters)? {
                return Ok(Some(found));
            }
        }
    }

    /// Moves on by some bytes in any mode.
    fn step(
        &mut self,
        memory: &Memory,
        counters: &mut Counters,
    ) -> Result<Option<Found>, CloseReason> {
        if let Mode::Between = self.mode {
            self.mode = Mode::Head { bytes: [0; Head::LEN], have: 0 };
        }
        match &mut self.mode {
            Mode::Between => Ok(None),
            Mode::Preface { bytes, have } => {
                if !fill(&mut self.current, bytes, have) {
                    return Ok(None);
                }
                let preface = *bytes;
                self.mode = Mode::Between;
                Ok(Some(Found::Preface(preface)))
            }
            Mode::Head { bytes, have } => {
                if !fill(&mut self.current, bytes, have) {
                    return Ok(None);
                }
                let head = Head::parse(bytes);
                let frame_len = self.check(&head)?;
                if frame_len == Head::LEN {
                    // The head alone is the frame.
                    self.mode = Mode::Between;
                    counters.frames_received = counters.frames_received.wrapping_add(1);
                    return Ok(Some(Found::Frame(head, Chunk::empty())));
                }
                self.begin(head, frame_len, memory);
                Ok(None)
            }
            Mode::Gather { head, frame } => {
                if !gather(&mut self.current, frame) {
                    return Ok(None);
                }
                let head = *head;
                let Mode::Gather { frame, .. } = core::mem::replace(&mut self.mode, Mode::Between)
                else {
                    return Ok(None);
                };
                let mut frame = frame.freeze();
                trim_padding(&head, &mut frame)?;
                counters.frames_received = counters.frames_received.wrapping_add(1);
                let body = head.body_len().unwrap_or(0) as u64;
                counters.copied_straddle = counters.copied_straddle.wrapping_add(body);
                Ok(Some(Found::Frame(head, frame)))
            }
            Mode::Header { head, header } => {
                if !gather(&mut self.current, header) {
                    return Ok(None);
                }
                let head = *head;
                let body =
                    Mode::Body { left: head.body_len().unwrap_or(0), padding: head.padding() };
                let Mode::Header { header, .. } = core::mem::replace(&mut self.mode, body) else {
                    return Ok(None);
                };
                counters.frames_received = counters.frames_received.wrapping_add(1);
                Ok(Some(Found::Large(head, header.freeze())))
            }
            Mode::Body { left, padding } => {
                let n = self.current.len().min(*left);
                *left = left.saturating_sub(n);
                if *left == 0 {
                    self.mode = after_body(*padding);
                }
                Ok(Some(Found::Part(self.cut(n))))
            }
            Mode::Padding { left } => {
                let n = self.current.len().min(*left);
                *left = left.saturating_sub(n);
                if *left == 0 {
                    self.mode = Mode::Between;
                }
                let padding = self.cut(n);
                if padding.iter().any(|&byte| byte != 0) {
                    return Err(CloseReason::BadPadding);
                }
                Ok(None)
            }
        }
    }

    /// How long the frame is in the stream, if its head makes sense.
    #[inline]
    fn check(&self, head: &Head) -> Result<usize, CloseReason> {
        let header_len = usize::from(head.header_len);
        if header_len % frame::ALIGN != 0
            || header_len > frame::HEADER_LEN_MAX
            || head.body_len().is_none()
        {
            return Err(CloseReason::BadHeader);
        }
        if head.length > self.length_max && !bug!("a03") {
            return Err(CloseReason::FrameTooLarge);
        }
        head.frame_len().ok_or(CloseReason::FrameTooLarge)
    }

    /// A head was read whose frame is not whole yet: makes room for what is to come.
    fn begin(&mut self, head: Head, frame_len: usize, memory: &Memory) {
        let rest = frame_len.saturating_sub(Head::LEN);
        self.mode = if rest <= GATHER_BYTES_MAX {
            Mode::Gather { head, frame: memory.gather(rest) }
        } else {
            Mode::Header { head, header: memory.gather(usize::from(head.header_len)) }
        };
    }

    /// Cuts `n` bytes off what is being parsed, without leaving a count behind when that is all.
    #[inline]
    fn cut(&mut self, n: usize) -> Chunk {
        if n == self.current.len() {
            core::mem::take(&mut self.current)
        } else {
            self.current.split_to(n)
        }
    }
}

/// Whoever begins like this does not speak ringcall.
pub(super) fn stranger(preface: [u8; PREFACE_LEN]) -> CloseReason {
    // The types of a TLS record, and the major version of all of them.
    match preface {
        [0x14..=0x17, 3, ..] => CloseReason::PeerSpeaksTls,
        _ => CloseReason::UnknownPreface(preface),
    }
}

fn after_body(padding: usize) -> Mode {
    if padding == 0 { Mode::Between } else { Mode::Padding { left: padding } }
}

/// Forgets what follows the body, which must be zeros.
#[inline]
fn trim_padding(head: &Head, frame: &mut Chunk) -> Result<(), CloseReason> {
    let length = head.length as usize;
    if head.padding() != 0 {
        let padding = frame.get(length..).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            return Err(CloseReason::BadPadding);
        }
        frame.truncate(length);
    }
    Ok(())
}

/// Moves bytes into a small array; says whether it is full.
fn fill<const N: usize>(from: &mut Chunk, bytes: &mut [u8; N], have: &mut usize) -> bool {
    let place = bytes.get_mut(*have..).unwrap_or_default();
    let n = place.len().min(from.len());
    if let (Some(place), Some(part)) = (place.get_mut(..n), from.get(..n)) {
        place.copy_from_slice(part);
    }
    take_front(from, n);
    *have = have.saturating_add(n);
    *have == N
}

/// Moves bytes into a buffer; says whether it is full.
fn gather(from: &mut Chunk, into: &mut ChunkMut) -> bool {
    let n = into.missing().min(from.len());
    if let Some(part) = from.get(..n) {
        into.extend_from_slice(part);
    }
    take_front(from, n);
    into.missing() == 0
}

fn take_front(chunk: &mut Chunk, n: usize) {
    if n == chunk.len() {
        *chunk = Chunk::empty();
    } else {
        chunk.advance(n);
    }
}
