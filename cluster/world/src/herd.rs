//! Clients that lost the same server at the same time, and connect again.
//!
//! Each goes by the back-off that clients of ringcall go by. What a server accepts at a time has no limit but its number of
//! connections, so what spreads them is chance alone.

use std::time::Duration;

use ringcall_core::{Backoff, Entropy, Instant, SplitMix64};

use crate::seen::Figure;

/// In so long connects are counted.
pub const WINDOW: Duration = Duration::from_millis(100);

/// When clients were connected again.
#[derive(Clone, Debug)]
pub struct Herd {
    /// How long the server was away.
    pub away: Duration,
    /// Of each client: when it was connected, counted from the server's return; sorted.
    pub connected: Vec<Duration>,
    /// Attempts in all, those in vain among them.
    pub attempts: u64,
    /// How long clients waited between the attempts around the server's return, on average.
    pub wait: Duration,
}

impl Herd {
    /// So many clients, whose server ends and is there again after `away`. Until then connects are refused at once.
    #[must_use]
    pub fn run(clients: u64, away: Duration) -> Herd {
        let lost = Instant::from_nanos(3_600_000_000_000);
        let back = lost + away;
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        let connect = |seed: u64| {
            let mut rng = SplitMix64::new(seed);
            let mut backoff = Backoff::default();
            // It was connected long ago.
            backoff.tries(Instant::from_nanos(1_000_000_000));
            let mut before = lost;
            loop {
                let at = backoff.next_try(&mut rng).max(before);
                attempts += 1;
                backoff.tries(at);
                if at >= back {
                    waited += at.since(before);
                    break at.since(back);
                }
                backoff.failed();
                before = at;
            }
        };
        let mut connected: Vec<Duration> = (0..clients).map(connect).collect();
        connected.sort_unstable();
        Herd { away, connected, attempts, wait: waited / (clients as u32).max(1) }
    }

    /// The most connects within [`WINDOW`], wherever it begins.
    #[must_use]
    pub fn worst(&self) -> usize {
        worst(&self.connected)
    }

    /// The same of a uniform [`spread`](Herd::spread).
    #[must_use]
    pub fn uniform(&self) -> usize {
        worst(&self.spread())
    }

    /// When clients would be connected if each were anywhere in its wait; sorted.
    #[must_use]
    pub fn spread(&self) -> Vec<Duration> {
        let mut rng = SplitMix64::new(0);
        let wait = self.wait.as_nanos() as u64;
        let anywhere = |_: &Duration| Duration::from_nanos(rng.below(wait.max(1)));
        let mut connected: Vec<Duration> = self.connected.iter().map(anywhere).collect();
        connected.sort_unstable();
        connected
    }

    /// What must hold: the worst window has no more than a quarter more than a uniform spread has, and everybody is
    /// connected within the longest wait.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let last = self.connected.last().copied().unwrap_or_default();
        let worst = self.worst() as f64 / self.uniform() as f64;
        vec![
            Figure::at_most("connects in the worst 100 ms / uniform spread", worst, 1.25),
            Figure::at_most("seconds until the last is connected", last.as_secs_f64(), 45.0),
        ]
    }
}

fn worst(connected: &[Duration]) -> usize {
    let until = |from: &Duration| connected.partition_point(|at| *at < *from + WINDOW);
    let counts = connected.iter().enumerate().map(|(n, from)| until(from) - n);
    counts.max().unwrap_or(0)
}
