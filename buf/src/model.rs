//! What models share: how they are run, and queues that order what threads see as those of crossbeam do, and
//! no more.
//!
//! A lock around a queue would order everything before a push with everything behind a look at the queue, and
//! so hide that a fence is missing. Here only the items are behind a lock; whether there are any, and whether
//! there is room, is read from two counters, as crossbeam's queues do it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::AtomicU64;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};

/// Runs a model once for each order in which its threads may take their steps, and each value that a load may
/// see, and prints how many that were. With a bound only orders that interrupt threads at most so often are tried.
///
/// # Panics
/// When an assertion fails in one of them, all threads wait, or memory is left.
#[allow(clippy::print_stdout, reason = "`cargo xtask models` reads it")]
pub fn explore(
    name: &str,
    interruptions_max: Option<usize>,
    model: impl Fn() + Sync + Send + 'static,
) {
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(interruptions_max);
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        model();
    });
    let runs = runs.load(core::sync::atomic::Ordering::Relaxed);
    let bound = interruptions_max.map_or("all".into(), |most| std::format!("{most} interruptions"));
    std::println!("model {name} | {bound} | {runs}");
}

/// Stands for `crossbeam_queue::ArrayQueue`.
pub struct ArrayQueue<T> {
    capacity: usize,
    pushed: AtomicUsize,
    popped: AtomicUsize,
    items: Mutex<VecDeque<T>>,
}

impl<T> ArrayQueue<T> {
    /// A queue with room for so many.
    #[must_use]
    pub fn new(capacity: usize) -> ArrayQueue<T> {
        ArrayQueue {
            capacity,
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
            items: Mutex::new(VecDeque::new()),
        }
    }

    /// # Errors
    /// Gives the item back when there is no room.
    pub fn push(&self, item: T) -> Result<(), T> {
        if self.len() >= self.capacity {
            // As crossbeam does before it believes that it is full.
            fence(Ordering::SeqCst);
            if self.len() >= self.capacity {
                return Err(item);
            }
        }
        let mut items = self.items.lock().expect("a model does not go on after a panic");
        if items.len() >= self.capacity {
            return Err(item);
        }
        items.push_back(item);
        drop(items);
        self.pushed.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The oldest item.
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            // As crossbeam does before it believes that it is empty.
            fence(Ordering::SeqCst);
            if self.is_empty() {
                return None;
            }
        }
        let mut items = self.items.lock().expect("a model does not go on after a panic");
        let item = items.pop_front()?;
        drop(items);
        self.popped.fetch_add(1, Ordering::AcqRel);
        Some(item)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let popped = self.popped.load(Ordering::Acquire);
        self.pushed.load(Ordering::Acquire).saturating_sub(popped)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> fmt::Debug for ArrayQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayQueue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Stands for `crossbeam_queue::SegQueue`.
#[derive(Debug)]
pub struct SegQueue<T>(ArrayQueue<T>);

impl<T> Default for SegQueue<T> {
    fn default() -> SegQueue<T> {
        SegQueue::new()
    }
}

impl<T> SegQueue<T> {
    /// A queue with room for any number.
    #[must_use]
    pub fn new() -> SegQueue<T> {
        SegQueue(ArrayQueue::new(usize::MAX))
    }

    /// Never fails.
    pub fn push(&self, item: T) {
        let _has_room = self.0.push(item);
    }

    /// The oldest item.
    pub fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
