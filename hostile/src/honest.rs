//! A client that does nothing wrong, and measures: calls are due at fixed times, however long earlier ones
//! take, and each is counted once when it ends.
#![expect(clippy::disallowed_methods, reason = "measures")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringcall::observe::Observer;
use ringcall::{
    Bytes, CallError, Cause, LocalClient, Shard, ShardConfig, Status, TransportChoice, Wait,
};

use crate::victim::VictimClient;

/// How long calls may take. A peer that is slowed down is not dead, so it is longer than the default.
const DEADLINE: Duration = Duration::from_secs(5);
/// Calls that are due for longer are not made.
const LATE_MAX: Duration = Duration::from_secs(1);
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// How calls ended. Each that was begun is one of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// How many were made.
    pub begun: u64,
    /// Answered, with what it should be.
    pub ok: u64,
    /// Refused, lost with their connection, or answered with something else.
    pub error: u64,
    /// Their deadline passed, here or there.
    pub timeout: u64,
    /// Dropped by their caller.
    pub cancelled: u64,
}

impl Tally {
    /// Counts an end.
    pub fn ended<T, E>(&mut self, end: &Result<T, CallError<E>>) {
        let failure = end.as_ref().err().map(|error| error.failure().map(|failure| failure.cause));
        match failure {
            None => self.ok += 1,
            Some(Some(Cause::Cancelled)) => self.cancelled += 1,
            Some(Some(
                Cause::Expired | Cause::Status(Status::EXPIRED | Status::EXPIRED_RUNNING),
            )) => self.timeout += 1,
            Some(_) => self.error += 1,
        }
    }

    /// How many have not ended.
    #[must_use]
    pub fn open(&self) -> i128 {
        let ended = [self.ok, self.error, self.timeout, self.cancelled];
        i128::from(self.begun) - ended.into_iter().map(i128::from).sum::<i128>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { begun, ok, error, timeout, cancelled } = self;
        write!(
            f,
            "{begun} calls = {ok} ok + {error} error + {timeout} timeout + {cancelled} cancelled"
        )
    }
}

/// What a while of calls came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// How they ended.
    pub tally: Tally,
    /// How long those took that were answered.
    latencies: Histogram<u64>,
}

impl Measured {
    /// A quantile of the latency, in µs.
    #[must_use]
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// An honest client on the thread that made it.
#[derive(Debug)]
pub struct Honest {
    shard: Shard,
    local: LocalClient,
    victim: Rc<VictimClient<LocalClient>>,
}

impl Honest {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn connect(address: SocketAddr, engine: TransportChoice) -> Result<Honest, String> {
        Honest::connect_observed(address, engine, None)
    }

    /// The same, and tells somebody.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn connect_observed(
        address: SocketAddr,
        engine: TransportChoice,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Honest, String> {
        let mut config = ShardConfig::default();
        config.transport = engine;
        observer.into_iter().for_each(|observer| config.observers.add(observer));
        let shard = Shard::new(config).map_err(|error| error.to_string())?;
        let local = shard.block_on(shard.connect(address.to_string()));
        let local = local.map_err(|error| error.to_string())?;
        Ok(Honest { shard, victim: Rc::new(VictimClient::new(local.clone())), local })
    }

    /// Echoes at this rate for so long, and waits for what was begun. `tick` is called about ten times a second and
    /// says whether to go on.
    pub fn run(&self, calls_per_s: u64, time: Duration, tick: impl FnMut() -> bool) -> Measured {
        let seen = Rc::new(Seen::new());
        let spawn = |number| {
            self.shard.spawn(echo(Rc::clone(&self.victim), Rc::clone(&seen), number));
        };
        self.pace(calls_per_s, time, tick, spawn);
        self.wait_while(2 * DEADLINE, || seen.tally.get().open() > 0);
        Measured { tally: seen.tally.get(), latencies: seen.latencies.borrow().clone() }
    }

    /// Calls `begin` with 1, 2, … at this rate for so long, with `tick` as in [`run`](Honest::run). Time in which the
    /// whole process was set aside does not count: to make up for it at once would be another rate.
    pub fn pace(
        &self,
        calls_per_s: u64,
        time: Duration,
        mut tick: impl FnMut() -> bool,
        mut begin: impl FnMut(u64),
    ) {
        let (began, interval) = (Instant::now(), Duration::from_secs(1) / calls_per_s as u32);
        let (mut due, mut next_tick, mut number) = (began, began, 0);
        let mut until = began + time;
        while due < until {
            let now = Instant::now();
            let late = now.saturating_duration_since(due);
            if late > LATE_MAX {
                due += late;
                until += late;
            }
            if next_tick <= now {
                next_tick = now + Duration::from_millis(100);
                if !tick() {
                    return;
                }
            }
            while due <= now {
                number += 1;
                begin(number);
                due += interval;
            }
            self.shard.turn(Wait::AtMost(due.saturating_duration_since(Instant::now())));
        }
    }

    /// Goes on until it is not so any more, or so much time has passed.
    pub fn wait_while(&self, most: Duration, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while is_so() && began.elapsed() < most {
            self.shard.turn(Wait::AtMost(Duration::from_millis(10)));
        }
    }

    /// The thread's shard.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Its connection.
    #[must_use]
    pub fn local(&self) -> &LocalClient {
        &self.local
    }

    /// What can be called.
    #[must_use]
    pub fn victim(&self) -> &Rc<VictimClient<LocalClient>> {
        &self.victim
    }
}

struct Seen {
    tally: Cell<Tally>,
    latencies: RefCell<Histogram<u64>>,
}

impl Seen {
    fn new() -> Seen {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("sensible bounds");
        Seen { tally: Cell::default(), latencies: RefCell::new(latencies) }
    }
}

async fn echo(victim: Rc<VictimClient<LocalClient>>, seen: Rc<Seen>, number: u64) {
    // Not when it was due: how late this side's clock wakes it says nothing of the server, and no call waits for
    // another one here.
    let began = Instant::now();
    count(&seen, |tally| tally.begun += 1);
    let mut body = [0; 64];
    body[..8].copy_from_slice(&number.to_le_bytes());
    let end = victim.echo(&Bytes::copy_from_slice(&body)).deadline(DEADLINE).await;
    match end {
        Ok(answer) if answer[..] != body => count(&seen, |tally| tally.error += 1),
        end => {
            count(&seen, |tally| tally.ended(&end));
            if end.is_ok() {
                seen.latencies.borrow_mut().saturating_record(began.elapsed().as_nanos() as u64);
            }
        }
    }
}

fn count(seen: &Seen, change: impl FnOnce(&mut Tally)) {
    let mut tally = seen.tally.get();
    change(&mut tally);
    seen.tally.set(tally);
}
