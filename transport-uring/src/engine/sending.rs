//! Sending: by system calls or by operations, one at a time for each connection.

use std::net::Shutdown;

use ringcall_core::{Batch, Handle, TransportError};

use super::{Event, Uring, now, os_error};
use crate::connection::Stage;
use crate::{Kernel, Token};

impl<K: Kernel> Uring<K> {
    pub(super) fn send_batch(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        let Some(connection) = self.connections.get(handle) else {
            batch.clear();
            return false;
        };
        if connection.stage != Stage::Up {
            batch.clear();
            return false;
        }
        let len = batch.len();
        let has_files = batch.has_external();
        connection.queue(batch);
        let mut events = std::mem::take(&mut self.done);
        let mut is_sent = false;
        self.sends += 1;
        if has_files {
            self.send_files(handle, false, &mut events);
            self.done = events;
            return false;
        }
        if self.sends_before < self.config.direct_sends {
            match connection.send_now(&self.tally) {
                Ok(sent) if sent == len => is_sent = true,
                // The rest is an operation.
                Ok(0) => self.send_on(handle, &mut events),
                Ok(bytes) => {
                    events.push(Event::Sent { handle, bytes, done: false });
                    self.send_on(handle, &mut events);
                }
                Err(error) => self.broken(handle, error, &mut events),
            }
        } else {
            self.send_on(handle, &mut events);
        }
        self.done = events;
        is_sent
    }

    /// Sends what there is up to the end of the last file, as far as the kernel takes it, and has the rest sent
    /// by operations. `was_awaited`: an operation has said that there is room.
    fn send_files(&mut self, handle: Handle, was_awaited: bool, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        let sent = connection.send_files(&self.tally);
        let unreadable = std::iter::from_fn(|| connection.unsent.pop_unreadable());
        events.extend(unreadable.map(|(owner, error)| Event::Unreadable { handle, owner, error }));
        match sent {
            // It had not waited: see `retry_later`.
            Ok(0) if was_awaited && connection.has_unsent() => self.retry_later(handle),
            Ok(bytes) => self.progressed(handle, bytes, events),
            Err(error) => self.broken(handle, error, events),
        }
    }

    /// Bytes have left; the rest follows.
    fn progressed(&mut self, handle: Handle, bytes: usize, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        let done = !connection.has_unsent();
        if done && connection.wants_shutdown {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        if bytes > 0 || done {
            events.push(Event::Sent { handle, bytes, done });
        }
        if !done {
            self.send_on(handle, events);
        }
    }

    pub(super) fn sent(&mut self, handle: Handle, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        connection.is_sending = false;
        let was_poll = std::mem::take(&mut connection.waits_for_room);
        if connection.stage != Stage::Up {
            return self.release_if_idle(handle, events);
        }
        match result {
            0.. if was_poll => self.send_files(handle, true, events),
            0.. => {
                let bytes = result as usize;
                connection.forget(bytes);
                if connection.has_unsent() {
                    self.tally.short_sends.add();
                }
                self.progressed(handle, bytes, events);
            }
            error => match -error {
                libc::EINTR | libc::ECANCELED => self.send_on(handle, events),
                libc::EAGAIN => {
                    self.tally.short_sends.add();
                    self.retry_later(handle);
                }
                libc::ENOBUFS | libc::ENOMEM => {
                    self.tally.memory_short.add();
                    self.retry_later(handle);
                }
                _ => self.broken(handle, os_error(error), events),
            },
        }
    }

    /// The kernel is out of memory; or the socket is full and its peer has ended its own direction: every
    /// poll of a ring then says that there is news (POLLRDHUP), so that no operation can wait for room.
    fn retry_later(&mut self, handle: Handle) {
        self.retries.push(handle);
        self.retry_at.get_or_insert_with(|| now() + self.config.retry_after);
    }

    pub(super) fn retry(&mut self, events: &mut Vec<Event>) {
        if self.retry_at.is_some_and(|at| now() < at) {
            return;
        }
        self.retry_at = None;
        for _ in 0..self.retries.len() {
            let Some(handle) = self.retries.pop() else { break };
            self.send_on(handle, events);
        }
    }

    pub(super) fn send_on(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.stage != Stage::Up || connection.is_sending || !connection.has_unsent() {
            return;
        }
        match connection.send() {
            Some(op) => {
                connection.is_sending = true;
                self.begin(Token::Send(handle), op);
            }
            None => self.broken(handle, TransportError::Unsupported, events),
        }
    }
}
