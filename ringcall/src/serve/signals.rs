//! SIGTERM and SIGINT, while a server runs.

use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;

use atomic_waker::AtomicWaker;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Watches the signals that tell a process to end, until it is dropped.
pub(super) struct Signals {
    /// A byte a signal.
    arriving: UnixStream,
    ids: Vec<SigId>,
    /// From then on they do what they do by default.
    is_over: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn watch() -> io::Result<Signals> {
        let (arriving, sender) = UnixStream::pair()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut signals = Signals { arriving, ids: Vec::new(), is_over };
        for signal in [SIGTERM, SIGINT] {
            signals.ids.push(low_level::pipe::register(signal, sender.try_clone()?)?);
            // Stays: handlers cannot be taken out of a process again.
            flag::register_conditional_default(signal, Arc::clone(&signals.is_over))?;
        }
        Ok(signals)
    }

    /// Waits for the next one.
    pub(super) fn wait(&self) {
        next(&self.arriving);
    }

    /// Does something, on another thread, when the next one comes.
    pub(super) fn on_next(&self, what: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let arriving = self.arriving.try_clone()?;
        let is_over = Arc::clone(&self.is_over);
        let thread = thread::Builder::new().name("ringcall-signals".into());
        let watching = move || {
            next(&arriving);
            if !is_over.load(Ordering::Acquire) {
                what();
            }
        };
        thread.spawn(watching).map(drop)
    }

    /// Ready when the next one has come.
    pub(super) fn told(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let told = Arc::<Told>::default();
        let telling = Arc::clone(&told);
        self.on_next(move || telling.tell())?;
        Ok(poll_fn(move |cx| {
            told.waker.register(cx.waker());
            if told.is_told.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}

/// Whether a signal has come, and who waits for it.
#[derive(Default)]
struct Told {
    is_told: AtomicBool,
    waker: AtomicWaker,
}

impl Told {
    fn tell(&self) {
        self.is_told.store(true, Ordering::Release);
        self.waker.wake();
    }
}

fn next(mut arriving: &UnixStream) {
    let mut byte = [0];
    while arriving.read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Whoever waits for the next one waits no longer.
        let _ = self.arriving.shutdown(std::net::Shutdown::Both);
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}
