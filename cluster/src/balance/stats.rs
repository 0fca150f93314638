//! What is known of an instance.

use std::time::Duration;

use ringcall_core::Instant;

/// How fast what was seen of an instance is forgotten: 10 s.
const TAU_NS: f64 = 10e9;

/// Calls so far apart say more of how an instance is than those before: 1 s.
const RARE_NS: u64 = 1_000_000_000;

/// What a new answer counts among those before.
const NEW_SHARE: f32 = 0.125;

/// What is known of an instance, from this side's calls to it.
#[derive(Clone, Debug)]
pub struct HostStats {
    /// How much of the calls it gets now, relative to others: its weight, less while it warms up or is
    /// sub-healthy. In hundredths, so that a tenth of the smallest weight is one.
    pub weight: u32,
    /// The weight that it has when it is warm and well, in the same unit.
    pub full_weight: u32,
    /// Calls under way.
    pub in_flight: u32,
    /// A number for its name.
    pub key: u64,
    /// How busy it says it is, from 0 to 1, of the last answer that said so.
    pub load: f32,
    /// When it last got a call.
    pub picked: Instant,
    /// The count of all calls then.
    pub picked_count: u64,
    latency_ns: f64,
    /// Which part of their time there calls wait, from 0 to 1.
    waiting: f32,
    /// What share of its calls fails, from 0 to 1.
    errors: f64,
    seen: Instant,
}

impl HostStats {
    /// One of which nothing is known, with this weight.
    #[must_use]
    pub fn new(key: u64, weight: u32) -> HostStats {
        HostStats {
            weight: weight.saturating_mul(100),
            full_weight: weight.saturating_mul(100),
            in_flight: 0,
            key,
            load: 0.0,
            picked: Instant::ZERO,
            picked_count: 0,
            latency_ns: 0.0,
            waiting: 0.0,
            errors: 0.0,
            seen: Instant::ZERO,
        }
    }

    /// A call ended after so long, with an answer or without. `load` is what the answer says of the server, in
    /// thousandths; 0 if nothing.
    #[inline]
    pub fn observe(&mut self, now: Instant, latency: Duration, is_good: bool, load: u16) {
        let kept = kept(self.seen, now);
        let latency_ns = nanos(latency) as f64;
        let (seen_ns, now_ns) = (self.seen.as_nanos(), now.as_nanos());
        let is_first = self.seen == Instant::ZERO;
        self.seen = now;
        // A failure says how long the instance takes only if it took long.
        if latency_ns > self.latency_ns {
            self.latency_ns = latency_ns;
        } else if is_good {
            self.latency_ns = self.latency_ns * kept + latency_ns * (1.0 - kept);
        }
        let error = if is_good { 0.0 } else { 1.0 };
        // One that is hardly called is forgiven by its calls, or that would take minutes.
        let is_rare = is_first || now_ns.saturating_sub(seen_ns) >= RARE_NS;
        let kept = if is_rare { kept.min(0.5) } else { kept };
        self.errors = self.errors * kept + error * (1.0 - kept);
        if load != 0 {
            self.says(load);
        }
    }

    /// An answer says how long its call waited for the handler there, and how long that had it, in microseconds.
    #[inline]
    pub fn took(&mut self, queue_us: u32, handler_us: u32) {
        let all = u64::from(queue_us) + u64::from(handler_us);
        if all > 0 {
            let waiting = queue_us as f32 / all as f32;
            self.waiting += (waiting - self.waiting) * NEW_SHARE;
        }
    }

    /// Which part of the time that they are there calls wait for their handler, by what the last answers say, from 0 to
    /// 1. Only counted for a policy that [wants](super::Balance::wants_server_times) it.
    #[must_use]
    pub fn waiting(&self) -> f32 {
        self.waiting
    }

    /// It was asked, and has said that it is so busy, in thousandths.
    #[inline]
    pub(crate) fn says(&mut self, load: u16) {
        self.load = (f32::from(load) / 1000.0).min(1.0);
    }

    /// A call was given up after so long: at least that is known of how long they take here, also if none has ever
    /// ended.
    pub fn waited(&mut self, time: Duration) {
        self.latency_ns = self.latency_ns.max(nanos(time) as f64);
    }

    /// It was ejected, and works again: earlier failures are of another time.
    pub fn forgive(&mut self) {
        self.errors = 0.0;
    }

    /// How long calls take, as a peak that decays: a longer one counts at once, shorter ones gradually.
    /// Nothing if none has ended.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        (self.seen != Instant::ZERO).then(|| Duration::from_nanos(self.latency_ns as u64))
    }

    /// What share of its calls fails, from 0 to 1, decaying.
    #[inline]
    #[must_use]
    pub fn errors(&self, now: Instant) -> f64 {
        if self.errors == 0.0 {
            return 0.0;
        }
        self.errors * kept(self.seen, now)
    }

    #[inline]
    pub(crate) fn latency_ns(&self) -> f64 {
        self.latency_ns
    }

    /// When a call last ended.
    #[inline]
    pub(crate) fn seen(&self) -> Instant {
        self.seen
    }

    #[inline]
    pub(crate) fn is_unknown(&self) -> bool {
        self.seen == Instant::ZERO
    }
}

/// What is kept of the past: 1 ÷ (1 + t/τ), which is e^(−t/τ) where it matters, for a division.
#[inline]
fn kept(from: Instant, to: Instant) -> f64 {
    let passed_ns = to.as_nanos().saturating_sub(from.as_nanos());
    TAU_NS / (TAU_NS + passed_ns as f64)
}

/// In 64 bits, which divide and convert faster.
#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
