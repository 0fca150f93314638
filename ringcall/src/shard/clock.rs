//! The machine's clock.

use ringcall_core::{Clock, Entropy, Instant, SplitMix64};

use crate::client::SpanIds;

/// Monotonic time since the process first asked for it, the same on all its threads; in a simulation that of the
/// node that is being driven.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock;

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock at the edge")]
    fn now(&self) -> Instant {
        #[cfg(feature = "sim")]
        if let Some(now) = crate::sim::now() {
            return now;
        }
        use std::sync::OnceLock;
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(std::time::Instant::now);
        // Not zero, so that "a while ago" can be told.
        let nanos = std::time::Instant::now().duration_since(origin).as_nanos() + 1_000_000_000;
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl SpanIds for MachineClock {
    /// For whoever has no shard's random numbers at hand: those of one generator for the process.
    fn next_span_id(&self) -> u64 {
        #[cfg(feature = "sim")]
        if let Some(random) = crate::sim::random() {
            return random;
        }
        use std::hash::{BuildHasher, RandomState};
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        /// SplitMix64's step, so that each call has a state of its own.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        static STATE: LazyLock<AtomicU64> =
            LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(STEP)));
        SplitMix64::new(STATE.fetch_add(STEP, Ordering::Relaxed)).next_u64()
    }
}
