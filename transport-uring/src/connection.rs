//! One socket: what is wanted of it, what of it is with the kernel.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use ringcall_buf::{Chunk, ChunkMut};
use ringcall_core::{Batch, Receive, TransportError};
use ringcall_net::{Tally, Unsent, Window};
use socket2::Socket;

use crate::Op;

/// How many segments go into one operation.
const IOVECS: usize = 64;
/// How many receives a connection stays with single shots after a body landed: the next body can then
/// land at once, without cancelling what receives by itself.
const BULK_RECEIVES: u32 = 32;
/// After so many chunks in a row that did not begin at a multiple of 16 of their stream, receives into memory with
/// the right offset bring it back.
const MISALIGNED_MAX: u32 = 4;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) stage: Stage,
    /// How to receive from now on.
    pub(crate) want: Receive,
    /// The receive that is with the kernel.
    pub(crate) receiving: Receiving,
    /// It was asked to end early.
    pub(crate) is_cancelling: bool,
    /// Arrived while nobody wanted it.
    pub(crate) backlog: VecDeque<Chunk>,
    /// The peer has ended its direction.
    pub(crate) input: Input,
    /// Bytes received so far, for the alignment of what comes next.
    received: u64,
    /// The bits of that which matter: none, if what comes is copied anyway.
    phase_mask: u64,
    pub(crate) window: Window,
    bulk: u32,
    misaligned: u32,
    /// Whether it is in the list of those that may have to receive.
    pub(crate) is_listed: bool,
    /// What the kernel has not sent yet. While a send is in flight nothing is added or taken.
    pub(crate) unsent: Unsent,
    pub(crate) is_sending: bool,
    /// What is sending is a poll for room.
    pub(crate) waits_for_room: bool,
    /// For sends of several segments; made when first needed, and kept.
    message: Option<Box<Message>>,
    pub(crate) wants_shutdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// An operation waits for the connection to be established.
    Connecting,
    Up,
    /// An error was reported; nothing is begun any more.
    Broken,
    /// Waits for its operations to end.
    Closing,
}

/// The receive that is with the kernel, and its memory.
#[derive(Debug)]
pub(crate) enum Receiving {
    Nothing,
    /// Goes on by itself, into provided buffers.
    Multishot,
    /// Once, into a provided buffer.
    Provided,
    /// Once, into the memory of a body; so many bytes are wanted there.
    Landing(ChunkMut, usize),
    /// Tells when there is something, which is received by a system call then: into memory with the right offset,
    /// of which nothing is held while nothing comes.
    Poll,
}

impl Receiving {
    /// The operation has ended: its memory is the driver's again.
    pub(crate) fn take_back(&mut self) {
        if let Receiving::Landing(buffer, _) = self {
            buffer.take_back();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Open,
    /// It has ended, which is not told before what arrived earlier.
    Ended,
    Told,
}

/// What a send of several segments refers to.
struct Message {
    header: libc::msghdr,
    vectors: [libc::iovec; IOVECS],
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} vectors)", self.header.msg_iovlen)
    }
}

impl Connection {
    pub(crate) fn new(socket: Socket, stage: Stage) -> Connection {
        Connection {
            socket,
            stage,
            want: Receive::More,
            receiving: Receiving::Nothing,
            is_cancelling: false,
            backlog: VecDeque::new(),
            input: Input::Open,
            received: 0,
            phase_mask: 15,
            window: Window::default(),
            bulk: 0,
            misaligned: 0,
            is_listed: false,
            unsent: Unsent::new(),
            is_sending: false,
            waits_for_room: false,
            message: None,
            wants_shutdown: false,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether the kernel has an operation of it.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.is_sending
            || self.stage == Stage::Connecting
            || !matches!(self.receiving, Receiving::Nothing)
    }

    // ---- receiving ----

    /// The offset, modulo 16, at which the next bytes lie aligned.
    pub(crate) fn phase(&self) -> usize {
        (self.received.wrapping_add(8) & self.phase_mask) as usize
    }

    /// They may lie anywhere.
    pub(crate) fn be_unaligned(&mut self) {
        self.phase_mask = 0;
    }

    pub(crate) fn count(&mut self, n: usize) {
        self.received += n as u64;
    }

    /// Bytes are about to be counted that lie in a provided buffer, from its beginning.
    pub(crate) fn note_alignment(&mut self) {
        self.misaligned = if self.phase() == 0 { 0 } else { self.misaligned + 1 };
    }

    /// Whether nothing else is under way than receiving by itself, so that what has arrived may be received without it.
    pub(crate) fn only_receives(&self) -> bool {
        self.stage == Stage::Up
            && matches!(self.receiving, Receiving::Multishot)
            && !self.is_cancelling
            && matches!(self.want, Receive::More)
            && self.backlog.is_empty()
            && self.input == Input::Open
    }

    /// Whether what receives by itself should end, because it does not receive what is wanted.
    pub(crate) fn wants_cancel(&self) -> bool {
        matches!(self.receiving, Receiving::Multishot)
            && !self.is_cancelling
            && (!matches!(self.want, Receive::More) || self.misaligned >= MISALIGNED_MAX)
    }

    pub(crate) fn begin_cancel(&mut self) {
        self.is_cancelling = true;
        self.misaligned = 0;
    }

    /// A body is about to land.
    pub(crate) fn begin_bulk(&mut self) {
        self.bulk = BULK_RECEIVES;
    }

    /// Whether the next receive is a single shot.
    pub(crate) fn is_bulk(&mut self) -> bool {
        let is_bulk = self.bulk > 0;
        self.bulk = self.bulk.saturating_sub(1);
        is_bulk
    }

    // ---- sending ----

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn queue(&mut self, batch: &mut Batch) {
        debug_assert!(!self.is_sending);
        self.unsent.add(batch);
    }

    /// Sends what is unsent without an operation, as far as the kernel takes it at once. How many bytes
    /// went.
    pub(crate) fn send_now(&mut self, tally: &Tally) -> Result<usize, TransportError> {
        debug_assert!(!self.is_sending);
        self.unsent.send_some(&self.socket, tally)
    }

    /// Sends as long as what comes next lies in a file, or in front of one, and the kernel takes it. How many
    /// bytes went. Files are sent by system calls: an operation would go through another thread's hands.
    pub(crate) fn send_files(&mut self, tally: &Tally) -> Result<usize, TransportError> {
        let mut all = 0;
        while self.unsent.segments().iter().any(|segment| segment.as_slice().is_none()) {
            match self.send_now(tally)? {
                0 => break,
                sent => all += sent,
            }
        }
        Ok(all)
    }

    /// The operation that sends what is unsent in memory, or its first part, or tells when there is room for
    /// what is in a file.
    pub(crate) fn send(&mut self) -> Option<Op> {
        let fd = self.socket.as_raw_fd();
        if self.unsent.is_file_next() {
            self.waits_for_room = true;
            return Some(Op::PollOut { fd });
        }
        let unsent = self.unsent.segments();
        if unsent.len() == 1 {
            let bytes = unsent.front()?.as_slice()?;
            let len = bytes.len().min(u32::MAX as usize) as u32;
            return Some(Op::Send { fd, from: bytes.as_ptr(), len });
        }
        let message = self.message.get_or_insert_with(Message::new);
        let mut count = 0;
        for (vector, segment) in message.vectors.iter_mut().zip(unsent) {
            let Some(bytes) = segment.as_slice() else { break };
            *vector =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            count += 1;
        }
        message.header.msg_iov = message.vectors.as_mut_ptr();
        message.header.msg_iovlen = count;
        Some(Op::SendMessage { fd, message: &raw const message.header })
    }

    /// Lets go of the first `n` bytes of what was unsent.
    pub(crate) fn forget(&mut self, n: usize) {
        debug_assert!(!self.is_sending);
        self.unsent.forget(n);
    }
}

impl Message {
    fn new() -> Box<Message> {
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Box::new(Message {
            // SAFETY: all zeroes are a message without anything. (test: `the_kernel_agrees`)
            header: unsafe { std::mem::zeroed() },
            vectors: [vector; IOVECS],
        })
    }
}
