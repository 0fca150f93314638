//! Who owns a block, kept where `debug_assertions` are on: memory with two owners is a panic there, at the moment
//! when it gets the second one. Elsewhere it is nothing.

#[cfg(not(debug_assertions))]
pub(crate) use nothing::Ledger;
#[cfg(debug_assertions)]
pub(crate) use record::Ledger;

#[cfg(debug_assertions)]
mod record {
    use core::sync::atomic::AtomicUsize;
    use core::sync::atomic::Ordering::Relaxed;

    /// What is known of a block's owners. Atomic, since blocks end on any thread; it orders nothing, since what is
    /// asked for is never under way at the same time unless there is a mistake.
    #[derive(Default)]
    pub(crate) struct Ledger {
        /// Handles of any kind, on any thread: the two counts of a block together.
        handles: AtomicUsize,
        /// Up to where it was handed out since a writer began at its front.
        handed_out: AtomicUsize,
    }

    impl Ledger {
        /// The pool lends it.
        #[inline]
        pub(crate) fn lend(&self) {
            let before = self.handles.swap(1, Relaxed);
            assert!(before == 0, "a block is lent to a second owner");
            self.handed_out.store(0, Relaxed);
        }

        /// Its last handle is gone, it goes to a pool or to the allocator.
        #[inline]
        pub(crate) fn give_back(&self) {
            assert!(
                self.handles.load(Relaxed) == 0,
                "a block is given back while somebody holds it"
            );
        }

        /// There is one more handle.
        #[inline]
        pub(crate) fn hold(&self) {
            let more = |handles: usize| (handles > 0).then_some(handles + 1);
            let held = self.handles.fetch_update(Relaxed, Relaxed, more);
            assert!(held.is_ok(), "a block is held after it was given back");
        }

        /// There is one less.
        #[inline]
        pub(crate) fn let_go(&self) {
            let less = |handles: usize| handles.checked_sub(1);
            let held = self.handles.fetch_update(Relaxed, Relaxed, less);
            assert!(held.is_ok(), "a block is given back twice");
        }

        /// A part gets an owner of its own.
        #[inline]
        pub(crate) fn hand_out(&self, start: usize, end: usize) {
            let before = self.handed_out.swap(end, Relaxed);
            assert!(before <= start, "a part of a block is handed out twice");
        }

        /// No part has an owner: it is handed out from its front again.
        #[inline]
        pub(crate) fn rewind(&self) {
            let handles = self.handles.load(Relaxed);
            assert!(handles == 1, "a block is written from its front while somebody reads it");
            self.handed_out.store(0, Relaxed);
        }
    }
}

#[cfg(not(debug_assertions))]
mod nothing {
    #[derive(Default)]
    pub(crate) struct Ledger;

    impl Ledger {
        #[inline(always)]
        pub(crate) fn lend(&self) {}
        #[inline(always)]
        pub(crate) fn give_back(&self) {}
        #[inline(always)]
        pub(crate) fn hold(&self) {}
        #[inline(always)]
        pub(crate) fn let_go(&self) {}
        #[inline(always)]
        pub(crate) fn hand_out(&self, _start: usize, _end: usize) {}
        #[inline(always)]
        pub(crate) fn rewind(&self) {}
    }
}

#[cfg(all(test, debug_assertions, not(ringcall_loom)))]
mod tests {
    use super::*;
    use crate::{Arena, Pool};

    #[test]
    #[should_panic(expected = "a block is given back twice")]
    fn giving_back_twice_is_noticed() {
        let pool = Pool::new(1 << 20);
        let block = pool.lend(100);
        // SAFETY: it is the only handle. (test: `giving_back_twice_is_noticed`)
        unsafe { block.release_local() };
        // SAFETY: the pool keeps the block, so its header is still there; that is the bug to be found.
        unsafe { block.release_local() };
    }

    #[test]
    #[should_panic(expected = "a block is held after it was given back")]
    fn a_handle_from_nowhere_is_noticed() {
        let pool = Pool::new(1 << 20);
        let block = pool.lend(100);
        // SAFETY: it is the only handle. (test: `a_handle_from_nowhere_is_noticed`)
        unsafe { block.release_local() };
        block.retain_shared();
    }

    #[test]
    #[should_panic(expected = "a block is given back while somebody holds it")]
    fn a_return_past_the_counts_is_noticed() {
        let ledger = Ledger::default();
        ledger.lend();
        ledger.give_back();
    }

    #[test]
    #[should_panic(expected = "a block is lent to a second owner")]
    fn lending_twice_is_noticed() {
        let ledger = Ledger::default();
        ledger.lend();
        ledger.lend();
    }

    #[test]
    #[should_panic(expected = "a part of a block is handed out twice")]
    fn overlapping_parts_are_noticed() {
        let ledger = Ledger::default();
        ledger.lend();
        ledger.hand_out(0, 100);
        ledger.hand_out(64, 128);
    }

    #[test]
    #[should_panic(expected = "a block is written from its front while somebody reads it")]
    fn beginning_again_under_a_reader_is_noticed() {
        let ledger = Ledger::default();
        ledger.lend();
        ledger.hold();
        ledger.rewind();
    }

    #[cfg_attr(ringcall_poison, ignore = "it leaks")]
    #[test]
    #[should_panic(expected = "memory is used while the kernel has it")]
    fn what_the_kernel_has_is_not_given_back() {
        let mut buffer = Pool::new(1 << 20).take(4096);
        let _lent = buffer.lend();
        drop(buffer);
    }

    #[cfg_attr(ringcall_poison, ignore = "it leaks")]
    #[test]
    #[should_panic(expected = "memory is used while the kernel has it")]
    fn what_the_kernel_has_is_not_read() {
        let mut buffer = core::mem::ManuallyDrop::new(Arena::new(&Pool::new(0), 4096).allot(64, 0));
        let _lent = buffer.lend();
        let _read = buffer.filled();
    }

    #[test]
    fn what_the_kernel_gave_back_is_used() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(64);
        let (_, len) = buffer.lend();
        buffer.take_back();
        buffer.fill(len);
        assert_eq!(buffer.freeze().len(), 64);
        assert_eq!(pool.stats().lent_bytes, 0);
    }
}
