//! A second in which the server is ten times slower, at four fifths of what it can do, and clients that try again: does
//! it end when its cause does?

use std::path::Path;
use std::time::Duration;

use plot::{Heading, Line};
use ringcall::RetryBudget;
use ringcall::limits::Limits;
use ringcall_core::Instant;

use crate::Result;
use crate::client::{BUCKET, Callers, Counts, Retries};
use crate::ladder::{capacity, normal_in};
use crate::server::Served;

const LOAD: f64 = 0.8;
const SLOWER: u32 = 10;
const TRIGGER: Duration = Duration::from_secs(2);
const TRIGGER_ENDS: Duration = Duration::from_secs(3);
const TOTAL: Duration = Duration::from_secs(8);
/// Attempts a call: the first one and three more.
const ATTEMPTS: u32 = 4;

pub(crate) fn run(svg: Option<&Path>) -> Result<()> {
    let rate = LOAD * capacity()?;
    println!(
        "{rate:.0} calls/s for {TOTAL:?}, the server {SLOWER} times slower from {TRIGGER:?} to {TRIGGER_ENDS:?}, \
         {ATTEMPTS} attempts a call"
    );
    println!(
        "{:<34} {:>9} {:>12} {:>13} {:>13} {:>14}",
        "", "calls", "amplified", "at its worst", "good at 8 s", "normal after"
    );
    let budget =
        || RetryBudget::new(10, 1, Duration::from_secs(10), Instant::from_nanos(1_000_000_000));
    let mut lines = Vec::new();
    for (name, limits, budget) in [
        ("no limits, no budget", None, None),
        ("no limits, budget of 10 %", None, Some(budget())),
        ("queue rule, no budget", Some(Limits::default()), None),
        ("queue rule, budget of 10 %", Some(Limits::default()), Some(budget())),
    ] {
        let buckets = storm(rate, limits, budget)?;
        tell(name, &buckets);
        lines.push(Line { name, points: goodput(&buckets), color: plot::color(lines.len()) });
    }
    if let Some(folder) = svg {
        let title = "share of calls that are answered; the server is slow from 2 to 3 s";
        let heading = Heading { title, note: "" };
        plot::shares(&folder.join("overload-storm.svg"), heading, "seconds", &lines)?;
    }
    Ok(())
}

fn storm(rate: f64, limits: Option<Limits>, budget: Option<RetryBudget>) -> Result<Vec<Counts>> {
    let served = Served::start(limits)?;
    let mut callers = Callers::connect(&served.server)?;
    let retries = Retries { attempts: ATTEMPTS, budget };
    let seen = callers.offer(&[(rate, TOTAL)], retries, |passed| {
        let is_slow = (TRIGGER..TRIGGER_ENDS).contains(&passed);
        served.slow_down(if is_slow { SLOWER } else { 1 });
    });
    let [all, _] = seen.classes;
    Ok(all.buckets)
}

fn tell(name: &str, buckets: &[Counts]) {
    let all = Counts::sum(buckets);
    let amplified = |counts: &Counts| f64::from(counts.attempts) / f64::from(counts.made.max(1));
    let worst = buckets.iter().map(amplified).fold(0.0, f64::max);
    let after = &buckets[(TRIGGER_ENDS.as_nanos() / BUCKET.as_nanos()) as usize..];
    let last = buckets.iter().rev().take(10);
    let (good, made) =
        last.fold((0, 0), |(good, made), counts| (good + counts.good, made + counts.made));
    println!(
        "{name:<34} {:>9} {:>10.2} × {:>11.2} × {:>12.1}% {:>14}",
        all.made,
        amplified(&all),
        worst,
        f64::from(good) / f64::from(made.max(1)) * 100.0,
        normal_in(after).map_or("never".to_owned(), |time| format!("{time:?}")),
    );
}

fn goodput(buckets: &[Counts]) -> Vec<(f64, f64)> {
    let point = |(index, counts): (usize, &Counts)| {
        let at = BUCKET.as_secs_f64() * index as f64;
        (at, f64::from(counts.good) / f64::from(counts.made.max(1)))
    };
    buckets.iter().enumerate().map(point).collect()
}
