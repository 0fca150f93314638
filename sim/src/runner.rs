//! Many seeds on several cores, with a bar, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use ringcall_sim::{Failure, Marks, Options, minimise, run};

/// Of so many seeds one is run twice, and must do the same.
const TWICE_EVERY: u64 = 50;
/// So many seeds must leave out no mark.
const SEEDS_A_MARK: u64 = 1000;

/// Which seeds.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) seeds: u64,
    pub(crate) from: u64,
    /// Zero: as many as there are.
    pub(crate) cores: u64,
    /// Goes on where the last run of the same seeds was interrupted.
    pub(crate) resumes: bool,
    /// A failing seed is not made smaller.
    pub(crate) as_is: bool,
}

#[derive(Default)]
struct Tally {
    marks: Marks,
    events: u64,
    calls: u64,
    simulated_ns: u64,
    memory_worst: u64,
    failure: Option<Failure>,
    /// Seeds from the first on of which all are done, and those beyond.
    done: u64,
    beyond: BTreeSet<u64>,
    /// Marks of each thousand that is not complete, and how many are and left out none.
    thousands: BTreeMap<u64, Marks>,
    complete: u64,
    /// Marks that a thousand has left out.
    left_out: Option<String>,
}

pub(crate) fn run_many(plan: &Plan, options: &Options) -> Result<(), String> {
    let file = progress_file(plan, options);
    let start = match plan.resumes {
        true => fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok()),
        false => None,
    };
    // Of a thousand that was not complete, no mark is known.
    let complete = start.unwrap_or(0) / SEEDS_A_MARK;
    let first = plan.from + complete * SEEDS_A_MARK;
    let end = plan.from + plan.seeds;
    let bar = ProgressBar::new(end - first);
    let style = "{elapsed_precise} {bar:40} {pos}/{len} seeds  {per_sec}  {eta} left  {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("it is a template"));
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let tally = Mutex::new(Tally { done: first, complete, ..Tally::default() });
    let began = Instant::now();
    let cores = match plan.cores {
        0 => thread::available_parallelism().map_or(1, usize::from),
        cores => cores as usize,
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    if !run_seed(seed, options, &tally, &file, plan.from) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let tally = tally.into_inner().expect("no thread has panicked");
    if let Some(failure) = tally.failure {
        return Err(if plan.as_is { first_line(&failure) } else { tell(failure, options) });
    }
    let seconds = began.elapsed().as_secs_f64();
    let seeds = end - first;
    println!(
        "{seeds} seeds hold: {} events ({:.0} a second on {cores} cores), {} calls, {:.0} simulated \
         hours, in {seconds:.0} s; memory at most {:.1} % of what it may be",
        tally.events,
        tally.events as f64 / seconds,
        tally.calls,
        tally.simulated_ns as f64 / 3.6e12,
        tally.memory_worst as f64 / 10.0,
    );
    let _removed = fs::remove_file(file);
    for (name, n) in tally.marks.iter() {
        println!("  {name:<24} {n:>12}");
    }
    tally.left_out.map_or(Ok(()), Err)
}

/// Says whether the seed holds.
fn run_seed(seed: u64, options: &Options, tally: &Mutex<Tally>, file: &PathBuf, from: u64) -> bool {
    let mut outcome = run(seed, options);
    if let Ok(report) = &outcome
        && seed.is_multiple_of(TWICE_EVERY)
        && run(seed, options).map(|again| again.hash).ok() != Some(report.hash)
    {
        let message = "the same seed does something else the second time".to_owned();
        outcome = Err(Failure { seed, message, events: report.events });
    }
    let mut tally = tally.lock().expect("no thread has panicked");
    match outcome {
        Ok(report) => {
            tally.marks.add(&report.marks);
            let thousand = (seed - from) / SEEDS_A_MARK;
            tally.thousands.entry(thousand).or_default().add(&report.marks);
            tally.events += report.events;
            tally.calls += report.calls;
            tally.simulated_ns += report.simulated_ns;
            tally.memory_worst = tally.memory_worst.max(report.memory_worst);
            tally.beyond.insert(seed);
            while tally.beyond.first() == Some(&tally.done) {
                tally.beyond.pop_first();
                tally.done += 1;
            }
            let done = tally.done - from;
            if done / SEEDS_A_MARK > tally.complete {
                let complete = tally.complete;
                let marks = tally.thousands.remove(&complete).unwrap_or_default();
                tally.left_out = left_out(&marks, from + complete * SEEDS_A_MARK);
                tally.complete += 1;
                if tally.left_out.is_some() {
                    return false;
                }
            }
            if done.is_multiple_of(100) && done > 0 {
                let _written = fs::write(file, done.to_string());
            }
            true
        }
        Err(failure) => {
            // Of several the one with the lowest seed is told.
            if tally.failure.as_ref().is_none_or(|other| failure.seed < other.seed) {
                tally.failure = Some(failure);
            }
            false
        }
    }
}

fn progress_file(plan: &Plan, options: &Options) -> PathBuf {
    // All names of faults together are too long for the name of a file.
    let without = options.without.bits();
    // Nor is what another program has done: the next one may have what it was stopped for mended.
    let program = std::env::current_exe().and_then(fs::metadata).and_then(|of| of.modified());
    let built = program.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let name = format!(
        "sim-{}-{}-{}-{without:x}-{:x}",
        plan.from,
        plan.seeds,
        options.events,
        built.as_nanos()
    );
    std::env::temp_dir().join(format!("ringcall-{name}.progress"))
}

fn first_line(failure: &Failure) -> String {
    format!("seed {} fails: {}", failure.seed, failure.message)
}

fn tell(failure: Failure, options: &Options) -> String {
    let first = first_line(&failure);
    let (options, failure) = minimise(failure, options);
    let mut command =
        format!("cargo xtask sim --seed {} --events {}", failure.seed, options.events);
    let without = options.without.names();
    if !without.is_empty() {
        command += &format!(" --without {without}");
    }
    format!(
        "{first}\nmade smaller, after {} events: {}\n\n    {command}\n",
        failure.events, failure.message
    )
}

/// Every fault and every mark must have come about in a thousand seeds: those that did not.
fn left_out(marks: &Marks, from: u64) -> Option<String> {
    let never: Vec<String> = marks.iter().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect();
    let told = || {
        format!("in the thousand seeds from {from} on these never happened: {}", never.join(", "))
    };
    (!never.is_empty()).then(told)
}

#[cfg(test)]
mod tests {
    use ringcall_sim::{Fault, FaultSet};

    use super::*;

    #[test]
    fn a_mark_that_a_thousand_leaves_out_is_told() {
        let told = left_out(&Marks::default(), 2000).expect("it has none");
        assert!(told.contains("from 2000 on") && told.contains("mark "), "{told}");
    }

    #[test]
    fn runs_that_differ_do_not_resume_each_other() {
        let plan = Plan { seeds: 100, ..Plan::default() };
        let all = Options::default();
        let without = FaultSet::default().with(Fault::Crash);
        let fewer = Options { without, ..Options::default() };
        assert_ne!(progress_file(&plan, &all), progress_file(&plan, &fewer));
        let later = Plan { from: 7, seeds: 100, ..Plan::default() };
        assert_ne!(progress_file(&plan, &all), progress_file(&later, &all));
    }
}
