//! A server: so many workers, and a queue before them.

use std::collections::VecDeque;
use std::time::Duration;

use ringcall_core::{Cause, CloseReason, Failure, Instant, Status, TransportError};

/// Calls that wait at a server; more are refused.
const QUEUE_MAX: usize = 1000;
/// How much longer calls take at a server that is cold.
const COLD: f64 = 4.0;
/// How long it takes until clients know how a server does.
const TOLD: Duration = Duration::from_millis(1);

/// How a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should.
    Up,
    /// Refuses new calls, finishes what it has; its clients know.
    Draining,
    /// Nobody is there. Its clients' connections know, if `is_known`.
    Down {
        /// Whether connections to it are known to be broken.
        is_known: bool,
    },
    /// Answers every call with an error, at once.
    FailsFast,
    /// Refuses every call as overloaded, at once.
    Refuses,
    /// Answers small calls, and never hears of large ones.
    LosesLarge,
}

/// An attempt of a call, at a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) call: u64,
    pub(crate) attempt: u8,
    pub(crate) server: usize,
    /// How much work it is: 1 is ordinary.
    pub(crate) cost: f32,
    pub(crate) is_large: bool,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    /// How it does.
    pub health: Health,
    /// Calls it works on at a time.
    pub workers: u32,
    /// How long one takes, on average.
    pub service: Duration,
    /// Since when, and until when, it is cold: calls take four times as long at first.
    pub cold: Option<(Instant, Instant)>,
    working: Vec<Job>,
    queue: VecDeque<Job>,
    /// Of the current second: attempts that arrived, worker-nanoseconds that were busy up to `counted`, and whether it
    /// was well all the time.
    arrived: u64,
    busy_ns: u64,
    counted: Instant,
    pub(crate) was_well: bool,
    ordinary: Duration,
    /// How it did before, and how it does since then, as clients are told.
    told: (Health, Health, Instant),
}

/// What becomes of an attempt that arrives.
pub(crate) enum Arrival {
    Waits,
    Refused(Failure),
    /// Nobody hears of it.
    Lost,
}

impl Server {
    pub(crate) fn new(workers: u32, service: Duration, now: Instant) -> Server {
        Server {
            health: Health::Up,
            workers,
            service,
            cold: None,
            working: Vec::new(),
            queue: VecDeque::new(),
            arrived: 0,
            busy_ns: 0,
            counted: now,
            was_well: true,
            ordinary: service,
            told: (Health::Up, Health::Up, now),
        }
    }

    /// Clients are told if it does otherwise than before.
    pub(crate) fn tell(&mut self, now: Instant) {
        let (_, last, _) = self.told;
        if last != self.health {
            self.told = (last, self.health, now);
        }
    }

    /// How it does, as far as clients know.
    pub(crate) fn told(&self, now: Instant) -> Health {
        let (before, last, since) = self.told;
        if now >= since + TOLD { last } else { before }
    }

    /// How busy it is, in thousandths: half when all of its workers are, more when calls wait.
    pub(crate) fn load(&self) -> u16 {
        let calls = (self.working.len() + self.queue.len()) as u64;
        (calls * 500 / u64::from(self.workers)).clamp(1, 1000) as u16
    }

    /// Whether nothing is wrong with it now.
    pub(crate) fn is_well(&self) -> bool {
        self.health == Health::Up && self.service == self.ordinary && self.cold.is_none()
    }

    pub(crate) fn arrives(&mut self, job: Job) -> Arrival {
        self.arrived += 1;
        let refused =
            |status| Arrival::Refused(Failure::from_status(status, 0).expect("it is no answer"));
        match self.health {
            Health::Up | Health::LosesLarge if self.queue.len() >= QUEUE_MAX => {
                refused(Status::OVERLOADED)
            }
            Health::LosesLarge if job.is_large => Arrival::Lost,
            Health::Up | Health::LosesLarge => {
                self.queue.push_back(job);
                Arrival::Waits
            }
            Health::Draining => refused(Status::DRAINING),
            Health::Down { .. } => {
                let nobody = CloseReason::Transport(TransportError::Refused);
                Arrival::Refused(Failure::not_sent(Cause::Closed(nobody)))
            }
            Health::FailsFast => refused(Status::INTERNAL),
            Health::Refuses => refused(Status::OVERLOADED),
        }
    }

    /// The next attempt for a worker who has nothing to do, of those that somebody waits for; and how long it takes.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        is_wanted: impl Fn(&Job) -> bool,
    ) -> Option<(Job, Duration)> {
        if self.working.len() >= self.workers as usize {
            return None;
        }
        let job = loop {
            let job = self.queue.pop_front()?;
            if is_wanted(&job) {
                break job;
            }
        };
        self.count(now);
        self.working.push(job);
        Some((job, self.service.mul_f64(f64::from(job.cost) * self.coldness(now))))
    }

    /// Whether the work on it was still going on.
    pub(crate) fn served(&mut self, now: Instant, job: &Job) -> bool {
        let is_same = |it: &Job| (it.call, it.attempt) == (job.call, job.attempt);
        let Some(at) = self.working.iter().position(is_same) else { return false };
        self.count(now);
        self.working.swap_remove(at);
        true
    }

    /// All that it had is lost.
    pub(crate) fn crash(&mut self, now: Instant) -> Vec<Job> {
        self.count(now);
        let lost = self.working.drain(..).chain(self.queue.drain(..));
        lost.collect()
    }

    /// A second is over: attempts that arrived in it, and the share of the workers that was busy.
    pub(crate) fn close_second(&mut self, now: Instant) -> (u64, f64, bool) {
        self.count(now);
        let busy = std::mem::take(&mut self.busy_ns) as f64 / 1e9 / f64::from(self.workers);
        let was_well = std::mem::replace(&mut self.was_well, true) && self.is_well();
        (std::mem::take(&mut self.arrived), busy, was_well)
    }

    fn count(&mut self, now: Instant) {
        let passed = now.since(self.counted).as_nanos() as u64;
        self.busy_ns += passed * self.working.len() as u64;
        self.counted = now;
    }

    fn coldness(&mut self, now: Instant) -> f64 {
        let Some((since, until)) = self.cold else { return 1.0 };
        if until <= now {
            self.cold = None;
            return 1.0;
        }
        let left = until.since(now).as_secs_f64() / until.since(since).as_secs_f64();
        1.0 + (COLD - 1.0) * left
    }
}
