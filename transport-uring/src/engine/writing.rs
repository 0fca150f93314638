//! Writing what was received to files, from where it was received.

use std::os::fd::AsRawFd;

use ringcall_core::{Handle, ObjectError, Write, Written};
use ringcall_net::SharedFile;

use super::{Event, Uring};
use crate::{Kernel, Op, Token};

/// A write that is with the kernel, and what it refers to: the bytes and the file stay until it has ended, also
/// when their connection does not.
#[derive(Debug)]
pub(super) struct Writing {
    connection: Handle,
    write: Write,
    /// How many bytes are written.
    done: usize,
}

impl Writing {
    /// The operation that writes what is left; `None` if that is no file.
    fn op(&self) -> Option<Op> {
        let fd = SharedFile::fd_of(&*self.write.object)?.as_raw_fd();
        let left = self.write.bytes.get(self.done..)?;
        let (from, len) = (left.as_ptr(), left.len().min(u32::MAX as usize) as u32);
        Some(Op::Write { fd, from, len, offset: self.write.offset + self.done as u64 })
    }
}

impl<K: Kernel> Uring<K> {
    pub(super) fn begin_write(&mut self, connection: Handle, write: Write) -> Option<Written> {
        let writing = Writing { connection, write, done: 0 };
        let Some(op) = writing.op() else {
            let Writing { write, .. } = writing;
            return Some(write.done(write.object.write_at(write.offset, &write.bytes)));
        };
        let index = self.writings.vacant();
        self.writings.fill(index, writing);
        self.begin(Token::Write(index), op);
        None
    }

    pub(super) fn written(&mut self, index: Handle, result: i32, events: &mut Vec<Event>) {
        let is_ending = self.is_ending;
        let Some(writing) = self.writings.get(index) else { return };
        let passes = matches!(-result, libc::EINTR | libc::EAGAIN | libc::ECANCELED);
        let result = match result {
            1.. => {
                writing.done += result as usize;
                Ok(())
            }
            0 => Err(ObjectError::NoRoom),
            _ if passes && !is_ending => Ok(()),
            error => Err(ObjectError::Os(-error)),
        };
        let is_whole = writing.done >= writing.write.bytes.len();
        if result.is_ok()
            && !is_whole
            && let Some(op) = writing.op()
        {
            return self.begin(Token::Write(index), op);
        }
        let written = writing.write.done(result);
        events.push(Event::Written(writing.connection, written));
        drop(self.writings.take(index));
        self.writings.reuse(index);
    }
}
