//! What engines meet and get over, counted where other threads can read it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one engine has met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Accepting failed, for whatever reason.
    pub accept_errors: Count,
    /// Connections that were closed unseen because file descriptors ran out.
    pub shed: Count,
    /// Sends of which the kernel took a part, or nothing, because the peer does not read fast enough.
    pub short_sends: Count,
    /// Sends and receives that had to be tried again because the kernel was out of memory.
    pub memory_short: Count,
    /// Receives that had to wait for a provided buffer.
    pub buffers_short: Count,
}

/// How often something happened.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Once more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So often.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
