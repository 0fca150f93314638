//! `ringcall load`.

mod meter;
mod report;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ringcall::{FailureClass, Shard, Turn, Wait};
use ringcall_generic::{Catalog, GenericCall};

use crate::args::Load;
use crate::argument::{self, Beside, Prepared};
use crate::connect::{now, reach, shard, since};
use crate::exit::{Exit, Problem};
use crate::reach::{Reached, in_registry};
use crate::screen::Screen;
use meter::Meter;
use report::Report;

/// How often somebody looks whether it shall end, and what is shown of it is renewed.
const TICK: Duration = Duration::from_millis(50);
/// A caller whose call was not even sent comes again after this long, so that a server that is gone costs no core.
const PAUSE: Duration = Duration::from_millis(10);
/// So long the thread looks on before it sleeps, when a call is due soon or has just begun: to wake up takes as long as a
/// call.
const LOOK_ON: Duration = Duration::from_micros(200);

pub(crate) fn run(args: &Load, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let beside = Beside::new(&args.call)?;
    let bytes = argument::bytes(&args.call, screen)?;
    if args.connections > 1 && in_registry(&args.server.address).is_some() {
        return Err(Problem::misused(
            "`--connections` is for one server: of a registry's service, each instance has one",
        ));
    }
    let shard = Rc::new(shard(&args.server)?);
    let connect = |_| reach(&shard, &args.server);
    let clients = (0..args.connections).map(connect).collect::<Result<Vec<_>, _>>()?;
    let prepared = prepare(args, beside, bytes, &shard, &clients[0])?;
    let interrupted = screen.on_interrupt().map_err(|error| {
        Problem::misused(format_args!("cannot listen for interruptions: {error}"))
    })?;
    let progress = progress(args.duration, screen.shows_progress());
    let start = now();
    let work = Rc::new(Work {
        prepared,
        shard: Rc::downgrade(&shard),
        meter: RefCell::new(Meter::new()),
        under_way: Cell::new(0),
        start,
        end: start + args.duration,
        interrupted,
        progress,
    });
    let due = match args.rate {
        None => {
            work.clone().in_closed_loop(&shard, &clients, args.in_flight);
            None
        }
        Some(rate) => Some(work.in_open_loop(&shard, &clients, args.in_flight, rate)),
    };
    work.progress.finish_and_clear();
    let meter = work.meter.borrow();
    Report { args, meter: &meter, time: meter.time_since(start), due, transport: shard.transport() }
        .show(screen)
}

/// What every call is, after one look at whether it is one.
fn prepare(
    args: &Load,
    beside: Beside,
    bytes: Option<Vec<u8>>,
    shard: &Shard,
    client: &Reached,
) -> Result<Prepared, Problem> {
    if args.call.raw {
        let prepared = Prepared::raw(&args.call, beside, bytes);
        return prepared.call(client).map(drop).map(|()| prepared);
    }
    let catalog = shard.block_on(Catalog::fetch(client))?;
    let method = catalog.find(&args.call.method)?;
    if method.has_streams() {
        let name = method.full_name();
        return Err(Problem::misused(format_args!("{name} has streams, of which no load is made")));
    }
    let argument = argument::value(method, bytes.as_deref())?;
    let _ = GenericCall::new(client, method, &argument)?;
    let body = method.encode_argument(&argument).map_err(Problem::misused)?;
    Ok(Prepared::of(method, &args.call, beside, body))
}

fn progress(time: Duration, is_shown: bool) -> ProgressBar {
    if !is_shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {elapsed} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(time.as_millis() as u64).with_style(style)
}

/// The calls, and what becomes of them.
struct Work {
    prepared: Prepared,
    /// Tasks must not keep the shard that runs them.
    shard: Weak<Shard>,
    meter: RefCell<Meter>,
    under_way: Cell<u32>,
    start: Instant,
    /// No call begins after it.
    end: Instant,
    interrupted: Arc<AtomicBool>,
    progress: ProgressBar,
}

impl Work {
    /// Callers who make a call when their last one has ended.
    fn in_closed_loop(self: Rc<Self>, shard: &Shard, clients: &[Reached], callers: u32) {
        self.under_way.set(callers);
        for (_, client) in (0..callers).zip(clients.iter().cycle()) {
            let (work, client) = (Rc::clone(&self), client.clone());
            shard.spawn(async move {
                while now() < work.end {
                    work.call(&client, now()).await;
                }
                work.under_way.set(work.under_way.get() - 1);
            });
        }
        shard.block_on(async {
            while self.under_way.get() > 0 && !self.is_interrupted() {
                shard.sleep(TICK).await;
                self.show_progress();
            }
        });
    }

    /// Calls that are due at fixed times, however long others take; returns how many were due.
    fn in_open_loop(
        self: &Rc<Self>,
        shard: &Shard,
        clients: &[Reached],
        at_most: u32,
        rate: u64,
    ) -> u64 {
        let mut clients = clients.iter().cycle();
        let (mut begun, mut shown) = (0, self.start);
        loop {
            let now = now();
            let is_over = now >= self.end;
            if self.is_interrupted() || (is_over && self.under_way.get() == 0) {
                return calls_due(rate, now.min(self.end) - self.start);
            }
            while !is_over && self.under_way.get() < at_most {
                let due = self.start + time_of(begun, rate);
                let Some(client) = clients.next().filter(|_| due <= now) else { break };
                self.begin(shard, client.clone(), due);
                begun += 1;
            }
            let is_held_up = is_over || self.under_way.get() == at_most;
            let next = if is_held_up { self.end } else { self.start + time_of(begun, rate) };
            self.wait(shard, now, next.saturating_duration_since(now), begun, rate);
            if now - shown >= TICK {
                self.show_progress();
                shown = now;
            }
        }
    }

    /// Turns the shard, and waits meanwhile for what is next; not for long, since others may want it to end.
    fn wait(&self, shard: &Shard, now: Instant, next: Duration, begun: u64, rate: u64) {
        let last = self.start + time_of(begun.saturating_sub(1), rate);
        let is_awaited = self.under_way.get() > 0 && now.saturating_duration_since(last) < LOOK_ON;
        let is_soon = next <= LOOK_ON && now < self.end;
        if !is_awaited && !is_soon {
            let wait = if now < self.end { next.saturating_sub(LOOK_ON) } else { TICK };
            shard.turn(Wait::AtMost(wait.min(TICK)));
        } else if shard.turn(Wait::Now) == Turn::Idle {
            // The server may want this core.
            std::thread::yield_now();
        }
    }

    fn begin(self: &Rc<Self>, shard: &Shard, client: Reached, due: Instant) {
        let work = Rc::clone(self);
        work.under_way.set(work.under_way.get() + 1);
        shard.spawn(async move {
            work.call(&client, due).await;
            work.under_way.set(work.under_way.get() - 1);
        });
    }

    /// One call, which was due then.
    async fn call(&self, client: &Reached, due: Instant) {
        let Ok(call) = self.prepared.call(client) else { return };
        self.meter.borrow_mut().begins();
        let reply = call.await;
        let ended = now();
        let is_unsent = {
            let result = &reply.result;
            let failure = result.as_ref().err().and_then(|error| error.failure());
            failure.is_some_and(|failure| failure.class == FailureClass::NotSent)
        };
        self.meter.borrow_mut().ends(ended, ended - due, &reply.result);
        if is_unsent {
            let pause = self.shard.upgrade().map(|shard| shard.sleep(PAUSE));
            if let Some(pause) = pause {
                pause.await;
            }
        } else if self.prepared.is_one_way {
            // It has ended without waiting for anything, and others want a turn.
            after_others().await;
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn show_progress(&self) {
        let meter = self.meter.borrow();
        let (calls, time) = (meter.ended(), since(self.start));
        let a_second = calls as f64 / time.as_secs_f64();
        self.progress.set_position(time.as_millis() as u64);
        let errors = calls - meter.replies();
        self.progress.set_message(format!("{a_second:.0} calls/s, {errors} errors"));
    }
}

/// When a call is due, from the start on.
fn time_of(call: u64, rate: u64) -> Duration {
    let ns = u128::from(call) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// How many calls are due before a time, the first one at the start.
fn calls_due(rate: u64, time: Duration) -> u64 {
    let calls = (time.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
    u64::try_from(calls).unwrap_or(u64::MAX)
}

async fn after_others() {
    let mut is_later = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_later, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_calls_are_due_as_the_rate_says() {
        assert_eq!(calls_due(1000, Duration::from_secs(2)), 2000);
        assert_eq!(calls_due(3, Duration::from_secs(1)), 3);
        assert_eq!(calls_due(1, Duration::from_millis(1)), 1);
        assert_eq!(calls_due(7, Duration::ZERO), 0);
        assert_eq!(time_of(0, 3), Duration::ZERO);
        assert_eq!(time_of(3, 3), Duration::from_secs(1));
        assert_eq!(time_of(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
