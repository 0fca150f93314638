//! The addresses of a client: which is next, and whether they must be looked up first.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use ringcall_core::{Address, Clock};

use super::address::{Lookup, PeerAddress, Target};
use crate::offload::Pool;
use crate::shard::MachineClock;

/// So many addresses of a name are tried, one after another, before there is a pause.
const ADDRESSES_MAX: usize = 16;

/// So many names are looked up at a time, since that may take as long as the system's resolver waits.
const THREADS_MAX: usize = 32;

/// The way of a client to its server.
pub(crate) struct Route {
    target: Target,
    /// What observers are told.
    peer: PeerAddress,
    known: RefCell<Vec<Address>>,
    /// Which of them is tried next, in this round.
    next: Cell<usize>,
}

impl Route {
    pub(crate) fn new(target: Target) -> Route {
        let peer = match target.address() {
            Some(address) => PeerAddress::Known(address.clone()),
            None => PeerAddress::Found(Arc::default()),
        };
        let known = target.address().cloned().into_iter().collect();
        Route { target, peer, known: RefCell::new(known), next: Cell::new(0) }
    }

    /// Where it leads, as of now and later.
    pub(crate) fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// A round of attempts begins. What is given must be called before, where it may block, and its result is for
    /// [`found`](Route::found).
    pub(crate) fn begin(&self) -> Option<Lookup> {
        self.next.set(0);
        self.target.lookup().cloned()
    }

    /// These take the place of those that were known.
    pub(crate) fn found(&self, mut addresses: Vec<Address>) {
        addresses.truncate(ADDRESSES_MAX);
        self.known.replace(addresses);
    }

    /// The next address of this round.
    pub(crate) fn next(&self) -> Option<Address> {
        let address = self.known.borrow().get(self.next.get()).cloned()?;
        self.next.set(self.next.get() + 1);
        self.peer.found(&address);
        Some(address)
    }

    /// Whether another one is to be tried, should this one fail.
    pub(crate) fn has_next(&self) -> bool {
        self.next.get() < self.known.borrow().len()
    }
}

/// Has a name looked up on a thread where that may block, and tells what it has found. `false` if too many wait for that
/// already.
pub(crate) fn look_up(
    lookup: Lookup,
    tell: impl FnOnce(Result<Vec<Address>, String>) + Send + 'static,
) -> bool {
    static THREADS: OnceLock<Arc<Pool>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| Pool::new(THREADS_MAX, None));
    let job = move |refused: Option<u16>| {
        if refused.is_some() {
            // Not on the thread that says so, which may be a shard's.
            return tell(Err("no thread can look it up now".to_owned()));
        }
        // It is somebody's code, and whoever waits for it must be told.
        let found = catch_unwind(AssertUnwindSafe(|| lookup()));
        tell(found.unwrap_or_else(|_| Err("looking it up panicked".to_owned())));
    };
    threads.run(0, MachineClock.now(), Box::new(job))
}
