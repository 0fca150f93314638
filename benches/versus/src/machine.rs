//! Cores, processes and the time they have used.

use std::process;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::subjects::Side;

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
    let mut set = CpuSet::new();
    set.set(*core.ok_or("this process may run on no core")?);
    sched_setaffinity(None, &set)?;
    thread::Builder::new().name("watchdog".into()).spawn(|| {
        #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
        thread::sleep(CHILD_LIFE_MAX);
        eprintln!("versus: nothing happened for {CHILD_LIFE_MAX:?}");
        process::exit(1);
    })?;
    Ok(())
}

/// The first two cores that this process may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).take(2).collect())
}

/// The time that a process has run so far, in user space and in the kernel.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name, in parentheses, may hold anything; user and system time are the 12th and
    // 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}
