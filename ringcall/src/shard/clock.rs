//! The machine's clock.

use ringcall_core::{Clock, Instant};

/// Monotonic time since the process first asked for it, the same on all its threads.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock;

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock at the edge")]
    fn now(&self) -> Instant {
        use std::sync::OnceLock;
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(std::time::Instant::now);
        // Not zero, so that "a while ago" can be told.
        let nanos = std::time::Instant::now().duration_since(origin).as_nanos() + 1_000_000_000;
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
