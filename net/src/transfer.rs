//! One receive and one send that never block.

use std::collections::VecDeque;
use std::io::IoSlice;

use ringcall_core::{Batch, Chunk, External, ObjectError, Segment, TransportError};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::Socket;

use crate::quiet_pipe::QuietPipe;
use crate::{SharedFile, Tally, transport_error};

/// How many segments go into one system call.
const IOVECS: usize = 64;

/// Receives into `room`; `None` if there is nothing.
///
/// # Errors
/// When the connection is broken.
pub fn receive_some(
    socket: &Socket,
    room: &mut [u8],
    tally: &Tally,
) -> Result<Option<usize>, TransportError> {
    loop {
        match recv(socket, &mut *room, RecvFlags::DONTWAIT) {
            Ok((n, _)) => return Ok(Some(n)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            // Out of kernel memory passes; the socket stays readable.
            Err(Errno::NOBUFS | Errno::NOMEM) => {
                tally.memory_short.add();
                return Ok(None);
            }
            Err(errno) => return Err(transport_error(&errno.into())),
        }
    }
}

/// Segments that are being sent, from their front on.
#[derive(Debug, Default)]
pub struct Unsent {
    segments: VecDeque<Segment>,
    /// Ranges that could not be read, by their owners.
    unreadable: Vec<(u64, ObjectError)>,
}

impl Unsent {
    /// Nothing to send.
    #[must_use]
    pub const fn new() -> Unsent {
        Unsent { segments: VecDeque::new(), unreadable: Vec::new() }
    }

    /// Whether all is sent.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// What is not sent, in order.
    #[must_use]
    pub fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// Adds a batch, which is empty then.
    pub fn add(&mut self, batch: &mut Batch) {
        batch.drain_into(&mut self.segments);
    }

    /// Whether what comes first lies in a file.
    #[inline]
    #[must_use]
    pub fn is_file_next(&self) -> bool {
        matches!(self.segments.front(), Some(Segment::External(_)))
    }

    /// The next range that could not be read: its owner, and why. Zeros are sent for it.
    pub fn pop_unreadable(&mut self) -> Option<(u64, ObjectError)> {
        self.unreadable.pop()
    }

    /// Sends the first segments in one call, from memory or from a file; how many bytes the kernel took.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send_some(&mut self, socket: &Socket, tally: &Tally) -> Result<usize, TransportError> {
        let sent = match self.segments.front() {
            Some(Segment::External(range)) => match send_file(socket, range, tally) {
                Ok(sent) => sent,
                Err(NotSent::Broken(error)) => return Err(error),
                Err(NotSent::Unreadable(error)) => {
                    self.unreadable.push((range.owner(), error));
                    self.replace_by_zeros();
                    send_some(socket, self.segments.iter(), tally)?
                }
            },
            _ => send_some(socket, self.segments.iter(), tally)?,
        };
        self.forget(sent);
        Ok(sent)
    }

    /// Lets go of the first `n` bytes.
    pub fn forget(&mut self, mut n: usize) {
        while let Some(segment) = self.segments.front_mut() {
            if n < segment.len() {
                if n > 0 {
                    let _sent = segment.split_to(n);
                }
                return;
            }
            n -= segment.len();
            self.segments.pop_front();
        }
    }

    /// What is left of the range in front has been announced, so its place is filled.
    fn replace_by_zeros(&mut self) {
        let Some(range) = self.segments.pop_front() else { return };
        let mut left = range.len();
        while left > 0 {
            let n = left.min(ZEROS.len());
            self.segments.push_front(Chunk::from_static(&ZEROS[..n]).into());
            left -= n;
        }
    }
}

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

enum NotSent {
    Unreadable(ObjectError),
    Broken(TransportError),
}

/// Sends of a range as much as the socket has room for.
fn send_file(socket: &Socket, range: &External, tally: &Tally) -> Result<usize, NotSent> {
    let Some(file) = SharedFile::fd_of(&**range.object()) else {
        return Err(NotSent::Unreadable(ObjectError::Os(Errno::OPNOTSUPP.raw_os_error())));
    };
    let quiet = QuietPipe::new();
    loop {
        let mut offset = range.offset();
        let sent = sendfile(socket, file, Some(&mut offset), range.len());
        // Also behind a part that was sent a signal may wait.
        if sent != Ok(range.len()) {
            quiet.take();
        }
        match sent {
            Ok(0) => return Err(NotSent::Unreadable(ObjectError::Ended)),
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                tally.short_sends.add();
                return Ok(0);
            }
            Err(Errno::NOBUFS | Errno::NOMEM) => {
                tally.memory_short.add();
                return Ok(0);
            }
            // Of these the socket is at fault, of all others the file.
            Err(errno @ (Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT)) => {
                return Err(NotSent::Broken(transport_error(&errno.into())));
            }
            Err(errno) => {
                return Err(NotSent::Unreadable(ObjectError::Os(errno.raw_os_error())));
            }
        }
    }
}

const FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// Sends the first segments that are in memory in one call; how many bytes the kernel took.
///
/// # Errors
/// When the connection is broken.
pub fn send_some<'a>(
    socket: &Socket,
    mut segments: impl Iterator<Item = &'a Segment> + Clone,
    tally: &Tally,
) -> Result<usize, TransportError> {
    let all = segments.clone();
    if let (Some(Some(one)), None) = (segments.next().map(Segment::as_slice), segments.next()) {
        return taken(one.len(), tally, || send(socket, one, FLAGS));
    }
    send_many(socket, all, tally)
}

// Apart: there is room for many to be filled first.
#[inline(never)]
fn send_many<'a>(
    socket: &Socket,
    segments: impl Iterator<Item = &'a Segment>,
    tally: &Tally,
) -> Result<usize, TransportError> {
    let mut slices = [IoSlice::new(&[]); IOVECS];
    let (mut count, mut len) = (0, 0);
    let mut flags = FLAGS;
    for (slice, segment) in slices.iter_mut().zip(segments) {
        let Some(bytes) = segment.as_slice() else {
            // What is in a file goes into the same packet.
            flags |= SendFlags::MORE;
            break;
        };
        *slice = IoSlice::new(bytes);
        count += 1;
        len += bytes.len();
    }
    taken(len, tally, || match &slices[..count] {
        [one] => send(socket, one, flags),
        many => sendmsg(socket, many, &mut SendAncillaryBuffer::default(), flags),
    })
}

/// Sends, and says how many of `len` bytes the kernel took.
fn taken(
    len: usize,
    tally: &Tally,
    mut send: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, TransportError> {
    loop {
        match send() {
            Ok(n) => {
                if n < len {
                    tally.short_sends.add();
                }
                return Ok(n);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                tally.short_sends.add();
                return Ok(0);
            }
            Err(Errno::NOBUFS | Errno::NOMEM) => {
                tally.memory_short.add();
                return Ok(0);
            }
            Err(errno) => return Err(transport_error(&errno.into())),
        }
    }
}
