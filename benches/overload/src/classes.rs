//! How much of the more important calls is answered in time, the more is asked for, beside the others.

use std::time::Duration;

use ringcall::limits::{AdaptiveConfig, Limits};

use crate::Result;
use crate::client::{Callers, Retries};
use crate::ladder::{LATE, Step, capacity};
use crate::server::Served;

/// Of what the server can do.
const LOADS: &[f64] = &[1.0, 2.0, 10.0];
/// How many in a hundred calls are of priority 1. A tenth of ten times the capacity is all of it.
const PERCENT: &[u64] = &[5, 10];
/// What an adaptive limit keeps for them.
const KEPT: u8 = 20;

pub(crate) fn run(seconds: Duration) -> Result<()> {
    let capacity = capacity()?;
    println!("capacity, by calls that wait for each other: {capacity:.0} calls/s");
    let adaptive = || Limits::default().concurrency(AdaptiveConfig::default());
    for (name, limits) in
        [("queue rule", Limits::default()), ("adaptive, 20 % kept", adaptive().reserve(1, KEPT))]
    {
        println!("\n{name}");
        println!(
            "{:>4} {:>6} {:>8} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8}",
            "high",
            "load",
            "priority",
            "offered/s",
            "good/s",
            "good",
            "refused/s",
            "expired/s",
            "p50 ms",
            "p99 ms",
            "late p90"
        );
        for &percent in PERCENT {
            for &load in LOADS {
                step(&limits, percent, load, capacity * load, seconds)?;
            }
        }
    }
    Ok(())
}

fn step(limits: &Limits, percent: u64, load: f64, rate: f64, seconds: Duration) -> Result<()> {
    let served = Served::start(Some(limits.clone()))?;
    let mut callers = Callers::connect(&served.server)?.with_high(percent);
    let seen = callers.offer(&[(rate, seconds)], Retries::none(), |_| {});
    for (priority, class) in seen.classes.iter().enumerate().rev() {
        let step = Step::of(class, &seen.late, seconds);
        let is_late = step.late_p90_ms > LATE.as_secs_f64() * 1000.0;
        let honest = if is_late { "  the generator is too slow" } else { "" };
        println!(
            "{percent:>3}% {load:>6} {priority:>8} {:>9.0} {:>9.0} {:>7.1}% {:>9.0} {:>9.0} {:>8.1} {:>8.1} {:>8.2}{honest}",
            step.made,
            step.good,
            step.good / step.made.max(1.0) * 100.0,
            step.refused,
            step.expired,
            step.p50_ms,
            step.p99_ms,
            step.late_p90_ms,
        );
    }
    Ok(())
}
