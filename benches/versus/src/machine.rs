//! Cores, processes and what they have used.

use std::process;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::subjects::Side;
use crate::system_calls::SystemCalls;
use crate::{Result, allocator};

/// Longer than any measurement takes.
const CHILD_LIFE_MAX: Duration = Duration::from_secs(90);

/// Pins this process to its side's core, and sees to it that it ends with its parent, or by itself.
pub(crate) fn become_child(side: Side) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let cores = cores()?;
    let core = match side {
        Side::Server => cores.first(),
        Side::Client => cores.last(),
    };
    pin_this_thread(*core.ok_or("this process may run on no core")?)?;
    thread::Builder::new().name("watchdog".into()).spawn(|| {
        #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
        thread::sleep(CHILD_LIFE_MAX);
        eprintln!("versus: nothing happened for {CHILD_LIFE_MAX:?}");
        process::exit(1);
    })?;
    Ok(())
}

/// How long a word of memory takes from the server's core to the client's and back, at best: what both share goes the same
/// way. A hypervisor may run two cores side by side or far from each other, and change that at any time.
pub(crate) fn between_cores_ns() -> Result<Option<f64>> {
    let &[here, there] = &cores()?[..] else { return Ok(None) };
    let word = AtomicU64::new(0);
    let best = thread::scope(|scope| {
        // Neither leaves the other one alone, pinned or not.
        let answering = scope.spawn(|| {
            let pinned = pin_this_thread(there);
            answer(&word);
            pinned
        });
        let asking = scope.spawn(|| {
            let pinned = pin_this_thread(here);
            let best = (0..TRIES).map(|turn| exchange(&word, turn)).min();
            pinned.map(|()| best)
        });
        let panicked = |_| "a thread that measures the cores panicked";
        answering.join().map_err(panicked)??;
        asking.join().map_err(panicked)?
    })?;
    Ok(best.map(|time| time.as_nanos() as f64 / EXCHANGES as f64))
}

/// Of so many exchanges each; the best counts, since others may want a core for a while.
const TRIES: u64 = 8;
const EXCHANGES: u64 = 5_000;

/// Odd numbers are questions, the even ones behind them are answers.
fn exchange(word: &AtomicU64, turn: u64) -> Duration {
    let begin = Instant::now();
    for question in turn * EXCHANGES..(turn + 1) * EXCHANGES {
        word.store(2 * question + 1, Release);
        while word.load(Acquire) != 2 * question + 2 {
            std::hint::spin_loop();
        }
    }
    begin.elapsed()
}

fn answer(word: &AtomicU64) {
    for question in 0..TRIES * EXCHANGES {
        while word.load(Acquire) != 2 * question + 1 {
            std::hint::spin_loop();
        }
        word.store(2 * question + 2, Release);
    }
}

fn pin_this_thread(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The first two cores that this process may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).take(2).collect())
}

/// Both processes of a measurement, as the client sees them.
pub(crate) struct Both {
    server: u32,
    /// Which they are pinned to: two, or one if there is no other.
    cores: Vec<usize>,
    /// Whether the server counts allocations, as this process does.
    counts: bool,
    system_calls: Option<SystemCalls>,
}

/// What both have used so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// In which a core of theirs was wanted and the hypervisor gave it to others.
    pub(crate) stolen_seconds: f64,
    pub(crate) allocations: Option<u64>,
    pub(crate) system_calls: Option<u64>,
}

impl Both {
    /// To be called by the client, when connections are there: system calls are those of the threads that there are, and of
    /// what they start.
    pub(crate) fn new(server: u32, counts: bool) -> Result<Both> {
        let server_runs_on = sched_getaffinity(Pid::from_raw(server as i32))?;
        let client_runs_on = sched_getaffinity(None)?;
        let is_theirs = |core: &usize| server_runs_on.is_set(*core) || client_runs_on.is_set(*core);
        let cores = (0..CpuSet::MAX_CPU).filter(is_theirs).collect();
        // Whoever started this process has said why, if it is not possible.
        let system_calls =
            counts.then(|| SystemCalls::of(&[server, process::id()])).and_then(Result::ok);
        Ok(Both { server, cores, counts, system_calls })
    }

    pub(crate) fn cores(&self) -> usize {
        self.cores.len()
    }

    pub(crate) fn usage(&mut self) -> Result<Usage> {
        let allocations = match self.counts {
            true => Some(allocator::count() + allocator::count_of(self.server)?),
            false => None,
        };
        Ok(Usage {
            cpu_seconds: cpu_seconds(self.server)? + cpu_seconds(process::id())?,
            stolen_seconds: stolen_seconds(&self.cores)?,
            allocations,
            system_calls: self.system_calls.as_mut().map(SystemCalls::count).transpose()?,
        })
    }
}

/// The time that these cores were not there for this machine.
fn stolen_seconds(cores: &[usize]) -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let mut ticks = 0;
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let core = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        // Behind user, nice, system, idle, iowait, irq and softirq.
        if core.is_some_and(|core| cores.contains(&core)) {
            ticks +=
                fields.nth(7).ok_or("/proc/stat says nothing of stolen time")?.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The time that a process has run so far, in user space and in the kernel.
fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name, in parentheses, may hold anything; user and system time are the 12th and
    // 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
