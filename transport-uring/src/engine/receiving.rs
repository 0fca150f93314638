//! Receiving: which operation brings what is wanted, and what becomes of what arrives.

use ringcall_buf::{BLOCK_BYTES, Chunk};
use ringcall_core::{Handle, Receive};
use ringcall_net::receive_some;

use super::{Event, Uring, os_error};
use crate::connection::{Input, Receiving, Stage};
use crate::{Completion, Kernel, Op, Token};

/// How much of a body is received at once: its progress is watched.
const LAND_BYTES: usize = 256 * 1024;

impl<K: Kernel> Uring<K> {
    /// Its receive may have to be begun or ended before the kernel is entered.
    pub(super) fn list(&mut self, handle: Handle) {
        if let Some(connection) = self.connections.get(handle)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.listed.push(handle);
        }
    }

    pub(super) fn receive_as_wanted(&mut self, handle: Handle) {
        let features = self.kernel.features();
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.wants_cancel() {
            connection.begin_cancel();
            return self.cancel(Token::Receive(handle));
        }
        if connection.input != Input::Open || !matches!(connection.receiving, Receiving::Nothing) {
            return;
        }
        let (fd, phase) = (connection.fd(), connection.phase());
        let (receiving, op) = match &mut connection.want {
            Receive::Pause => return,
            Receive::More if features.provided_buffers && phase == 0 => {
                let multishot = features.multishot_receive && !connection.is_bulk();
                let receiving = if multishot { Receiving::Multishot } else { Receiving::Provided };
                (receiving, Op::ReceiveProvided { fd, multishot })
            }
            Receive::Land(..) if features.provided_buffers => {
                let want = std::mem::replace(&mut connection.want, Receive::Pause);
                let Receive::Land(mut buffer, len) = want else { return };
                connection.begin_bulk();
                let (into, room) = buffer.lend();
                let now = room.min(len).min(LAND_BYTES) as u32;
                (Receiving::Landing(buffer, len), Op::Receive { fd, into, len: now })
            }
            _ => (Receiving::Poll, Op::PollIn { fd, multishot: false }),
        };
        connection.receiving = receiving;
        self.begin(Token::Receive(handle), op);
    }

    pub(super) fn received(
        &mut self,
        handle: Handle,
        completion: Completion,
        chunk: Option<Chunk>,
        events: &mut Vec<Event>,
    ) {
        let Some(connection) = self.connections.get(handle) else { return };
        let receiving = match completion.more {
            true => None,
            false => {
                connection.is_cancelling = false;
                let mut ended = std::mem::replace(&mut connection.receiving, Receiving::Nothing);
                ended.take_back();
                Some(ended)
            }
        };
        if connection.stage != Stage::Up {
            return self.release_if_idle(handle, events);
        }
        match (completion.result, receiving) {
            (0.., Some(Receiving::Poll)) => self.receive_now(handle, events),
            (1.., Some(Receiving::Landing(mut buffer, _))) => {
                let n = (completion.result as usize).min(buffer.missing());
                buffer.fill(n);
                connection.count(n);
                events.push(Event::Landed(handle, buffer, n));
            }
            (1.., _) => {
                if let Some(chunk) = chunk {
                    connection.note_alignment();
                    self.deliver(handle, chunk, events);
                }
            }
            (0, ended) => {
                connection.input = Input::Ended;
                if let Some(Receiving::Landing(..)) = ended {
                    // Nobody paused it: it waited for the body.
                    connection.want = Receive::More;
                }
            }
            (error, ended) => self.not_received(handle, error, ended, events),
        }
        self.list(handle);
    }

    /// A receive ended without data.
    fn not_received(
        &mut self,
        handle: Handle,
        error: i32,
        ended: Option<Receiving>,
        events: &mut Vec<Event>,
    ) {
        match -error {
            // Cancelled, interrupted, or out of memory that comes back: begun again as wanted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            libc::ENOMEM => self.tally.memory_short.add(),
            libc::ENOBUFS => {
                self.tally.buffers_short.add();
                self.buffers.ran_out();
            }
            _ => return self.broken(handle, os_error(error), events),
        }
        // The body's memory goes back to where the next receive takes it from.
        if let Some(Receiving::Landing(buffer, len)) = ended
            && let Some(connection) = self.connections.get(handle)
            && matches!(connection.want, Receive::Pause)
        {
            connection.want = Receive::Land(buffer, len);
        }
    }

    /// Data has arrived: hands it up as wanted, keeps what is not.
    pub(super) fn deliver(&mut self, handle: Handle, chunk: Chunk, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        connection.count(chunk.len());
        if matches!(connection.want, Receive::More) && connection.backlog.is_empty() {
            return events.push(Event::Received(handle, chunk));
        }
        connection.backlog.push_back(chunk);
        self.deliver_backlog(handle, events);
    }

    pub(super) fn deliver_backlog(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        match &mut connection.want {
            Receive::Pause => {}
            Receive::More => {
                events.extend(
                    connection.backlog.drain(..).map(|chunk| Event::Received(handle, chunk)),
                );
            }
            Receive::Land(..) if connection.backlog.is_empty() => {}
            Receive::Land(buffer, len) => {
                let mut n = 0;
                while let Some(chunk) = connection.backlog.front_mut()
                    && n < *len
                {
                    let part = chunk.len().min(*len - n);
                    buffer.extend_from_slice(&chunk.split_to(part));
                    n += part;
                    if chunk.is_empty() {
                        connection.backlog.pop_front();
                    }
                }
                if let Receive::Land(buffer, _) =
                    std::mem::replace(&mut connection.want, Receive::Pause)
                {
                    events.push(Event::Landed(handle, buffer, n));
                }
            }
        }
        let is_over = connection.input == Input::Ended && connection.backlog.is_empty();
        if is_over && !matches!(connection.want, Receive::Pause) {
            connection.input = Input::Told;
            connection.want = Receive::Pause;
            events.push(Event::InputEnd(handle));
        }
    }

    /// There is something to receive, and no buffer of this connection is with the kernel.
    fn receive_now(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        let phase = connection.phase();
        let received = match &mut connection.want {
            Receive::Pause => return,
            Receive::More => receive_some(
                &connection.socket,
                self.arena.spare(BLOCK_BYTES / 4, phase),
                &self.tally,
            ),
            Receive::Land(buffer, len) => {
                let room = buffer.missing().min(*len);
                receive_some(&connection.socket, &mut buffer.spare()[..room], &self.tally)
            }
        };
        match received {
            Ok(None) => {}
            Ok(Some(0)) => connection.input = Input::Ended,
            Ok(Some(n)) => match std::mem::replace(&mut connection.want, Receive::Pause) {
                Receive::Land(mut buffer, _) => {
                    connection.count(n);
                    buffer.fill(n);
                    events.push(Event::Landed(handle, buffer, n));
                }
                want => {
                    connection.want = want;
                    let chunk = self.arena.commit(n);
                    self.deliver(handle, chunk, events);
                }
            },
            Err(error) => self.broken(handle, error, events),
        }
    }
}
