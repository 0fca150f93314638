//! A thread with a shard, for what goes on beside a program.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io, thread};

use parking_lot::Mutex;
use ringcall::{Shard, ShardConfig};

/// A thread that ends when this is dropped, once its task is ready.
pub(crate) struct OwnThread {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for OwnThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnThread").finish_non_exhaustive()
    }
}

impl OwnThread {
    /// Runs a task on a shard of its own. It has to be ready soon after it is asked to stop.
    pub(crate) fn start<F>(name: &str, config: ShardConfig, task: F) -> io::Result<OwnThread>
    where
        F: AsyncFnOnce(Shard, Stop) + Send + 'static,
    {
        let stop = Stop::default();
        let asked = stop.clone();
        let (begun, begins) = sync_channel(1);
        let run = move || match Shard::new(config) {
            Ok(shard) => {
                let _ = begun.send(Ok(()));
                shard.block_on(task(shard.clone(), asked));
            }
            Err(error) => drop(begun.send(Err(io::Error::other(error)))),
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        begins.recv().map_err(|_| io::Error::other("the thread has ended"))??;
        Ok(OwnThread { stop, thread: Some(thread) })
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a thread of the registry panicked");
        }
    }
}

/// Asks a task to end.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    is_asked: bool,
    waker: Option<Waker>,
}

impl Stop {
    pub(crate) fn ask(&self) {
        let waker = {
            let mut asked = self.0.lock();
            asked.is_asked = true;
            asked.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ready when it is asked. For one task.
    pub(crate) async fn asked(&self) {
        poll_fn(|cx| {
            let mut asked = self.0.lock();
            if asked.is_asked {
                return Poll::Ready(());
            }
            asked.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What the future gives, unless it is asked to stop before.
    pub(crate) async fn unless<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        before(self.asked(), future).await
    }
}

/// Asks when it is dropped.
pub(crate) struct StopOnDrop(pub(crate) Stop);

impl fmt::Debug for StopOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopOnDrop")
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.ask();
    }
}

/// Who follows something: a thread that ends when this is dropped, or a task on somebody else's shard, which does, too.
#[derive(Debug)]
#[expect(dead_code, reason = "dropping it ends it")]
pub(crate) enum Follows {
    Thread(OwnThread),
    Task(StopOnDrop),
}

/// What the future gives, unless it takes longer than that.
pub(crate) async fn within<T>(
    shard: &Shard,
    time: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    before(shard.sleep(time), future).await
}

/// Does all of this at a time, in one task: unlike tasks of their own, which hold their shard, it ends with whoever does it.
pub(crate) async fn together(all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    let mut all: Vec<_> = all.into_iter().map(Some).collect();
    poll_fn(|cx| {
        for each in &mut all {
            if each.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
                *each = None;
            }
        }
        if all.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What the future gives, unless this end comes before.
async fn before<T>(end: impl Future<Output = ()>, future: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut future) = (pin!(end), pin!(future));
    poll_fn(|cx| match end.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}
