//! What an engine has for a loop of somebody else.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use ringcall_core::{Park, TransportError};

/// An engine that another loop (poll, epoll, kqueue's like, a runtime's reactor) can host, by one file
/// descriptor: instead of [`park`](Park::park) it [`rest`](Hosted::rest)s, the other loop waits for the
/// descriptor or the timeout, and it [`wake`](Hosted::wake)s before it is reaped again.
pub trait Hosted: Park {
    /// From now on another loop waits. Called once, on the engine's thread.
    ///
    /// # Errors
    /// When the system does not let the descriptor tell of what happens.
    fn host(&mut self) -> Result<(), TransportError>;

    /// Readable, after [`rest`](Hosted::rest), as soon as something can be reaped or the bell is rung.
    /// Always the same one.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Arms the bell and begins what was submitted. `false` when something can be reaped already: reap
    /// rather than wait. `true` only when nothing can, so that the descriptor *becomes* readable: loops
    /// that are told of changes only (epoll's edge triggering) miss nothing.
    ///
    /// Whoever calls it looks afterwards once more whether other threads have left work.
    fn rest(&mut self) -> bool;

    /// Disarms the bell: until the next [`rest`](Hosted::rest) ringing it costs nothing.
    fn wake(&mut self);

    /// When it must be reaped although the descriptor is not readable: how long from now.
    fn timeout(&mut self) -> Option<Duration>;
}
