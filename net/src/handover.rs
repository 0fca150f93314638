//! What an engine has for listeners that outlive a process.

use ringcall_core::{Listener, Transport, TransportError};

/// An engine whose listening sockets can be handed to a successor, and that can go on with one.
pub trait Handover: Transport {
    /// Listens on a socket that listens already.
    ///
    /// # Errors
    /// When it does not, or cannot be watched.
    fn listen_on(&mut self, socket: Self::Socket) -> Result<Listener, TransportError>;

    /// Another descriptor of the listening socket, for a successor, to whom belongs from then on what
    /// waits to be accepted when this engine stops listening.
    ///
    /// # Errors
    /// When there is no such listener, or no file descriptor left.
    fn share(&mut self, listener: Listener) -> Result<Self::Socket, TransportError>;
}
