//! The engine of a simulated shard.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{
    Address, Batch, Handle, Listener, Memory, Park, Receive, Transport, TransportError,
    TransportEvent,
};
use ringcall_net::{Doorbell, Handover, Hosted, Tally};
use ringcall_sim::{Accepted, SimTransport};
use socket2::{Domain, Socket, Type};

use super::here;

/// Sockets of the simulated network. Its world turns the shard, so it never waits.
pub(crate) struct Simulated {
    transport: SimTransport,
    bell: Doorbell,
    tally: Arc<Tally>,
    /// Connections that were accepted and not adopted yet. Engines hand on real sockets, so that they need not
    /// agree on a type: one end of a pair stands for the connection, the other tells when it is dropped.
    pending: Vec<Pending>,
    /// For reaping.
    events: Vec<TransportEvent<Accepted>>,
}

struct Pending {
    token: i32,
    ours: Socket,
    accepted: Option<Accepted>,
}

impl Simulated {
    /// The engine of the node that this thread is, if it is in a simulation.
    pub(crate) fn here(memory: &Memory) -> Option<Result<Simulated, String>> {
        let here = here::current()?;
        let bell = Doorbell::new().map_err(|error| format!("eventfd: {error}"));
        Some(bell.map(|bell| Simulated {
            transport: here.stage.transport(here.node, memory),
            bell,
            tally: Arc::default(),
            pending: Vec::new(),
            events: Vec::new(),
        }))
    }

    /// See [`SimTransport::die`].
    pub(crate) fn die(&mut self, silently: bool) {
        self.transport.die(silently);
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// A socket that stands for a connection.
    fn token(pending: &mut Vec<Pending>, accepted: Accepted) -> Socket {
        let (theirs, ours) = Socket::pair(Domain::UNIX, Type::STREAM, None)
            .expect("the simulation needs two descriptors for a connection that is being accepted");
        ours.set_nonblocking(true).expect("it is a socket");
        pending.push(Pending { token: theirs.as_raw_fd(), ours, accepted: Some(accepted) });
        theirs
    }

    /// Connections whose sockets were dropped are closed.
    fn forget_dropped(&mut self) {
        for pending in &mut self.pending {
            let is_dropped = matches!(pending.ours.recv(&mut [MaybeUninit::uninit()]), Ok(0));
            if is_dropped && let Some(accepted) = pending.accepted.take() {
                self.transport.turn_away(accepted);
            }
        }
        self.pending.retain(|pending| pending.accepted.is_some());
    }
}

impl Transport for Simulated {
    type Socket = Socket;

    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError> {
        self.transport.listen(address)
    }

    fn local_address(&self, listener: Listener) -> Option<Address> {
        self.transport.local_address(listener)
    }

    fn unlisten(&mut self, listener: Listener) {
        self.transport.unlisten(listener);
    }

    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError> {
        self.transport.connect(address)
    }

    fn adopt(&mut self, socket: Socket) -> Result<Handle, TransportError> {
        let token = socket.as_raw_fd();
        let it = self.pending.iter_mut().rfind(|pending| pending.token == token);
        let accepted = it.and_then(|pending| pending.accepted.take());
        self.transport.adopt(accepted.ok_or(TransportError::Unsupported)?)
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        self.transport.send(handle, batch)
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        self.transport.receive(handle, how);
    }

    fn shutdown(&mut self, handle: Handle) {
        self.transport.shutdown(handle);
    }

    fn close(&mut self, handle: Handle) {
        self.transport.close(handle);
    }

    fn reap(&mut self, events: &mut Vec<TransportEvent<Socket>>) {
        self.forget_dropped();
        self.transport.reap(&mut self.events);
        let pending = &mut self.pending;
        let reaped = self.events.drain(..);
        events.extend(
            reaped.map(|event| event.map_socket(|accepted| Self::token(pending, accepted))),
        );
    }
}

impl Handover for Simulated {
    fn listen_on(&mut self, _: Socket) -> Result<Listener, TransportError> {
        Err(TransportError::Unsupported)
    }

    fn share(&mut self, _: Listener) -> Result<Socket, TransportError> {
        Err(TransportError::Unsupported)
    }
}

/// What whoever waits on a simulated shard is told.
const TURNED_BY_ITS_WORLD: &str = "a simulated shard is turned by its world: await or spawn instead of \
     `run`, `block_on` and `turn`";

impl Park for Simulated {
    type Bell = Doorbell;

    fn arm(&mut self) {
        panic!("{TURNED_BY_ITS_WORLD}");
    }

    fn park(&mut self, _: Option<Duration>) {
        panic!("{TURNED_BY_ITS_WORLD}");
    }

    fn bell(&self) -> Doorbell {
        self.bell.clone()
    }
}

impl Hosted for Simulated {
    fn host(&mut self) -> Result<(), TransportError> {
        Err(TransportError::Unsupported)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    fn rest(&mut self) -> bool {
        false
    }

    fn wake(&mut self) {}

    fn timeout(&mut self) -> Option<Duration> {
        None
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").finish_non_exhaustive()
    }
}
