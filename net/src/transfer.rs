//! One receive and one send that never block.

use std::io::IoSlice;

use ringcall_core::{Segment, TransportError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::Socket;

use crate::{Tally, transport_error};

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

/// Sends the first segments in one call; how many bytes the kernel took.
///
/// # Errors
/// When the connection is broken, or a segment is not in memory.
pub fn send_some<'a>(
    socket: &Socket,
    segments: impl Iterator<Item = &'a Segment>,
    tally: &Tally,
) -> Result<usize, TransportError> {
    let mut slices = [IoSlice::new(&[]); IOVECS];
    let (mut count, mut len) = (0, 0);
    for (slice, segment) in slices.iter_mut().zip(segments) {
        // File bodies are not made by anybody yet.
        let bytes = segment.as_slice().ok_or(TransportError::Unsupported)?;
        *slice = IoSlice::new(bytes);
        count += 1;
        len += bytes.len();
    }
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match &slices[..count] {
            [one] => send(socket, one, flags),
            many => sendmsg(socket, many, &mut SendAncillaryBuffer::default(), flags),
        };
        match sent {
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
