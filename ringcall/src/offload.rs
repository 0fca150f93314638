//! A bounded pool of threads for work that blocks or computes long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use ringcall_core::Instant;

use crate::serve::limits::{CoDel, QueueRule};

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// How many jobs wait for a thread at most; more are refused rather than kept.
const QUEUE_MAX: usize = 1024;

/// Threads that run jobs; started when needed, ended when idle.
pub(crate) struct Pool {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    threads_max: usize,
    threads: AtomicUsize,
    idle: AtomicUsize,
    /// Which jobs have waited too long.
    rule: Option<(Mutex<CoDel>, QueueRule)>,
}

impl Pool {
    /// How many threads a pool has at most unless said otherwise.
    pub(crate) const THREADS_MAX: usize = 200;

    pub(crate) fn new(threads_max: usize, rule: Option<QueueRule>) -> Arc<Pool> {
        let (sender, receiver) = bounded(QUEUE_MAX);
        Arc::new(Pool {
            sender,
            receiver,
            threads_max: threads_max.max(1),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            rule: rule.map(|rule| (Mutex::new(CoDel::new(rule)), rule)),
        })
    }

    /// Whether a job that a thread has come to, after so long, is not worth it. Then it is when to try again, in
    /// milliseconds.
    pub(crate) fn refuses(&self, now: Instant, waited: Duration) -> Option<u16> {
        let (codel, rule) = self.rule.as_ref()?;
        let is_refused = codel.lock().refuses(now, waited, self.receiver.len());
        is_refused.then(|| rule.retry_after_ms())
    }

    /// The time of a job that had so much was over when a thread came to it, after so long.
    pub(crate) fn expired(&self, waited: Duration, had: Duration) {
        self.rule.iter().for_each(|(codel, _)| codel.lock().expired(waited, had));
    }

    /// Runs a job on some thread, soon; `false` if too much waits already.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> bool {
        #[cfg(feature = "sim")]
        let job = match crate::sim::offload(job) {
            Ok(()) => return true,
            Err(job) => job,
        };
        match self.sender.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
        }
        if self.idle.load(Ordering::Acquire) < self.receiver.len() {
            self.start_thread();
        }
        true
    }

    fn start_thread(self: &Arc<Self>) {
        let more = |threads| (threads < self.threads_max).then_some(threads + 1);
        if self.threads.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return;
        }
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("ringcall-offload".into());
        if thread.spawn(move || pool.work()).is_err() {
            self.threads.fetch_sub(1, Ordering::AcqRel);
            log::error!(
                "cannot start a thread for offloaded work; what waits is done by the others"
            );
        }
    }

    fn work(&self) {
        loop {
            self.idle.fetch_add(1, Ordering::AcqRel);
            let job = self.receiver.recv_timeout(IDLE);
            self.idle.fetch_sub(1, Ordering::AcqRel);
            match job {
                // A job catches what its handler throws; the thread goes on.
                Ok(job) => job(),
                Err(_) => break,
            }
        }
        self.threads.fetch_sub(1, Ordering::AcqRel);
        // A job may have come while this thread was ending, and have counted on it.
        if let Ok(job) = self.receiver.try_recv() {
            job();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn runs_jobs_beside_each_other_and_refuses_what_is_too_much() {
        let pool = Pool::new(2, None);
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(parking_lot::Mutex::new(released));
        let (done, finished) = mpsc::channel();
        let job = |done: mpsc::Sender<()>| -> Job {
            let released = Arc::clone(&released);
            Box::new(move || {
                let _ = released.lock().recv();
                let _ = done.send(());
            })
        };
        let accepted = (0..QUEUE_MAX + 10).filter(|_| pool.run(job(done.clone()))).count();
        assert!((QUEUE_MAX..QUEUE_MAX + 3).contains(&accepted), "{accepted}");
        assert!(pool.threads.load(Ordering::Acquire) <= 2);
        drop((release, done));
        assert_eq!(finished.iter().count(), accepted);
    }
}
