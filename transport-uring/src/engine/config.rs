//! Settings of the engine.

use std::io;
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
    /// How many receive buffers there are at first; twice as many each time they run out, though at most 32 more. 8 by
    /// default.
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

/// With fewer a ring takes no fewer pages.
const ENTRIES_MIN: u32 = 16;

impl UringConfig {
    /// A ring of this size, or else the largest for which there is memory. Rings count as locked memory
    /// of users without rights, who often may lock little.
    pub(super) fn as_large_as_possible<R>(
        mut self,
        mut set_up: impl FnMut(&UringConfig) -> io::Result<R>,
    ) -> io::Result<(R, UringConfig)> {
        loop {
            match set_up(&self) {
                Err(error)
                    if error.raw_os_error() == Some(libc::ENOMEM) && self.entries > ENTRIES_MIN =>
                {
                    self.entries = (self.entries / 4).max(ENTRIES_MIN);
                }
                made => return made.map(|ring| (ring, self)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is tried, when so many entries are one too many, and what comes of it.
    fn tried(too_many: u32) -> (Vec<u32>, Option<u32>) {
        let mut tried = Vec::new();
        let made = UringConfig::default().as_large_as_possible(|config| {
            tried.push(config.entries);
            match config.entries < too_many {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
            }
        });
        (tried, made.ok().map(|((), config)| config.entries))
    }

    #[test]
    fn e11_smaller_rings_are_tried_until_there_is_memory() {
        assert_eq!(tried(1000), (vec![256], Some(256)));
        assert_eq!(tried(256), (vec![256, 64], Some(64)));
        assert_eq!(tried(0), (vec![256, 64, 16], None));
    }

    #[test]
    fn other_errors_have_nothing_to_do_with_its_size() {
        let mut tried = 0;
        let made = UringConfig::default().as_large_as_possible(|_| -> io::Result<()> {
            tried += 1;
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        });
        assert_eq!((made.unwrap_err().raw_os_error(), tried), (Some(libc::EMFILE), 1));
    }
}
