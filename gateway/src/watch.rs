//! Whether anything happens on a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// What goes on on one connection. Time is cut into turns; nobody asks a clock.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Requests that are not answered.
    running: AtomicUsize,
    /// Whether one came in this turn.
    has_begun: AtomicBool,
    turn: AtomicUsize,
    /// Answers that were not taken over, by whether their turn was odd.
    unread: [AtomicUsize; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Busy,
    /// Nothing has happened in this turn.
    Idle,
    /// An answer of the turn before last has not left.
    Stuck,
}

impl Watch {
    pub(crate) fn begin(self: &Arc<Watch>) -> Running {
        self.running.fetch_add(1, SeqCst);
        self.has_begun.store(true, SeqCst);
        Running(Arc::clone(self))
    }

    /// Ends a turn.
    pub(crate) fn turn(&self) -> Verdict {
        let next = self.turn.fetch_add(1, SeqCst) + 1;
        let has_begun = self.has_begun.swap(false, SeqCst);
        let unread = |turn: usize| self.unread[turn % 2].load(SeqCst);
        if unread(next) > 0 {
            Verdict::Stuck
        } else if !has_begun && self.running.load(SeqCst) == 0 && unread(next + 1) == 0 {
            Verdict::Idle
        } else {
            Verdict::Busy
        }
    }
}

/// A request that is not answered yet, or not to its end.
#[derive(Debug)]
pub(crate) struct Running(Arc<Watch>);

impl Running {
    /// It is answered, though nobody may have read that.
    pub(crate) fn answered(self) -> Unread {
        self.unread()
    }

    /// A part of its answer is on its way.
    pub(crate) fn unread(&self) -> Unread {
        let watch = Arc::clone(&self.0);
        let place = watch.turn.load(SeqCst) % 2;
        watch.unread[place].fetch_add(1, SeqCst);
        Unread { watch, place }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

/// An answer, or a part of one, that is still here.
#[derive(Debug)]
pub(crate) struct Unread {
    watch: Arc<Watch>,
    place: usize,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.watch.unread[self.place].fetch_sub(1, SeqCst);
    }
}
