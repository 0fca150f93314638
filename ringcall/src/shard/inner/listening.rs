//! Who answers, where a shard listens, and what becomes of those who connect.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringcall_core::{Address, Listener, Side, Transport, TransportError};
use ringcall_net::Handover as _;

use super::super::engine::Socket;
use super::super::mail::{Notice, Place, Remote};
use super::Inner;
use super::control::offering;
use super::origins::peer_of;
use crate::serve::Router;

impl Inner {
    pub(crate) fn set_router(&self, router: Router) {
        let rows = Rc::clone(router.rows());
        self.server_config.replace_with(|config| offering(config, &rows));
        if !self.asks_callers {
            self.client_config.replace_with(|config| offering(config, &rows));
        }
        let before = std::mem::replace(&mut self.routers.borrow_mut().shared, Rc::new(router));
        drop(before);
    }

    pub(crate) fn router(&self) -> Rc<Router> {
        Rc::clone(&self.routers.borrow().shared)
    }

    pub(crate) fn set_siblings(&self, siblings: Vec<Arc<Remote>>) {
        *self.siblings.borrow_mut() = siblings;
    }

    pub(crate) fn listen(&self, address: &Address) -> Result<(Listener, Address), TransportError> {
        let mut endpoint = self.endpoint.borrow_mut();
        let listener = endpoint.transport_mut().listen(address)?;
        let local = endpoint.transport().local_address(listener).unwrap_or(address.clone());
        drop(endpoint);
        self.give_up_draining();
        self.listeners.borrow_mut().push(listener);
        self.left_work();
        Ok((listener, local))
    }

    /// Goes on listening on a socket that does already.
    pub(crate) fn listen_on(&self, socket: Socket) -> Result<Address, TransportError> {
        let mut endpoint = self.endpoint.borrow_mut();
        let listener = endpoint.transport_mut().listen_on(socket)?;
        let local = endpoint.transport().local_address(listener);
        self.listeners.borrow_mut().push(listener);
        drop(endpoint);
        self.give_up_draining();
        self.left_work();
        local.ok_or(TransportError::BadAddress)
    }

    /// Listens there, and not any more where it did before.
    pub(super) fn listen_only(&self, place: Place) -> Result<Address, TransportError> {
        let before = std::mem::take(&mut *self.listeners.borrow_mut());
        for listener in before {
            self.endpoint.borrow_mut().transport_mut().unlisten(listener);
        }
        match place {
            Place::Address(address) => self.listen(&address).map(|(_, local)| local),
            Place::Socket(socket) => self.listen_on(socket.into()),
        }
    }

    /// Another descriptor of the first listener's socket, for a successor.
    pub(super) fn share_listener(&self) -> Result<Socket, TransportError> {
        let listener = self.listeners.borrow().first().copied();
        let listener = listener.ok_or(TransportError::BadAddress)?;
        self.endpoint.borrow_mut().transport_mut().share(listener)
    }

    pub(super) fn accepted(&self, _: Listener, socket: Socket) {
        if self.remote.is_gone() {
            return;
        }
        let siblings = self.siblings.borrow();
        let load = |shard: &Arc<Remote>| shard.connections.load(Ordering::Relaxed);
        // One whose thread has ended takes none, however few it seems to have.
        let living = || siblings.iter().filter(|shard| !shard.is_gone());
        let total: usize = living().map(load).sum();
        if total >= self.connections_max {
            self.turn_away(socket);
            if self.remote.register.turned_away.get().is_power_of_two() {
                log::warn!(
                    "turned a connection away: {total} are open, `connections_max` is {}",
                    self.connections_max
                );
            }
            return;
        }
        // The siblings may have come to their end already.
        let fewest = match self.is_draining() {
            true => Some(&self.remote),
            false => living().min_by_key(|shard| load(shard)),
        };
        let Some(fewest) = fewest else { return };
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        if Arc::ptr_eq(fewest, &self.remote) {
            self.adopt(socket);
        } else {
            fewest.notify(Notice::Adopt(socket));
        }
    }

    fn turn_away(&self, socket: Socket) {
        self.remote.register.turned_away.add();
        self.watch_turned_away();
        // That closes it.
        drop(socket);
    }

    /// A connection that was counted already.
    pub(super) fn adopt(&self, socket: Socket) {
        if self.memory.is_full() {
            self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            return self.turn_away(socket);
        }
        let now = self.now();
        let peer = peer_of(&socket);
        let Ok(layer) = self.layers.accept() else {
            self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let mut endpoint = self.endpoint.borrow_mut();
        let config = Rc::clone(&self.server_config.borrow());
        let handle = match endpoint.adopt(now, socket, &config, layer) {
            Ok(handle) => handle,
            Err(error) => {
                self.remote.connections.fetch_sub(1, Ordering::Relaxed);
                return log::warn!("an accepted connection could not be used: {error}");
            }
        };
        if let Some(records) = &self.records {
            records.begin(&mut endpoint, handle, Side::Server, peer.clone());
        }
        self.origins.enter(handle, peer);
        if let Some(identity) = &self.identity
            && let Some(connection) = endpoint.connection_mut(handle)
        {
            let fits = connection.introduce(identity);
            debug_assert!(fits.is_ok(), "a server shows nothing else");
        }
        if let Some(at) = config.drain_at(now, &mut *self.rng.borrow_mut())
            && let Some(connection) = endpoint.connection_mut(handle)
        {
            connection.drain_at(at);
        }
        drop(endpoint);
        if self.watch.is_some() {
            self.watch_accepted(handle);
        }
        self.drain_counts();
    }
}
