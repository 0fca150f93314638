//! The connections of clients on a shard: opening them, opening them again, who waits on them; and those that
//! calls came by, for calls back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringcall_core::{Address, CloseReason, Config, Handle, Instant, Side, TransportError};

use super::Inner;
use super::control::offering;
use super::watch::Change;
use crate::client::{
    ClientConnection, Closed, ConnectionState, LocalClient, Lookup, NO_ADDRESS, PeerAddress,
    PeerShared, Route, Security, look_up,
};
use crate::observe::{Audience, Observers};
use crate::shard::mail::Notice;
use crate::shard::prepare;

impl Inner {
    /// Somebody needs this client: if it has never connected it does so now.
    pub(crate) fn wake_up(&self, client: &Rc<ClientConnection>) {
        if client.watched().state() == ConnectionState::Idle {
            self.dial(client);
        }
    }

    /// Connects as soon as that is not too soon after the last time.
    pub(super) fn redial(&self, client: &Rc<ClientConnection>) {
        if client.watched().is_final() {
            return;
        }
        if self.remote.is_gone() {
            return client.end();
        }
        let at = client.next_try(&mut *self.rng.borrow_mut());
        if at <= self.now() {
            return self.dial(client);
        }
        self.redials.borrow_mut().push((at, Rc::clone(client)));
        self.redial_at.set(self.redial_at.get().min(at));
        self.left_work();
    }

    /// Begins with the first of its addresses, which are looked up before if they have a name.
    fn dial(&self, client: &Rc<ClientConnection>) {
        let Some(route) = client.route() else { return };
        client.tries(self.read_clock());
        match route.begin() {
            Some(lookup) => self.look_up(client, lookup),
            None => self.dial_next(client),
        }
    }

    fn look_up(&self, client: &Rc<ClientConnection>, lookup: Lookup) {
        let number = self.lookups.borrow_mut().insert(Rc::clone(client)) as u32;
        let remote = Arc::clone(&self.remote);
        let is_begun = look_up(lookup, move |found| remote.notify(Notice::Found(number, found)));
        if !is_begun {
            self.found(number, Err("too many names are being looked up".to_owned()));
        }
    }

    /// The addresses of a client's name.
    pub(super) fn found(&self, number: u32, found: Result<Vec<Address>, String>) {
        let Some(client) = self.lookups.borrow_mut().try_remove(number as usize) else { return };
        let Some(route) = client.route().filter(|_| !client.watched().is_final()) else { return };
        match found {
            Ok(addresses) if !addresses.is_empty() => route.found(addresses),
            Ok(_) => log::warn!("{}: {NO_ADDRESS}", route.target()),
            Err(reason) => log::warn!("{} cannot be looked up: {reason}", route.target()),
        }
        if !route.has_next() {
            client.failed(CloseReason::Transport(TransportError::Unresolved));
            return self.redial(&client);
        }
        self.dial_next(&client);
    }

    /// An attempt has failed: it goes on with the next address, or after a while with the first.
    fn dial_failed(&self, client: &Rc<ClientConnection>, reason: CloseReason) {
        if client.route().is_some_and(Route::has_next) {
            return self.dial_next(client);
        }
        client.failed(reason);
        self.redial(client);
    }

    fn dial_next(&self, client: &Rc<ClientConnection>) {
        let Some(address) = client.route().and_then(Route::next) else { return };
        let now = self.read_clock();
        let config = match client.config() {
            Some(own) => Rc::clone(own),
            None => Rc::clone(&self.client_config.borrow()),
        };
        let config = match client.services() {
            Some(router) => offering(&config, router.rows()),
            None => config,
        };
        let Ok(layer) = self.layers.connect(client.security()) else {
            let reason = CloseReason::Transport(TransportError::BadAddress);
            return self.dial_failed(client, reason);
        };
        let connected = self.endpoint.borrow_mut().connect(now, &address, &config, layer);
        match connected {
            Ok(handle) => {
                if let Some(records) = &self.records {
                    let (endpoint, peer) = (&mut *self.endpoint.borrow_mut(), address);
                    records.begin(endpoint, handle, Side::Client, Some(peer));
                }
                self.introduce(handle, client);
                let own = client.services().cloned();
                if let Some(router) = own.or_else(|| self.asks_callers.then(Rc::default)) {
                    self.routers.borrow_mut().offer(handle, router);
                }
                client.opens(handle);
                self.clients.borrow_mut().insert(handle, Rc::clone(client));
                self.tell_client(client, handle, Change::Opened);
                self.left_work();
            }
            Err(error) => self.dial_failed(client, CloseReason::Transport(error)),
        }
    }

    /// Settings of one client's connections, with what they have of the shard.
    pub(crate) fn own_config(&self, config: Config) -> Result<Rc<Config>, TransportError> {
        prepare(config, &self.compression).map(Rc::new).map_err(|error| {
            log::error!("the settings of a connection: {error}");
            TransportError::Unsupported
        })
    }

    /// Shows the other side who calls, and says whom it expects there.
    fn introduce(&self, handle: Handle, client: &ClientConnection) {
        let Security { credentials, expected, .. } = client.security();
        if credentials.is_none() && expected.is_none() {
            return;
        }
        let mut endpoint = self.endpoint.borrow_mut();
        let Some(connection) = endpoint.connection_mut(handle) else { return };
        if let Some(credentials) = credentials {
            let fits = connection.present(credentials.expose());
            debug_assert!(fits.is_ok(), "checked when they were made");
        }
        if let Some(expected) = expected {
            connection.expect_peer(expected.clone());
        }
    }

    /// The other side of a client's connection was somebody else: the client can say who.
    #[cold]
    pub(super) fn note_mismatch(&self, handle: Handle) {
        let endpoint = self.endpoint.borrow();
        let met = endpoint.connection(handle).and_then(|connection| connection.mismatch());
        if let (Some(mismatch), Some(client)) = (met, self.client(handle)) {
            log::debug!("connection {handle:?}: {mismatch}");
            client.watched().met(mismatch);
        }
    }

    pub(super) fn redial_due(&self, now: Instant) -> bool {
        if self.redial_at.get() > now {
            return false;
        }
        self.redial_at.set(Instant::FAR);
        let redials = std::mem::take(&mut *self.redials.borrow_mut());
        for (at, client) in redials {
            if at > now {
                self.redial_at.set(self.redial_at.get().min(at));
                self.redials.borrow_mut().push((at, client));
            } else if self.remote.is_gone() {
                client.end();
            } else if !client.watched().is_final() {
                self.dial(&client);
            }
        }
        true
    }

    pub(super) fn client(&self, handle: Handle) -> Option<Rc<ClientConnection>> {
        self.clients.borrow().get(&handle).cloned()
    }

    /// The connection that calls came by, for calls back.
    pub(crate) fn local_peer(self: &Rc<Self>, handle: Handle) -> LocalClient {
        LocalClient::peer(self, self.connection_of_peer(handle))
    }

    /// The same for other threads. One that they asked for themselves learns soon what its other side reads.
    pub(crate) fn remote_peer(&self, handle: Handle) -> Arc<PeerShared> {
        let peer = self.remote.peer(handle);
        peer.reads(self.compressions(handle));
        peer
    }

    pub(super) fn connection_of_peer(self: &Rc<Self>, handle: Handle) -> Rc<ClientConnection> {
        if let Some(connection) = self.peers.borrow().get(&handle) {
            return Rc::clone(connection);
        }
        // One that a client has opened: the client may have another one by the time it is called back.
        let audience = match self.client(handle) {
            Some(client) => client.audience().clone(),
            None => self.audience_of_accepted(handle),
        };
        let connection = Rc::new(ClientConnection::accepted(handle, audience));
        connection.watched().reads(self.compressions(handle));
        // Calls on one that is over fail by themselves.
        if self.is_there(handle) {
            self.peers.borrow_mut().insert(handle, Rc::clone(&connection));
            self.meet(handle, &connection);
        }
        connection
    }

    fn audience_of_accepted(&self, handle: Handle) -> Option<Arc<Audience>> {
        let peer = self.origins.of(handle).and_then(|origin| origin.1.clone());
        self.audience(&Observers::default(), peer.map_or(PeerAddress::Unknown, PeerAddress::Known))
    }

    /// Whether the connection's end has not been told yet.
    pub(super) fn is_there(&self, handle: Handle) -> bool {
        let endpoint = self.endpoint.borrow();
        endpoint.connection(handle).is_some_and(|connection| !connection.has_ended())
    }

    /// A connection is over.
    pub(super) fn forget(&self, handle: Handle, reason: CloseReason) {
        let services = self.routers.borrow_mut().withdraw(handle);
        let peer = self.peers.borrow_mut().remove(&handle);
        if self.is_guarded.get() {
            self.gate.borrow_mut().forget(handle);
        }
        self.origins.leave(handle);
        let client = self.clients.borrow_mut().remove(&handle);
        // What ends with it is somebody's code, and so is who is told.
        let told = catch_unwind(AssertUnwindSafe(|| {
            drop(services);
            if client.is_none() {
                self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(peer) = peer {
                peer.left(reason);
            }
            match client.as_ref().map(|client| (client, client.closed(handle, reason))) {
                Some((client, Closed::Failed)) => self.dial_failed(client, reason),
                Some((client, Closed::Lost)) => self.redial(client),
                Some((_, Closed::Left)) | None => {}
            }
            self.remote.end_peer(handle, reason);
        }));
        if told.is_err() {
            self.executor.panicked();
        }
    }

    /// Callers wait on this connection until there is room.
    pub(crate) fn crowd(&self, client: &Rc<ClientConnection>) {
        let mut crowded = self.crowded.borrow_mut();
        if !crowded.iter().any(|other| Rc::ptr_eq(other, client)) {
            crowded.push(Rc::clone(client));
        }
    }

    pub(super) fn admit_crowds(&self) {
        if self.crowded.borrow().is_empty() {
            return;
        }
        let crowded = std::mem::take(&mut *self.crowded.borrow_mut());
        for client in crowded {
            let endpoint = self.endpoint.borrow();
            let connection = endpoint.connection(client.handle());
            let free = connection.map_or(usize::MAX, |connection| connection.calls_room() as usize);
            drop(endpoint);
            if !client.admit(free) {
                self.crowded.borrow_mut().push(client);
            }
        }
    }
}
