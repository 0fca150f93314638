//! What a balanced channel needs of the place where it runs.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringcall_core::{Clock, CloseReason, Mismatch, OwnedChannel};

use crate::discovery::Instance;
use crate::fleet::Readiness;

/// Opens connections, and knows the time and what is chance. `ringcall::cluster` has two: for clients of a shard, and for those of
/// any thread.
pub trait Connector: Clock {
    /// A connection to an instance. Clones are the same one; it ends with the last of them.
    type Channel: OwnedChannel;
    /// Ready after a while.
    type Sleep: Future<Output = ()> + Unpin;
    /// Ready when a server has begun with an attempt.
    type Begun: Future<Output = ()> + Unpin;
    /// Ready when a connection can be used, with `true`; or when it never will be again.
    type Opening: Future<Output = bool> + Unpin;
    /// What guards decisions: a cell where everything is on one thread, else a mutex.
    type Guard<S>: Guard<S>;

    /// A connection to this instance, which is being opened: it must not wait for that. Where another one than
    /// [`Instance::identity`] is met, its readiness is [`Readiness::Stranger`]. None leaves the
    /// instance out, until a listing has it again.
    fn connect(&self, instance: &Instance) -> Option<Self::Channel>;

    /// Whether calls can be made on it. Called for every attempt, under the guard.
    fn readiness(&self, channel: &Self::Channel) -> Readiness;

    /// Ready when calls can be made on it, or never can be again: for whoever [waits](crate::Balanced::ready) for that.
    fn opening(&self, channel: &Self::Channel) -> Self::Opening;

    /// Why the last attempt to open a connection failed, if it did: for whoever has waited in vain. Nothing by default.
    fn failure(&self, channel: &Self::Channel) -> Option<CloseReason> {
        let _ = channel;
        None
    }

    /// Whom a connection met that met another instance than was [expected](Instance::identity), for people who are told
    /// of it. Nothing by default.
    fn mismatch(&self, channel: &Self::Channel) -> Option<Mismatch> {
        let _ = channel;
        None
    }

    /// A number that nobody can know beforehand, another one each time: what chance does comes from it. Where a run is to be
    /// repeated it is the run's.
    fn seed(&self) -> u64;

    /// Ready after a while.
    fn sleep(&self, time: Duration) -> Self::Sleep;

    /// Ready when a server has begun with the attempt that [carries](ringcall_core::frame::tag::TIED) this name. Called before
    /// the attempt is made, for calls that are [tied](crate::hedge::HedgeConfig::tied).
    fn begun(&self, tie: [u8; 16]) -> Self::Begun;
}

/// A value that is used by one at a time, for a moment.
pub trait Guard<S> {
    /// Guards it.
    fn new(value: S) -> Self;

    /// Uses it.
    fn with<R>(&self, use_it: impl FnOnce(&mut S) -> R) -> R;
}

impl<S> Guard<S> for RefCell<S> {
    fn new(value: S) -> RefCell<S> {
        RefCell::new(value)
    }

    #[inline]
    fn with<R>(&self, use_it: impl FnOnce(&mut S) -> R) -> R {
        use_it(&mut self.borrow_mut())
    }
}

impl<S> Guard<S> for Mutex<S> {
    fn new(value: S) -> Mutex<S> {
        Mutex::new(value)
    }

    #[inline]
    fn with<R>(&self, use_it: impl FnOnce(&mut S) -> R) -> R {
        // Whoever panicked in a policy of its own has left at worst a statistic half written.
        use_it(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
