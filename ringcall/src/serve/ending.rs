//! The end of a server in code that must not block: a thread of its own does what blocks, and wakes a future.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use super::running::{Hurry, RunningServer};
use super::signals::Signals;
use crate::ServeError;
use crate::shard::DrainReport;

/// A server that drains, see [`RunningServer::drained`].
#[must_use = "dropping it cancels what runs"]
pub struct Drained {
    end: Arc<Ending>,
    /// `None` once it has ended.
    hurry: Option<Hurry>,
}

/// What the future shares with the thread.
#[derive(Default)]
struct Ending {
    /// A hook of the user's may have panicked.
    report: Mutex<Option<thread::Result<DrainReport>>>,
    waker: AtomicWaker,
}

impl Ending {
    fn drain(&self, running: RunningServer) {
        let report = catch_unwind(AssertUnwindSafe(|| running.drain()));
        *self.report.lock() = Some(report);
        self.waker.wake();
    }
}

impl Drained {
    fn begin(running: RunningServer) -> Drained {
        let (hurry, end) = (running.hurry(), Arc::<Ending>::default());
        let drained = Drained { end: Arc::clone(&end), hurry: Some(hurry) };
        // Not in the closure: that is lost if there is no thread to run it.
        let kept = Arc::new(Mutex::new(Some(running)));
        let (running, on_thread) = (Arc::clone(&kept), Arc::clone(&end));
        let spawned = thread::Builder::new().name("ringcall-drain".into()).spawn(move || {
            let running = running.lock().take();
            running.into_iter().for_each(|running| on_thread.drain(running));
        });
        if let Err(error) = spawned {
            log::error!("cannot start a thread to drain on, so this one waits: {error}");
            let running = kept.lock().take();
            running.into_iter().for_each(|running| end.drain(running));
        }
        drained
    }
}

impl Future for Drained {
    type Output = DrainReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<DrainReport> {
        self.end.waker.register(cx.waker());
        let Some(report) = self.end.report.lock().take() else { return Poll::Pending };
        self.hurry = None;
        Poll::Ready(report.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some(hurry) = &self.hurry {
            hurry.up();
        }
    }
}

impl std::fmt::Debug for Drained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drained").field("has_ended", &self.hurry.is_none()).finish_non_exhaustive()
    }
}

/// A server whose future may be dropped before it was told to end: that must not block either.
struct Until(Option<RunningServer>);

impl Until {
    async fn drained(mut self) -> DrainReport {
        match self.0.take() {
            Some(running) => running.drained().await,
            None => DrainReport::default(),
        }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        drop(self.0.take().map(RunningServer::drained));
    }
}

impl RunningServer {
    /// [`drain`](RunningServer::drain) for async code, on any executor: blocks no thread of it, so that handlers that run
    /// there can finish. A thread of its own waits, and runs the hooks and registries, which may block.
    ///
    /// It begins now, not when the future is polled. If the future is dropped before it is ready, what runs is cancelled, as by
    /// a second signal, and nobody waits for the end.
    ///
    /// ```no_run
    /// # async fn example(running: ringcall::RunningServer) {
    /// let report = running.drained().await;
    /// println!("{report}");
    /// # }
    /// ```
    pub fn drained(self) -> Drained {
        Drained::begin(self)
    }

    /// Serves until a future is ready, and is then [drained](RunningServer::drained): what other servers call a graceful
    /// shutdown with a signal. What that future comes to does not matter.
    ///
    /// If this future is dropped before, the server ends without waiting for what runs, and without blocking.
    ///
    /// ```no_run
    /// # async fn example(server: ringcall::Server, closing: impl Future<Output = ()>)
    /// # -> Result<(), ringcall::ServeError> {
    /// let running = server.start()?;
    /// println!("listening at {}", running.address());
    /// let report = running.run_until(closing).await; // `tokio::signal::ctrl_c()`, a channel, …
    /// # Ok(()) }
    /// ```
    pub fn run_until<S: Future>(self, signal: S) -> impl Future<Output = DrainReport> + use<S> {
        let running = Until(Some(self));
        async move {
            signal.await;
            running.drained().await
        }
    }

    /// Serves until the process is told to end, by SIGTERM or SIGINT, and is then
    /// [drained](RunningServer::drained): [`Server::run`](crate::Server::run) for async code. A second signal cancels what
    /// runs. The signals are caught from now on, and do again what they do by default when the future is ready or dropped.
    ///
    /// If this future is dropped before, the server ends without waiting for what runs, and without blocking.
    ///
    /// # Errors
    /// When the signals cannot be watched; the server then ends, too.
    pub fn until_signalled(
        self,
    ) -> impl Future<Output = Result<DrainReport, ServeError>> + Send + use<> {
        let (running, signals) = (Until(Some(self)), Signals::watch());
        async move {
            let signals = signals.map_err(ServeError::Thread)?;
            signals.told().map_err(ServeError::Thread)?.await;
            log::info!("told to end: draining");
            if let Some(running) = &running.0 {
                running.hurry_on_next(&signals);
            }
            Ok(running.drained().await)
        }
    }
}
