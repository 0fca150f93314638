//! Settings of the engine.

use std::time::Duration;

use ringcall_buf::BLOCK_BYTES;
use ringcall_net::ListenOptions;

/// Settings of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UringConfig {
    /// How to listen.
    pub listen: ListenOptions,
    /// How many operations fit into the submission queue; the completion queue is eight times as long.
    /// 256 by default.
    pub entries: u32,
    /// Size of a receive buffer. 64 KiB by default.
    pub buffer_bytes: usize,
    /// How many receive buffers there are at first; twice as many each time they run out. 8 by default.
    pub buffers: usize,
    /// How many there are at most; a power of two. 1024 by default.
    pub buffers_max: u16,
    /// When fewer connections than this send in a turn, each sends with a system call of its own; more are
    /// operations, so that one call sends for all. (A send that is an operation tells of its end, which
    /// would wake the engine for nothing but that.) 2 by default.
    pub direct_sends: usize,
    /// When a send is tried again that could neither be done nor be waited for. 10 ms by default.
    pub retry_after: Duration,
}

impl Default for UringConfig {
    fn default() -> UringConfig {
        UringConfig {
            listen: ListenOptions::default(),
            entries: 256,
            buffer_bytes: BLOCK_BYTES,
            buffers: 8,
            buffers_max: 1024,
            direct_sends: 2,
            retry_after: Duration::from_millis(10),
        }
    }
}
