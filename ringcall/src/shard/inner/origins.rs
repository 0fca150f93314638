//! Where the connections that were accepted come from.

use std::cell::{Ref, RefCell};
use std::net::SocketAddr;

use ringcall_core::{Address, Handle};

use crate::shard::engine::Socket;

/// By their index, since each that is accepted is in here.
#[derive(Default)]
pub(super) struct Origins(RefCell<Vec<Option<Origin>>>);

/// A connection, and its other end; `None` if that has no name, as those of unix sockets.
pub(super) type Origin = (Handle, Option<Address>);

/// The other end of a socket, before anybody has it.
pub(super) fn peer_of(socket: &Socket) -> Option<Address> {
    socket.peer_addr().ok()?.as_socket().map(Address::Tcp)
}

impl Origins {
    pub(super) fn enter(&self, handle: Handle, peer: Option<Address>) {
        let mut all = self.0.borrow_mut();
        let index = handle.index as usize;
        if index >= all.len() {
            all.resize_with(index + 1, || None);
        }
        all[index] = Some((handle, peer));
    }

    /// That of a connection, if it was accepted and is still there.
    pub(super) fn of(&self, handle: Handle) -> Option<Ref<'_, Origin>> {
        let known =
            Ref::filter_map(self.0.borrow(), |all| all.get(handle.index as usize)?.as_ref());
        known.ok().filter(|origin| origin.0 == handle)
    }

    pub(super) fn address(&self, handle: Handle) -> Option<SocketAddr> {
        match self.of(handle)?.1 {
            Some(Address::Tcp(address)) => Some(address),
            _ => None,
        }
    }

    pub(super) fn leave(&self, handle: Handle) {
        if let Some(entry) = self.0.borrow_mut().get_mut(handle.index as usize) {
            entry.take_if(|(of, _)| *of == handle);
        }
    }
}
