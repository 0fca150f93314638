//! A server on a core of its own, whose handlers compute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringcall::limits::Limits;
use ringcall::{Config, RunningServer, Server};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

#[ringcall::service(name = "overload.Work")]
pub(crate) trait Work {
    async fn work(&self, number: u64) -> u64;
}

/// How long a handler computes.
const COST: Duration = Duration::from_micros(100);

#[derive(Clone)]
struct Computes {
    /// How many times longer.
    slowness: Arc<AtomicU32>,
}

impl Work for Computes {
    async fn work(&self, number: u64) -> u64 {
        let until = Instant::now() + COST * self.slowness.load(Ordering::Relaxed);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        number
    }
}

pub(crate) struct Served {
    pub(crate) server: RunningServer,
    slowness: Arc<AtomicU32>,
}

impl Served {
    /// Leaves the calling thread on the other core.
    pub(crate) fn start(limits: Option<Limits>) -> Result<Served> {
        let cores = cores()?;
        let [first, .., last] = cores[..] else {
            return Err("two cores are needed, one for the server and one for the client".into());
        };
        let slowness = Arc::new(AtomicU32::new(1));
        let service = Computes { slowness: Arc::clone(&slowness) }.into_work();
        let mut server = Server::bind("127.0.0.1:0").service(service).config(Config::new());
        if let Some(limits) = limits {
            server = server.limits(limits);
        }
        // Threads begin where their parent is.
        pin(first)?;
        let server = server.start()?;
        pin(last)?;
        Ok(Served { server, slowness })
    }

    pub(crate) fn slow_down(&self, times: u32) {
        self.slowness.store(times, Ordering::Relaxed);
    }
}

/// Those that this process may use; asked once, before any thread is pinned.
fn cores() -> Result<Vec<usize>> {
    use std::sync::OnceLock;
    static CORES: OnceLock<Vec<usize>> = OnceLock::new();
    if let Some(cores) = CORES.get() {
        return Ok(cores.clone());
    }
    let allowed = sched_getaffinity(None)?;
    let cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    Ok(CORES.get_or_init(|| cores).clone())
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
