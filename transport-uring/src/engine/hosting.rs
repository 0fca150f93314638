//! Waiting: for completions and the bell, in this engine's own sleep or as a part of another loop.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use ringcall_core::{Park, TransportError};
use ringcall_net::{Doorbell, Hosted};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Uring, now};
use crate::{Kernel, Op, Token};

impl<K: Kernel> Park for Uring<K> {
    type Bell = Doorbell;

    fn arm(&mut self) {
        self.bell.arm();
    }

    fn park(&mut self, timeout: Option<Duration>) {
        if self.is_hosted {
            return self.park_hosted(timeout);
        }
        let mut events = std::mem::take(&mut self.done);
        self.prepare(&mut events);
        let timeout = match (timeout, self.own_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if events.is_empty() {
            self.has_waited = timeout != Some(Duration::ZERO);
            self.kernel.enter(timeout);
        }
        self.done = events;
        self.bell.disarm();
    }

    fn bell(&self) -> Doorbell {
        self.bell.clone()
    }
}

impl<K: Kernel> Hosted for Uring<K> {
    /// The ring's own fd does not become readable while its work is deferred to this thread; an eventfd
    /// that is registered with it does.
    fn host(&mut self) -> Result<(), TransportError> {
        if self.is_hosted {
            return Ok(());
        }
        if !self.kernel.notify(self.bell.fd().as_raw_fd()) {
            return Err(TransportError::Unsupported);
        }
        self.is_hosted = true;
        // The other loop sees the bell by itself.
        self.cancel(Token::Bell);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    fn rest(&mut self) -> bool {
        // In this order: the kernel writes once for all work that is deferred, so what came before the
        // fd was emptied must be seen below.
        self.bell.drain();
        self.bell.arm();
        !self.has_something()
    }

    fn wake(&mut self) {
        self.bell.disarm();
    }

    fn timeout(&mut self) -> Option<Duration> {
        self.own_timeout()
    }
}

impl<K: Kernel> Uring<K> {
    /// How long until something is due that no operation tells of.
    fn own_timeout(&mut self) -> Option<Duration> {
        let retry = self.retry_at.map(|at| at.saturating_duration_since(now()));
        [self.gate_timeout(), retry].into_iter().flatten().min()
    }

    /// Parks although another loop hosts the engine: nothing in the ring watches the bell any more.
    fn park_hosted(&mut self, timeout: Option<Duration>) {
        if !self.has_something() {
            let timeout = match (timeout, self.own_timeout()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let mut fds = [PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        }
        self.bell.disarm();
        self.bell.drain();
    }

    /// Begins what is to be begun. Whether something can be reaped then.
    fn has_something(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.done);
        self.prepare(&mut events);
        if self.kernel.wants_enter() {
            self.kernel.enter(Some(Duration::ZERO));
        }
        let completion = self.kernel.next();
        let any = completion.is_some() || !events.is_empty() || !self.listed.is_empty();
        if let Some(completion) = completion {
            self.complete(completion, &mut events);
        }
        self.done = events;
        any
    }

    pub(super) fn watch_bell(&mut self) {
        self.bell_is_armed = true;
        let fd = self.bell.fd().as_raw_fd();
        self.begin(Token::Bell, Op::PollIn { fd, multishot: true });
    }
}
