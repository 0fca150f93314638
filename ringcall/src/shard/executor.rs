//! A small executor for one thread: handlers that wait, and tasks that were spawned.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

use super::mail::Remote;
use crate::panics::Hint;
use crate::sync::{AtomicBool, Ordering};

/// See [`Executor::run`].
const TASKS_MIN: usize = 4;

/// Something to poll until it is ready.
pub(crate) trait Task {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// It is ready, or not wanted any more: whoever lent its memory may have it back.
    fn recycle(self: Pin<Box<Self>>);
}

pin_project! {
    /// A future of somebody's own.
    pub(crate) struct Spawned<F> {
        #[pin]
        pub(crate) future: F,
    }
}

impl<F: Future<Output = ()>> Task for Spawned<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.project().future.poll(cx)
    }

    fn recycle(self: Pin<Box<Self>>) {}
}

/// Which tasks exist, and which of them want to be polled.
pub(crate) struct Executor {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    /// A slot that is kept for the next first poll: most handlers are ready at once and leave it as it was.
    spare: Cell<Option<Spare>>,
    ready: Rc<RefCell<ReadyQueue>>,
    remote: Arc<Remote>,
    /// How many times it is entered.
    depth: Cell<u32>,
    /// What stands for it among those that are driven, while it is not entered: made once.
    entry: Cell<Option<Driven>>,
    /// The slot of the task that is being polled, innermost.
    polled: Cell<u32>,
}

/// No task is being polled.
const NONE: u32 = u32::MAX;

struct Slot {
    waker: Rc<TaskWaker>,
    content: Content,
}

enum Content {
    Free,
    Task(Pin<Box<dyn Task>>),
    /// Taken out to be polled.
    Polled,
    /// Was removed while it was being polled.
    Removed,
}

/// Made once a slot: polling counts without atomics and allocates nothing.
struct TaskWaker {
    waker: Waker,
    wake: Arc<TaskWake>,
}

/// A slot without a task, for a first poll outside of it.
pub(crate) struct Spare {
    index: u32,
    waker: Rc<TaskWaker>,
}

struct TaskWake {
    index: u32,
    /// Another thread has woken it, and the shard has not heard of that yet.
    is_sent: AtomicBool,
    remote: Arc<Remote>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // On a thread that is ending nothing is current any more.
        if CURRENT.try_with(|current| current.wake(&self.remote, self.index)).unwrap_or(false) {
            return;
        }
        if !self.is_sent.swap(true, Ordering::AcqRel) {
            self.remote.wake_task(self.index);
        }
    }
}

/// Tasks to poll, in order, each once. Of the shard's thread: what wakes there needs no atomics.
struct ReadyQueue {
    /// By task: which one is behind it, [`LAST`] or [`IDLE`].
    behind: Vec<u32>,
    first: u32,
    last: u32,
    len: usize,
}

/// The end of the queue.
const LAST: u32 = u32::MAX;
/// Of a task that is not in the queue.
const IDLE: u32 = u32::MAX - 1;

impl Default for ReadyQueue {
    fn default() -> ReadyQueue {
        ReadyQueue { behind: Vec::new(), first: LAST, last: LAST, len: 0 }
    }
}

impl ReadyQueue {
    #[inline]
    fn push(&mut self, index: u32) {
        let Some(behind) = self.behind.get_mut(index as usize) else { return };
        if *behind != IDLE {
            return;
        }
        *behind = LAST;
        match self.behind.get_mut(self.last as usize) {
            Some(behind_last) => *behind_last = index,
            None => self.first = index,
        }
        self.last = index;
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<u32> {
        let index = self.first;
        let behind = self.behind.get_mut(index as usize)?;
        self.first = std::mem::replace(behind, IDLE);
        if self.first == LAST {
            self.last = LAST;
        }
        self.len -= 1;
        Some(index)
    }
}

#[cfg(not(ringcall_loom))]
thread_local! {
    static CURRENT: Current = const { Current(RefCell::new(Vec::new())) };
}

#[cfg(ringcall_loom)]
loom::thread_local! {
    static CURRENT: Current = Current(RefCell::new(Vec::new()));
}

/// The shards that are being driven on this thread, innermost last.
struct Current(RefCell<Vec<Driven>>);

type Driven = (Arc<Remote>, Rc<RefCell<ReadyQueue>>);

impl Current {
    /// Queues a task of the innermost shard without a detour; `false` if it is another's.
    fn wake(&self, remote: &Arc<Remote>, index: u32) -> bool {
        let entered = self.0.borrow();
        let Some((current, ready)) = entered.last() else { return false };
        if !Arc::ptr_eq(current, remote) {
            return false;
        }
        ready.borrow_mut().push(index);
        true
    }
}

/// While it lives, wakes of this shard's tasks on this thread take the short way.
pub(crate) struct Entered<'a>(&'a Executor);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Executor { depth, entry, .. } = self.0;
        depth.set(depth.get() - 1);
        if let Ok(left) = CURRENT.try_with(|current| current.0.borrow_mut().pop()) {
            entry.set(left);
        }
    }
}

impl Executor {
    pub(crate) fn new(remote: &Arc<Remote>) -> Executor {
        Executor {
            slots: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            spare: Cell::new(None),
            ready: Rc::default(),
            remote: Arc::clone(remote),
            depth: Cell::new(0),
            entry: Cell::new(None),
            polled: Cell::new(NONE),
        }
    }

    pub(crate) fn enter(&self) -> Entered<'_> {
        let entry = self.entry.take();
        let entry = entry.unwrap_or_else(|| (Arc::clone(&self.remote), Rc::clone(&self.ready)));
        // A shard may be dropped by a thread that ends.
        let _ending = CURRENT.try_with(|current| current.0.borrow_mut().push(entry));
        self.depth.set(self.depth.get() + 1);
        Entered(self)
    }

    /// Whether its shard is being turned: what is done now is seen before the turn ends.
    #[inline]
    pub(crate) fn is_entered(&self) -> bool {
        self.depth.get() > 0
    }

    /// Drops all tasks: nobody will poll them any more.
    pub(crate) fn clear(&self) {
        let tasks = self.slots.borrow().len() as u32;
        (0..tasks).for_each(|index| self.remove(index));
    }

    /// Somebody's code has, and that was caught.
    pub(crate) fn panicked(&self) {
        self.remote.register.panics.add();
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready.borrow().len > 0 || self.remote.has_woken()
    }

    /// Adds a task and polls it as soon as possible.
    pub(crate) fn spawn(&self, task: Pin<Box<dyn Task>>) {
        let index = self.reserve();
        self.put(index, task);
        let wake = Arc::clone(&self.slots.borrow()[index as usize].waker.wake);
        wake.wake_by_ref();
    }

    /// Polls what may become a task, with the waker that it would have. If it is ready it never is one.
    ///
    /// # Errors
    /// Otherwise its slot, for [`put`](Self::put).
    #[inline]
    pub(crate) fn poll_first<T>(
        &self,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, u32> {
        let spare = self.spare.take().unwrap_or_else(|| self.reserve_spare());
        let outer = self.polled.replace(spare.index);
        let polled = poll(&mut Context::from_waker(&spare.waker.waker));
        self.polled.set(outer);
        let Poll::Ready(output) = polled else { return Err(spare.index) };
        if let Some(other) = self.spare.replace(Some(spare)) {
            // Of a poll inside of this one.
            self.free.borrow_mut().push(other.index);
        }
        Ok(output)
    }

    #[cold]
    fn reserve_spare(&self) -> Spare {
        let index = self.reserve();
        let waker = Rc::clone(&self.slots.borrow()[index as usize].waker);
        Spare { index, waker }
    }

    fn reserve(&self) -> u32 {
        if let Some(index) = self.free.borrow_mut().pop() {
            return index;
        }
        let mut slots = self.slots.borrow_mut();
        let index = slots.len() as u32;
        let remote = Arc::clone(&self.remote);
        let wake = Arc::new(TaskWake { index, is_sent: AtomicBool::new(false), remote });
        let waker = Waker::from(Arc::clone(&wake));
        slots.push(Slot { waker: Rc::new(TaskWaker { waker, wake }), content: Content::Free });
        self.ready.borrow_mut().behind.push(IDLE);
        index
    }

    /// Keeps a task that was not ready in the slot of its first poll.
    pub(crate) fn put(&self, index: u32, task: Pin<Box<dyn Task>>) {
        debug_assert!(matches!(self.slots.borrow()[index as usize].content, Content::Free));
        self.slots.borrow_mut()[index as usize].content = Content::Task(task);
    }

    /// Drops a task that is not wanted any more.
    pub(crate) fn remove(&self, index: u32) {
        let content = {
            let mut slots = self.slots.borrow_mut();
            let content = &mut slots[index as usize].content;
            match content {
                Content::Polled => std::mem::replace(content, Content::Removed),
                _ => std::mem::replace(content, Content::Free),
            }
        };
        if let Content::Task(task) = content {
            self.free.borrow_mut().push(index);
            // Dropping a future runs somebody's code.
            if catch_unwind(AssertUnwindSafe(|| task.recycle())).is_err() {
                self.panicked();
            }
        }
    }

    /// Polls the tasks that want it now, at most `budget` of them, and no longer than `goes_on` says so, but
    /// [some](TASKS_MIN) in any case, since what they hold may be what it is about. Says whether there was any. What is woken
    /// meanwhile waits for the next time: a task that yields by waking itself would have the whole budget.
    pub(crate) fn run(&self, budget: usize, goes_on: impl Fn() -> bool) -> bool {
        self.hear();
        let wanted = self.ready.borrow().len.min(budget);
        for nth in 0..wanted {
            if nth >= TASKS_MIN && !goes_on() {
                break;
            }
            let Some(index) = self.ready.borrow_mut().pop() else { break };
            self.run_one(index);
        }
        wanted > 0
    }

    /// Queues what other threads have woken.
    fn hear(&self) {
        while let Some(index) = self.remote.next_woken() {
            if let Some(slot) = self.slots.borrow().get(index as usize) {
                // Read as well as written: a waker that found it still set has gone away, and the poll that follows
                // must see what it did before.
                slot.waker.wake.is_sent.swap(false, Ordering::AcqRel);
            }
            self.ready.borrow_mut().push(index);
        }
    }

    /// The task that a waker wakes, if it is the one that is being polled.
    #[inline]
    pub(crate) fn task_of(&self, waker: &Waker) -> Option<u32> {
        let index = self.polled.get();
        let slots = self.slots.borrow();
        let slot = slots.get(index as usize)?;
        slot.waker.waker.will_wake(waker).then_some(index)
    }

    /// Wakes a task of this shard, on its thread.
    #[inline]
    pub(crate) fn wake(&self, index: u32) {
        match self.is_entered() {
            true => self.ready.borrow_mut().push(index),
            // Whoever turns the shard must hear of it.
            false => self.remote.wake_task(index),
        }
    }

    #[inline]
    fn run_one(&self, index: u32) {
        let (waker, content) = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[index as usize];
            let content = match slot.content {
                Content::Task(_) => std::mem::replace(&mut slot.content, Content::Polled),
                // A late wake of a task that is gone.
                _ => return,
            };
            (Rc::clone(&slot.waker), content)
        };
        let Content::Task(mut task) = content else { return };
        let mut cx = Context::from_waker(&waker.waker);
        let outer = self.polled.replace(index);
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut cx)));
        self.polled.set(outer);
        if let Err(panic) = &polled {
            self.panicked();
            log::error!("a task panicked; it is dropped, the shard goes on{}", Hint::of(&**panic));
        }
        let is_done = {
            let mut slots = self.slots.borrow_mut();
            let content = &mut slots[index as usize].content;
            match (polled, &content) {
                (Ok(Poll::Pending), Content::Polled) => {
                    *content = Content::Task(task);
                    return;
                }
                _ => *content = Content::Free,
            }
            task
        };
        self.free.borrow_mut().push(index);
        if catch_unwind(AssertUnwindSafe(|| is_done.recycle())).is_err() {
            self.panicked();
        }
    }
}
