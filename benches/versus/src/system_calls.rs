//! Counts system calls by the kernel's tracepoint `raw_syscalls:sys_enter`. Each call then takes the kernel's slow way
//! in, so times that are measured meanwhile are not worth much.

use std::fs;
use std::path::Path;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

use crate::Result;

/// Where the kernel may have its tracepoints.
const FOLDERS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// Counts those of the threads that some processes have now, and of threads that these start.
pub(crate) struct SystemCalls(Vec<Counter>);

impl SystemCalls {
    pub(crate) fn of(processes: &[u32]) -> Result<SystemCalls> {
        let tracepoint = tracepoint()?;
        let mut counters = Vec::new();
        for process in processes {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                let thread = thread?.file_name().to_string_lossy().parse()?;
                let mut builder = Builder::new(tracepoint);
                // What the kernel does for a thread is what is counted, and `enable` begins it.
                let mut counter =
                    builder.observe_pid(thread).any_cpu().inherit(true).include_kernel().build()?;
                counter.enable()?;
                counters.push(counter);
            }
        }
        Ok(SystemCalls(counters))
    }

    pub(crate) fn count(&mut self) -> Result<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            sum += counter.read()?;
        }
        Ok(sum)
    }
}

/// Why they cannot be counted here, if so.
pub(crate) fn obstacle() -> Option<String> {
    SystemCalls::of(&[std::process::id()]).err().map(|error| error.to_string())
}

fn tracepoint() -> Result<Tracepoint> {
    let path = |folder| Path::new(folder).join("raw_syscalls/sys_enter/id");
    let found = FOLDERS.into_iter().find_map(|folder| fs::read_to_string(path(folder)).ok());
    let id = found
        .ok_or("no tracepoints to be read (as root: mount -t tracefs nodev /sys/kernel/tracing)")?;
    Ok(Tracepoint::with_id(id.trim_end().parse()?))
}
