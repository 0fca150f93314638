//! Accepting: an operation for each listener, as long as its gate is open.

use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ringcall_core::{Listener, TransportError};
use ringcall_net::{Accepted, Handover, ListenSocket};
use socket2::Socket;

use super::{Event, Uring, now};
use crate::{Completion, Kernel, Op, Token};

/// What of a listener is with the kernel.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) generation: u32,
    is_accepting: bool,
    /// Goes when its operation has ended.
    pub(super) is_leaving: bool,
}

impl<K: Kernel> Uring<K> {
    pub(super) fn accept_from(&mut self, socket: ListenSocket) -> Listener {
        self.listener_generation += 1;
        let generation = self.listener_generation & 0x0fff_ffff;
        let state = Accepting { generation, is_accepting: false, is_leaving: false };
        let listener = self.listeners.add(socket, state);
        self.accept_on(listener);
        listener
    }

    pub(super) fn leave(&mut self, listener: Listener) {
        let Some(listening) = self.listeners.get(listener) else { return };
        let Accepting { generation, is_accepting, .. } = listening.state;
        if !is_accepting {
            let mut done = std::mem::take(&mut self.done);
            self.forget_listener(listener, &mut done);
            self.done = done;
            return;
        }
        listening.state.is_leaving = true;
        self.cancel(Token::Accept { listener: listener.0, generation });
    }

    /// Closes a listener of which nothing is in flight, after a look at what still waits.
    fn forget_listener(&mut self, listener: Listener, events: &mut Vec<Event>) {
        if let Some(listening) = self.listeners.remove(listener) {
            let waiting = std::iter::from_fn(|| listening.socket.accept_waiting());
            events.extend(waiting.map(|socket| Event::Accepted(listener, socket)));
        }
    }

    pub(super) fn accepted(
        &mut self,
        listener: u32,
        generation: u32,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        // Ours to close, whoever wanted it: success after a cancel happens.
        let accepted = match completion.result {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it. (test: `the_kernel_agrees`)
            fd @ 0.. => Ok(Socket::from(unsafe { OwnedFd::from_raw_fd(fd) })),
            error => Err(Error::from_raw_os_error(-error)),
        };
        let listener = Listener(listener);
        let listening = self.listeners.get(listener);
        let Some(state) = listening.map(|l| &mut l.state).filter(|s| s.generation == generation)
        else {
            return;
        };
        state.is_accepting = completion.more;
        let is_leaving = state.is_leaving;
        // Whoever was accepted before it ended is served; its own end is no failure.
        let outcome = match accepted {
            Err(_) if is_leaving => Accepted::Nobody,
            accepted => self.what_came_of_it(listener, accepted),
        };
        match outcome {
            Accepted::Connection(socket) => events.push(Event::Accepted(listener, socket)),
            Accepted::Useless | Accepted::Nobody => {}
            Accepted::Closed => return,
        }
        match is_leaving {
            true if !completion.more => self.forget_listener(listener, events),
            true => {}
            false => self.accept_on(listener),
        }
    }

    fn what_came_of_it(
        &mut self,
        listener: Listener,
        accepted: std::io::Result<Socket>,
    ) -> Accepted {
        let accepted = match accepted {
            // The operation was given up, whatever waits there.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return Accepted::Nobody,
            // An operation waits, unless it finds nobody however often it is told that somebody is there: a unix
            // socket that was shut down is readable for ever.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Error::from_raw_os_error(libc::EINVAL))
            }
            accepted => accepted,
        };
        self.listeners.accepted(listener, accepted, now())
    }

    fn accept_on(&mut self, listener: Listener) {
        let multishot = self.kernel.features().multishot_accept;
        let Some(listening) = self.listeners.get(listener) else { return };
        let state = &mut listening.state;
        if state.is_accepting || state.is_leaving {
            return;
        }
        state.is_accepting = true;
        let token = Token::Accept { listener: listener.0, generation: state.generation };
        let fd = listening.socket.socket().as_raw_fd();
        self.begin(token, Op::Accept { fd, multishot });
    }

    /// Accepts again where gates have opened.
    pub(super) fn reopen(&mut self) {
        while self.listeners.any_closed()
            && let Some(listener) = self.listeners.reopened(now())
        {
            self.accept_on(listener);
        }
    }

    /// How long until the first closed gate opens.
    pub(super) fn gate_timeout(&mut self) -> Option<Duration> {
        // The machine is not asked for the time in vain.
        if self.listeners.any_closed() { self.listeners.timeout(now()) } else { None }
    }
}

impl<K: Kernel> Handover for Uring<K> {
    fn listen_on(&mut self, socket: Socket) -> Result<Listener, TransportError> {
        Ok(self.accept_from(ListenSocket::from_socket(socket)?))
    }

    fn share(&mut self, listener: Listener) -> Result<Socket, TransportError> {
        self.listeners.get(listener).ok_or(TransportError::BadAddress)?.socket.share()
    }
}
