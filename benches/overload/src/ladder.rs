//! How much is answered in time, the more is asked for.

use std::path::Path;
use std::time::Duration;

use plot::{Heading, Line};
use ringcall::limits::{AdaptiveConfig, Limits};

use crate::Result;
use crate::client::{BUCKET, Callers, Class, Counts, DEADLINE, Retries, sorted};
use crate::server::Served;

/// Of what the server can do.
const LOADS: &[f64] = &[0.5, 1.0, 2.0, 4.0, 10.0];
/// What is offered after each step, and for how long.
const AFTER: f64 = 0.5;
const AFTER_FOR: Duration = Duration::from_millis(1100);
/// Who makes more than a tenth of the calls so much after they were due is no open loop.
pub(crate) const LATE: Duration = Duration::from_millis(5);

pub(crate) fn run(seconds: Duration, svg: Option<&Path>) -> Result<()> {
    let capacity = capacity()?;
    println!(
        "capacity, by calls that wait for each other: {capacity:.0} calls/s; deadline {DEADLINE:?}"
    );
    let all = [
        ("without limits", None),
        ("queue rule", Some(Limits::default())),
        ("adaptive", Some(Limits::default().concurrency(AdaptiveConfig::default()))),
    ];
    let mut lines = Vec::new();
    for (name, limits) in all {
        let steps = ladder(name, limits, capacity, seconds)?;
        let points = LOADS.iter().zip(steps).map(|(load, goodput)| (*load, goodput)).collect();
        lines.push(Line { name, points, color: plot::color(lines.len()) });
    }
    if let Some(folder) = svg {
        let title = "calls answered within 50 ms, of what the server can do at best";
        let heading = Heading { title, note: "" };
        let path = folder.join("overload-ladder.svg");
        plot::shares(&path, heading, "offered, of capacity", &lines)?;
    }
    Ok(())
}

/// Calls a second when there is always something to do and never much: the best of a few seconds.
pub(crate) fn capacity() -> Result<f64> {
    let served = Served::start(None)?;
    let mut callers = Callers::connect(&served.server)?;
    let best = (0..3).map(|_| callers.closed(8, Duration::from_millis(500))).fold(0.0, f64::max);
    Ok(best)
}

/// The goodput of each step, as a share of the best of all.
fn ladder(
    name: &str,
    limits: Option<Limits>,
    capacity: f64,
    seconds: Duration,
) -> Result<Vec<f64>> {
    println!("\n{name}");
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>10}",
        "load",
        "wanted/s",
        "offered/s",
        "good/s",
        "of peak",
        "refused/s",
        "expired/s",
        "unsent/s",
        "p50 ms",
        "p99 ms",
        "late p90",
        "normal in"
    );
    let mut steps = Vec::new();
    for &load in LOADS {
        let served = Served::start(limits.clone())?;
        let mut callers = Callers::connect(&served.server)?;
        let rates = [(load * capacity, seconds), (AFTER * capacity, AFTER_FOR)];
        let seen = callers.offer(&rates, Retries::none(), |_| {});
        let [all, _] = &seen.classes;
        steps.push((load, Step::of(all, &seen.late, seconds)));
    }
    let peak = steps.iter().map(|(_, step)| step.good).fold(1.0, f64::max);
    for (load, step) in &steps {
        let wanted = load * capacity;
        let is_late = step.late_p90_ms > LATE.as_secs_f64() * 1000.0;
        let honest = if is_late { "  the generator is too slow" } else { "" };
        println!(
            "{load:>6} {wanted:>9.0} {:>9.0} {:>9.0} {:>7.0}% {:>9.0} {:>9.0} {:>8.0} {:>8.1} {:>8.1} {:>8.2} {:>10}{honest}",
            step.made,
            step.good,
            step.good / peak * 100.0,
            step.refused,
            step.expired,
            step.unsent,
            step.p50_ms,
            step.p99_ms,
            step.late_p90_ms,
            step.normal_in.map_or("never".to_owned(), |time| format!("{time:?}")),
        );
    }
    Ok(steps.into_iter().map(|(_, step)| step.good / peak).collect())
}

/// A step, per second.
pub(crate) struct Step {
    pub(crate) made: f64,
    pub(crate) good: f64,
    pub(crate) refused: f64,
    pub(crate) expired: f64,
    unsent: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) late_p90_ms: f64,
    /// How long after the step almost all calls are answered in time.
    normal_in: Option<Duration>,
}

impl Step {
    /// Of calls that were made so late.
    pub(crate) fn of(seen: &Class, late: &[u32], seconds: Duration) -> Step {
        let buckets = (seconds.as_nanos() / BUCKET.as_nanos()) as usize;
        let (during, after) = seen.buckets.split_at(buckets);
        let sum = Counts::sum(during);
        let per_s = |count: u32| f64::from(count) / seconds.as_secs_f64();
        let of_step = seen.latencies.iter().filter(|(bucket, _)| *bucket < buckets);
        let latencies = sorted(of_step.map(|(_, micros)| *micros).collect());
        Step {
            made: per_s(sum.made),
            good: per_s(sum.good),
            refused: per_s(sum.refused),
            expired: per_s(sum.expired),
            unsent: per_s(sum.unsent),
            p50_ms: at(&latencies, 0.5),
            p99_ms: at(&latencies, 0.99),
            late_p90_ms: at(late, 0.9),
            normal_in: normal_in(after),
        }
    }
}

/// A percentile of sorted times, in milliseconds.
fn at(times: &[u32], share: f64) -> f64 {
    let index = (times.len() as f64 * share) as usize;
    times.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

/// After how much time all further spans are as they should be.
pub(crate) fn normal_in(buckets: &[Counts]) -> Option<Duration> {
    let is_normal = |counts: &Counts| f64::from(counts.good) >= f64::from(counts.made) * 0.98;
    let bad = buckets.iter().rposition(|counts| !is_normal(counts)).map_or(0, |last| last + 1);
    (bad < buckets.len()).then(|| BUCKET * bad as u32)
}
