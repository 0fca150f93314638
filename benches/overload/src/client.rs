//! Callers that do not wait: each call is made when it is due.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringcall::{Cause, LocalClient, RetryBudget, RunningServer, Shard, ShardConfig, Status, Wait};
use ringcall_core::{Entropy, Instant as CoreInstant, SplitMix64};

use crate::Result;
use crate::server::WorkClient;

/// How many clients a server has.
const CONNECTIONS: usize = 16;
/// How long a caller waits.
pub(crate) const DEADLINE: Duration = Duration::from_millis(50);
/// What happened is counted for spans of this.
pub(crate) const BUCKET: Duration = Duration::from_millis(100);

/// What became of the calls that were due in a span of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Calls that were due and made.
    pub(crate) made: u32,
    /// Attempts, the first ones among them.
    pub(crate) attempts: u32,
    /// Answered in time.
    pub(crate) good: u32,
    /// Attempts that the server refused with OVERLOADED.
    pub(crate) refused: u32,
    /// Attempts that ran out of time.
    pub(crate) expired: u32,
    /// Attempts that were not even sent, because there were as many calls as a connection may have.
    pub(crate) unsent: u32,
    pub(crate) other: u32,
}

impl Counts {
    pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Counts {
        let mut sum = Counts::default();
        all.into_iter().for_each(|counts| sum.add(counts));
        sum
    }

    fn add(&mut self, other: &Counts) {
        self.made += other.made;
        self.attempts += other.attempts;
        self.good += other.good;
        self.refused += other.refused;
        self.expired += other.expired;
        self.unsent += other.unsent;
        self.other += other.other;
    }
}

/// What is done about an attempt that failed: it is made again, at once.
pub(crate) struct Retries {
    /// How many attempts a call has at most.
    pub(crate) attempts: u32,
    pub(crate) budget: Option<RetryBudget>,
}

impl Retries {
    pub(crate) fn none() -> Retries {
        Retries { attempts: 1, budget: None }
    }
}

/// What became of the calls of a class.
#[derive(Clone, Default)]
pub(crate) struct Class {
    pub(crate) buckets: Vec<Counts>,
    /// Of good calls, in µs, from when they were due, with the span that they were due in.
    pub(crate) latencies: Vec<(usize, u32)>,
}

/// Which call an attempt is of, and the how manieth.
#[derive(Clone, Copy)]
struct Attempt {
    bucket: usize,
    /// Its priority.
    class: u8,
    number: u32,
}

struct Shared {
    began: Instant,
    classes: [Class; 2],
    retries: Retries,
    again: Vec<Attempt>,
    in_flight: usize,
}

/// Makes calls on a thread of its own, and counts.
pub(crate) struct Callers {
    shard: Shard,
    clients: Vec<WorkClient<LocalClient>>,
    rng: SplitMix64,
    /// How many in a hundred calls are of priority 1.
    high_percent: u64,
}

/// What came of a run.
pub(crate) struct Seen {
    /// By priority; all calls are of 0 [unless](Callers::with_high) some are not.
    pub(crate) classes: [Class; 2],
    /// How late calls were made, in µs; sorted.
    pub(crate) late: Vec<u32>,
}

impl Callers {
    pub(crate) fn connect(server: &RunningServer) -> Result<Callers> {
        let shard = Shard::new(ShardConfig::default())?;
        let connect = |_| shard.block_on(shard.connect(server.address()));
        let clients: std::result::Result<Vec<_>, _> = (0..CONNECTIONS).map(connect).collect();
        let clients = clients?.into_iter().map(WorkClient::new).collect();
        Ok(Callers { shard, clients, rng: SplitMix64::new(1), high_percent: 0 })
    }

    /// Makes so many in a hundred calls with priority 1.
    pub(crate) fn with_high(self, percent: u64) -> Callers {
        Callers { high_percent: percent, ..self }
    }

    /// Offers `rate` calls a second for so long. `steps` are the rates, one after the other. `now_and_then` is told how
    /// much time has passed.
    pub(crate) fn offer(
        &mut self,
        steps: &[(f64, Duration)],
        retries: Retries,
        mut now_and_then: impl FnMut(Duration),
    ) -> Seen {
        let total: Duration = steps.iter().map(|(_, time)| *time).sum();
        let began = Instant::now();
        let buckets = total.as_nanos().div_ceil(BUCKET.as_nanos()) as usize;
        let class = Class { buckets: vec![Counts::default(); buckets], latencies: Vec::new() };
        let shared = Rc::new(RefCell::new(Shared {
            began,
            classes: [class.clone(), class],
            retries,
            again: Vec::new(),
            in_flight: 0,
        }));
        let mut late = Vec::new();
        let mut begins = began;
        for &(rate, time) in steps {
            let mut due = begins;
            begins += time;
            loop {
                let now = Instant::now();
                if now >= begins {
                    break;
                }
                now_and_then(now - began);
                // A bounded number, so that answers are taken as well.
                for _ in 0..256 {
                    if due > now {
                        break;
                    }
                    late.push((now - due).as_micros() as u32);
                    self.make(&shared, due);
                    due += gap(&mut self.rng, rate);
                }
                self.turn(&shared);
            }
        }
        let until = Instant::now() + DEADLINE * 8;
        while shared.borrow().in_flight > 0 && Instant::now() < until {
            now_and_then(began.elapsed());
            self.turn(&shared);
        }
        let mut shared = shared.borrow_mut();
        Seen { classes: std::mem::take(&mut shared.classes), late: sorted(late) }
    }

    /// Calls a second if so many are always under way.
    pub(crate) fn closed(&mut self, callers: usize, time: Duration) -> f64 {
        let answered = Rc::new(Cell::new(0u32));
        let until = Instant::now() + time;
        for index in 0..callers {
            let (client, answered) =
                (self.clients[index % CONNECTIONS].clone(), Rc::clone(&answered));
            self.shard.spawn(async move {
                while Instant::now() < until {
                    if client.work(&7).await.is_ok() {
                        answered.set(answered.get() + 1);
                    }
                }
            });
        }
        let began = Instant::now();
        self.shard.run(|| Instant::now() < until);
        f64::from(answered.get()) / began.elapsed().as_secs_f64()
    }

    fn turn(&mut self, shared: &Rc<RefCell<Shared>>) {
        self.shard.turn(Wait::Now);
        let again = std::mem::take(&mut shared.borrow_mut().again);
        for attempt in again {
            self.attempt(shared, Instant::now(), attempt);
        }
    }

    /// A call that is due.
    fn make(&mut self, shared: &Rc<RefCell<Shared>>, due: Instant) {
        let class = u8::from(self.rng.below(100) < self.high_percent);
        let bucket = {
            let mut shared = shared.borrow_mut();
            let bucket = shared.bucket(due);
            shared.counts(class, bucket).made += 1;
            bucket
        };
        self.attempt(shared, due, Attempt { bucket, class, number: 1 });
    }

    /// An attempt of a call; its time runs from `due`.
    fn attempt(&mut self, shared: &Rc<RefCell<Shared>>, due: Instant, attempt: Attempt) {
        {
            let mut shared = shared.borrow_mut();
            shared.in_flight += 1;
            // Where it falls, so that a storm is seen when it rages.
            let bucket = shared.bucket(due);
            shared.counts(attempt.class, bucket).attempts += 1;
        }
        let client = &self.clients[self.rng.below(CONNECTIONS as u64) as usize];
        let left = (due + DEADLINE).saturating_duration_since(Instant::now());
        let ends = Rc::clone(shared);
        client.work(&7).priority(attempt.class).deadline(left).callback(move |answer| {
            let took = due.elapsed();
            let cause = answer.err().and_then(|error| error.failure().map(|failure| failure.cause));
            ends.borrow_mut().ended(attempt, took, cause);
        });
    }
}

impl Shared {
    /// The span of time that this is in, or the last one.
    fn bucket(&self, at: Instant) -> usize {
        let bucket = (at - self.began).as_nanos() / BUCKET.as_nanos();
        (bucket as usize).min(self.classes[0].buckets.len() - 1)
    }

    fn counts(&mut self, class: u8, bucket: usize) -> &mut Counts {
        &mut self.classes[usize::from(class)].buckets[bucket]
    }

    fn ended(&mut self, attempt: Attempt, took: Duration, cause: Option<Cause>) {
        self.in_flight -= 1;
        let now = core_now(self.began);
        let Attempt { bucket, class, number } = attempt;
        let counts = self.counts(class, bucket);
        match cause {
            None if took <= DEADLINE => {
                counts.good += 1;
                let latency = (bucket, took.as_micros() as u32);
                self.classes[usize::from(class)].latencies.push(latency);
                if let Some(budget) = &mut self.retries.budget {
                    budget.deposit(now);
                }
                return;
            }
            Some(Cause::Status(Status::OVERLOADED)) => counts.refused += 1,
            None
            | Some(Cause::Expired | Cause::Status(Status::EXPIRED | Status::EXPIRED_RUNNING)) => {
                counts.expired += 1;
            }
            Some(Cause::QueueFull) => counts.unsent += 1,
            Some(_) => counts.other += 1,
        }
        let is_allowed = number < self.retries.attempts
            && self.retries.budget.as_mut().is_none_or(|budget| budget.withdraw(now, number - 1));
        if is_allowed {
            self.again.push(Attempt { number: number + 1, ..attempt });
        }
    }
}

pub(crate) fn sorted(mut times: Vec<u32>) -> Vec<u32> {
    times.sort_unstable();
    times
}

fn core_now(began: Instant) -> CoreInstant {
    CoreInstant::from_nanos(began.elapsed().as_nanos() as u64 + 1_000_000_000)
}

/// Until the next call is due: exponentially distributed, as if by many callers who do not know of each other.
fn gap(rng: &mut SplitMix64, rate: f64) -> Duration {
    let uniform = (rng.below(1 << 53) + 1) as f64 / (1u64 << 53) as f64;
    Duration::from_secs_f64(-uniform.ln() / rate)
}
