//! The sockets at which an engine listens, and what becomes of those that it accepts.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringcall_core::{Address, Listener, TransportError};
use socket2::Socket;

use crate::socket::is_of_one_connection;
use crate::{AcceptGate, ListenSocket, Tally, set_up_accepted, transport_error};

/// Listening sockets by listener, each with a state `S` of its engine. The place of one that is gone is
/// used again.
#[derive(Debug)]
pub struct Listeners<S> {
    slots: Vec<Option<Listening<S>>>,
    /// Whether a gate may be closed.
    any_closed: bool,
    tally: Arc<Tally>,
}

/// One of [`Listeners`].
#[derive(Debug)]
pub struct Listening<S> {
    /// Where connections wait.
    pub socket: ListenSocket,
    /// What the engine knows of it.
    pub state: S,
    gate: AcceptGate,
    is_closed: bool,
}

/// What accepting came to.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, set up.
    Connection(Socket),
    /// A connection that is of no use: it died while it waited, or its network did. Take the next one.
    Useless,
    /// Nobody waits.
    Nobody,
    /// Nothing can be accepted before [`Listeners::reopened`] says so.
    Closed,
}

impl<S> Default for Listeners<S> {
    fn default() -> Listeners<S> {
        Listeners::new(Arc::default())
    }
}

impl<S> Listeners<S> {
    /// None. What goes wrong is counted in `tally`.
    #[must_use]
    pub fn new(tally: Arc<Tally>) -> Listeners<S> {
        Listeners { slots: Vec::new(), any_closed: false, tally }
    }

    /// One more.
    pub fn add(&mut self, socket: ListenSocket, state: S) -> Listener {
        let index = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let gate = AcceptGate::new();
        self.slots[index] = Some(Listening { socket, state, gate, is_closed: false });
        Listener(index as u32)
    }

    /// One of them.
    pub fn get(&mut self, listener: Listener) -> Option<&mut Listening<S>> {
        self.slots.get_mut(listener.0 as usize)?.as_mut()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Listener, &mut Listening<S>)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            slot.as_mut().map(|listening| (Listener(index as u32), listening))
        })
    }

    /// Where one of them listens.
    #[must_use]
    pub fn local_address(&self, listener: Listener) -> Option<Address> {
        let listening = self.slots.get(listener.0 as usize)?.as_ref()?;
        Some(listening.socket.address().clone())
    }

    /// One less. Dropping what is returned closes the socket.
    pub fn remove(&mut self, listener: Listener) -> Option<Listening<S>> {
        self.slots.get_mut(listener.0 as usize)?.take()
    }

    /// What to make of the system's answer to an accept. Closes the gate when descriptors or memory ran
    /// out, and for whatever else is not the fault of one connection: the next accept would find the same.
    pub fn accepted(
        &mut self,
        listener: Listener,
        accepted: io::Result<Socket>,
        now: Instant,
    ) -> Accepted {
        let Some(Some(listening)) = self.slots.get_mut(listener.0 as usize) else {
            return Accepted::Nobody;
        };
        let error = match accepted {
            Ok(socket) => {
                listening.gate.accepted();
                if set_up_accepted(&socket, &listening.socket).is_ok() {
                    return Accepted::Connection(socket);
                }
                self.tally.accept_errors.add();
                return Accepted::Useless;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::Nobody,
            Err(error) => error,
        };
        self.tally.accept_errors.add();
        if is_of_one_connection(&error) {
            return Accepted::Useless;
        }
        if transport_error(&error) != TransportError::Exhausted {
            listening.gate.failed(now, &error);
        } else if listening.gate.exhausted(listening.socket.socket(), now, &error) {
            self.tally.shed.add();
        }
        listening.is_closed = true;
        self.any_closed = true;
        Accepted::Closed
    }

    /// Whether it may accept.
    #[must_use]
    pub fn is_open(&self, listener: Listener) -> bool {
        let listening = self.slots.get(listener.0 as usize).and_then(Option::as_ref);
        listening.is_some_and(|listening| !listening.is_closed)
    }

    /// Whether [`reopened`](Listeners::reopened) has to be asked.
    #[must_use]
    pub fn any_closed(&self) -> bool {
        self.any_closed
    }

    /// A listener that may accept again, if there is one. To be asked until there is none.
    pub fn reopened(&mut self, now: Instant) -> Option<Listener> {
        self.any_closed = false;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(listening) = slot.as_mut().filter(|listening| listening.is_closed) else {
                continue;
            };
            if listening.gate.closed_for(now).is_none() {
                listening.is_closed = false;
                // There may be more behind it.
                self.any_closed = true;
                return Some(Listener(index as u32));
            }
            self.any_closed = true;
        }
        None
    }

    /// How long until the first closed gate opens.
    pub fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if !self.any_closed {
            return None;
        }
        let closed = self.slots.iter_mut().flatten().filter(|listening| listening.is_closed);
        closed.map(|listening| listening.gate.closed_for(now).unwrap_or_default()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ListenOptions;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
    fn e07_a_listener_that_ran_out_of_descriptors_opens_again() {
        let mut listeners = Listeners::new(Arc::default());
        let bind = || {
            ListenSocket::bind(&"127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap()
        };
        let [first, second] = [bind(), bind()].map(|socket| listeners.add(socket, ()));
        let now = Instant::now();
        assert_eq!((listeners.reopened(now), listeners.timeout(now)), (None, None));
        let out = || Err(io::Error::from(rustix::io::Errno::MFILE));
        for listener in [first, second, first] {
            assert!(matches!(listeners.accepted(listener, out(), now), Accepted::Closed));
        }
        let soon = listeners.timeout(now).unwrap();
        assert_eq!(listeners.reopened(now), None);
        assert!(listeners.any_closed());
        assert_eq!(listeners.reopened(now + soon), Some(second), "closed once, it opens first");
        assert_eq!(listeners.reopened(now + soon), None);
        assert_eq!(listeners.reopened(now + soon * 2), Some(first));
        assert_eq!(listeners.reopened(now + soon * 2), None);
        assert!(!listeners.any_closed());
        let died = Err(io::Error::from(rustix::io::Errno::CONNABORTED));
        assert!(matches!(listeners.accepted(first, died, now), Accepted::Useless));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
    fn e07_what_ails_the_listener_closes_it_and_what_ails_a_connection_does_not() {
        use rustix::io::Errno;
        let mut listeners = Listeners::new(Arc::default());
        let address = "127.0.0.1:0".parse().unwrap();
        let socket = ListenSocket::bind(&address, ListenOptions::default()).unwrap();
        let Address::Tcp(to) = *socket.address() else { panic!("it is tcp") };
        let _waits = std::net::TcpStream::connect(to).unwrap();
        let listener = listeners.add(socket, ());
        let mut now = Instant::now();
        for errno in [Errno::INVAL, Errno::PERM, Errno::ACCESS, Errno::NOTSOCK, Errno::IO] {
            let failed = listeners.accepted(listener, Err(errno.into()), now);
            assert!(matches!(failed, Accepted::Closed), "{errno}");
            now += listeners.timeout(now).unwrap();
            assert_eq!(listeners.reopened(now), Some(listener));
        }
        assert_eq!(listeners.tally.shed.get(), 0, "nobody is shed for that");
        let waiting = listeners.get(listener).unwrap().socket.accept_waiting();
        assert!(waiting.is_some());
        // As accept(2) lists them.
        for errno in [
            [Errno::NETDOWN, Errno::PROTO, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::NONET],
            [
                Errno::HOSTUNREACH,
                Errno::OPNOTSUPP,
                Errno::NETUNREACH,
                Errno::CONNABORTED,
                Errno::INTR,
            ],
        ]
        .concat()
        {
            let failed = listeners.accepted(listener, Err(errno.into()), now);
            assert!(matches!(failed, Accepted::Useless), "{errno}");
        }
    }

    #[test]
    fn a_place_is_used_again() {
        let mut listeners = Listeners::new(Arc::default());
        let add = |listeners: &mut Listeners<u8>, state| {
            let address = "127.0.0.1:0".parse().unwrap();
            listeners.add(ListenSocket::bind(&address, ListenOptions::default()).unwrap(), state)
        };
        let (first, second) = (add(&mut listeners, 1), add(&mut listeners, 2));
        assert_eq!(listeners.remove(first).map(|gone| gone.state), Some(1));
        assert_eq!(listeners.local_address(first), None);
        assert_eq!(add(&mut listeners, 3), first);
        let states: Vec<_> = listeners.iter_mut().map(|(at, one)| (at, one.state)).collect();
        assert_eq!(states, [(first, 3), (second, 2)]);
    }
}
