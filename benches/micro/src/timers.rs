//! The timer wheel.

use std::time::Duration;

use ringcall_core::{Instant, Wheel};

/// A wheel and its time.
#[derive(Debug)]
pub struct Timers {
    wheel: Wheel,
    now: Instant,
    keys: u32,
}

impl Timers {
    /// A wheel that has seen so many keys, as one has that has been in use for a while.
    #[must_use]
    pub fn new(keys: u32) -> Timers {
        let now = Instant::from_nanos(1_000_000_000);
        let mut timers = Timers { wheel: Wheel::new(now), now, keys };
        timers.fire_all();
        timers
    }

    /// The life of most deadlines: each key is armed for a second and cancelled, while time goes on by
    /// 10 µs a key. Says how many timers were seen armed.
    pub fn arm_and_cancel(&mut self, times: u64) -> u64 {
        let mut seen = 0;
        for n in 0..times {
            let key = (n % u64::from(self.keys)) as u32;
            self.wheel.arm(key, self.now + Duration::from_secs(1));
            seen += self.wheel.len() as u64;
            self.wheel.cancel(key);
            self.now = self.now + Duration::from_micros(10);
            assert_eq!(self.wheel.expire(self.now), None);
        }
        seen
    }

    /// Arms every key, spread over a second, and lets all fire, a millisecond at a time. Returns the sum
    /// of the keys that fired.
    pub fn fire_all(&mut self) -> u64 {
        for key in 0..self.keys {
            // Neighbours in number are no neighbours in time.
            let after_us = u64::from(key) * 7919 % 1_000_000;
            self.wheel.arm(key, self.now + Duration::from_micros(after_us));
        }
        let mut sum = 0;
        while !self.wheel.is_empty() {
            self.now = self.now + Duration::from_millis(1);
            while let Some(key) = self.wheel.expire(self.now) {
                sum += u64::from(key);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_fires_or_was_cancelled() {
        let mut timers = Timers::new(1000);
        let all = (0..1000).sum::<u64>();
        assert_eq!(timers.fire_all(), all);
        assert_eq!(timers.arm_and_cancel(5000), 5000);
        assert_eq!(timers.fire_all(), all);
    }
}
