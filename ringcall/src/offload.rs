//! A bounded pool of threads for work that blocks or computes long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use std::{iter, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};
use ringcall_core::{Clock, Instant};

use crate::serve::limits::{ClassQueue, Next, QueueRule};
use crate::shard::MachineClock;

/// Is told when to try again, in milliseconds, if it is not to be done.
pub(crate) type Job = Box<dyn FnOnce(Option<u16>) + Send>;

/// What is around all that a thread of a server does, see [`Server::on_each_thread`](crate::Server::on_each_thread).
pub(crate) type AroundThread = Arc<dyn Fn(Box<dyn FnOnce()>) + Send + Sync>;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);
/// How many jobs wait for a thread at most; more are refused rather than kept.
const QUEUE_MAX: usize = 1024;

/// Threads that run jobs; started when needed, ended when idle.
pub(crate) struct Pool {
    state: Mutex<State>,
    /// A job has come.
    came: Condvar,
    threads_max: usize,
    around: Option<AroundThread>,
}

struct State {
    jobs: ClassQueue<Job>,
    threads: usize,
    /// Those of them that wait for a job.
    idle: usize,
}

impl Pool {
    /// How many threads a pool has at most unless said otherwise.
    pub(crate) const THREADS_MAX: usize = 200;

    pub(crate) fn new(threads_max: usize, rule: Option<QueueRule>) -> Arc<Pool> {
        Pool::within(threads_max, rule, None)
    }

    /// The same, with something around what each of its threads does.
    pub(crate) fn within(
        threads_max: usize,
        rule: Option<QueueRule>,
        around: Option<AroundThread>,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            state: Mutex::new(State { jobs: ClassQueue::new(rule), threads: 0, idle: 0 }),
            came: Condvar::new(),
            threads_max: threads_max.max(1),
            around,
        })
    }

    /// Another rule, for the jobs that wait as well.
    pub(crate) fn configure(&self, rule: Option<QueueRule>) {
        self.state.lock().jobs.configure(rule);
    }

    /// The time of a job that had so much was over when a thread came to it, after so long.
    pub(crate) fn expired(&self, waited: Duration, had: Duration) {
        self.state.lock().jobs.expired(waited, had);
    }

    /// Has a job of a class of priority done, which waits since then, or refused, by some thread, soon. `false` if too
    /// much of its class and higher ones waits already.
    pub(crate) fn run(self: &Arc<Self>, class: u8, since: Instant, job: Job) -> bool {
        #[cfg(feature = "sim")]
        let job = match crate::sim::offload(job) {
            Ok(()) => return true,
            Err(job) => job,
        };
        let mut state = self.state.lock();
        let is_full = state.jobs.len() >= QUEUE_MAX;
        let displaced = is_full.then(|| state.jobs.pop_below(class)).flatten();
        if is_full && displaced.is_none() {
            return false;
        }
        state.jobs.push(class, since, job);
        let is_short = state.idle < state.jobs.len() && state.threads < self.threads_max;
        state.threads += usize::from(is_short);
        let retry_after_ms = state.jobs.retry_after_ms();
        drop(state);
        self.came.notify_one();
        if is_short {
            self.start_thread();
        }
        if let Some(job) = displaced {
            job(Some(retry_after_ms));
        }
        true
    }

    /// It is counted already.
    fn start_thread(self: &Arc<Self>) {
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("ringcall-offload".into());
        let work = move || match pool.around.clone() {
            None => pool.work(),
            Some(around) => {
                let counted = Counted(Some(pool));
                around(Box::new(move || counted.work()));
            }
        };
        if thread.spawn(work).is_err() {
            self.has_not_started();
        }
    }

    /// A thread could not be started. What waits is done by the others; without any it would wait for whoever comes next, who
    /// may start one.
    fn has_not_started(&self) {
        let (refused, retry_after_ms) = {
            let mut state = self.state.lock();
            state.threads -= 1;
            let is_nobody = state.threads == 0;
            let jobs = &mut state.jobs;
            let refused: Vec<Job> = iter::from_fn(|| is_nobody.then(|| jobs.pop())?).collect();
            (refused, state.jobs.retry_after_ms())
        };
        log::error!("cannot start a thread for offloaded work; {} jobs are refused", refused.len());
        refused.into_iter().for_each(|job| job(Some(retry_after_ms)));
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            // A job catches what its handler throws, and answers; what else is thrown has nobody to tell.
            match state.jobs.next(MachineClock.now()) {
                Some(Next { call: job, is_refused, .. }) => {
                    let again = is_refused.then(|| state.jobs.retry_after_ms());
                    let done = || catch_unwind(AssertUnwindSafe(|| job(again)));
                    if MutexGuard::unlocked(&mut state, done).is_err() {
                        log::error!("offloaded work panicked behind its handler");
                    }
                }
                None => {
                    state.idle += 1;
                    let is_over = self.came.wait_for(&mut state, IDLE).timed_out();
                    state.idle -= 1;
                    if is_over && state.jobs.is_empty() {
                        break;
                    }
                }
            }
        }
        state.threads -= 1;
    }
}

/// A thread that is counted. What is around its work is somebody's code, which may panic or not do it.
struct Counted(Option<Arc<Pool>>);

impl Counted {
    fn work(mut self) {
        if let Some(pool) = self.0.take() {
            pool.work();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(pool) = &self.0 {
            pool.state.lock().threads -= 1;
            log::error!("a thread for offloaded work ended before it did anything");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A pool of so many threads, all of them busy until the first of what is returned is dropped.
    fn busy(threads: usize) -> (mpsc::Sender<()>, Arc<Pool>) {
        let pool = Pool::new(threads, None);
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let (begun, has_begun) = mpsc::channel();
        for _ in 0..threads {
            let (released, begun) = (Arc::clone(&released), begun.clone());
            let waits = Box::new(move |_: Option<u16>| {
                let _ = begun.send(());
                let _ = released.lock().recv();
            });
            assert!(pool.run(0, Instant::ZERO, waits));
        }
        assert_eq!(has_begun.iter().take(threads).count(), threads);
        (release, pool)
    }

    #[test]
    fn runs_jobs_beside_each_other_and_refuses_what_is_too_much() {
        let (release, pool) = busy(2);
        let (done, finished) = mpsc::channel();
        let job = || -> Job {
            let done = done.clone();
            Box::new(move |refused| done.send(refused).expect("the test waits"))
        };
        let accepted = (0..QUEUE_MAX + 10).filter(|_| pool.run(1, Instant::ZERO, job())).count();
        assert_eq!(accepted, QUEUE_MAX);
        assert_eq!(pool.state.lock().threads, 2);
        drop(release);
        assert!(finished.iter().take(accepted).all(|refused| refused.is_none()));
    }

    #[test]
    fn what_nobody_can_do_is_refused() {
        let (done, finished) = mpsc::channel();
        let wait = |pool: &Pool, threads: usize| {
            let done = done.clone();
            let mut state = pool.state.lock();
            let job = Box::new(move |refused| done.send(refused).expect("the test waits"));
            state.jobs.push(1, Instant::ZERO, job);
            state.threads = threads;
        };
        // As `run` leaves it before it starts a thread.
        let pool = Pool::new(2, None);
        wait(&pool, 2);
        pool.has_not_started();
        assert!(finished.try_recv().is_err(), "the other one does it");
        wait(&pool, 1);
        pool.has_not_started();
        let refused: Vec<_> = finished.try_iter().map(|refused| refused.is_some()).collect();
        assert_eq!(refused, [true, true]);
    }

    #[test]
    fn what_is_more_important_takes_the_place_of_what_is_less() {
        let (release, pool) = busy(1);
        let (done, finished) = mpsc::channel();
        let run = |class| {
            let done = done.clone();
            let job = Box::new(move |refused| done.send((class, refused)).expect("the test waits"));
            pool.run(class, Instant::ZERO, job)
        };
        assert!((0..QUEUE_MAX).all(|_| run(1)));
        assert!(!run(1) && !run(0) && run(2));
        assert_eq!(finished.try_recv(), Ok((1, Some(0))), "the first of the others is refused");
        drop(release);
        let ran: Vec<_> = finished.iter().take(QUEUE_MAX).collect();
        assert_eq!(ran[0], (2, None), "and it is done before them");
        assert!(ran[1..].iter().all(|end| *end == (1, None)));
    }
}
