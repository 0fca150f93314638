//! The buffers that the kernel picks from when data arrives.

use ringcall_buf::{ChunkMut, Pool};

use crate::Kernel;

/// All buffers together are at most this part of the pool's bound.
const BOUND_SHARE: usize = 16;

/// How many more there are after a refill at most. New blocks are zeroed, on pages that the system may have to find
/// first: up to 0.1 ms for 64 KiB, in the middle of a turn.
const GROWTH_MAX: usize = 32;

/// After so many refills it is looked how many were needed at once.
const REFILLS: u32 = 16 * 1024;

/// Blocks of the pool that are with the kernel, by number.
///
/// Provided buffers are used in the order in which they were provided, so all of them pass through the
/// caches. Hence there are few at first, and up to twice as many each time they run out, as far as the
/// [bound](Pool::bound) of the pool has room: to be a part of it that matters would make memory short without a single
/// call. However many receives find none before the next refill, they have run out once. When fewer are needed again, half
/// of what is too much is not given to the kernel any more as it comes back.
#[derive(Debug)]
pub(crate) struct Buffers {
    pool: Pool,
    bytes: usize,
    /// With the kernel, by number.
    lent: Vec<Option<ChunkMut>>,
    /// Numbers without a buffer.
    vacant: Vec<u16>,
    /// How many the kernel should have.
    count: usize,
    count_min: usize,
    limit: usize,
    /// The most that were used between two refills, and how many refills ago that began.
    used: usize,
    refills: u32,
    /// Some receive found none since the last refill.
    have_run_out: bool,
}

impl Buffers {
    /// Lends nothing yet. `limit` is the size of the kernel's ring.
    pub(crate) fn new(pool: &Pool, bytes: usize, first: usize, limit: u16) -> Buffers {
        let limit = usize::from(limit);
        let count = first.min(limit);
        let mut buffers = Buffers {
            pool: pool.clone(),
            bytes,
            lent: Vec::new(),
            vacant: Vec::new(),
            count,
            count_min: count,
            limit,
            used: 0,
            refills: 0,
            have_run_out: false,
        };
        buffers.number();
        buffers
    }

    /// Has a number for each that the kernel should have.
    fn number(&mut self) {
        let before = self.lent.len();
        if before < self.count {
            self.lent.resize_with(self.count, || None);
            // The kernel gets low numbers first.
            self.vacant.extend((before..self.count).rev().map(|number| number as u16));
        }
    }

    /// A receive found none.
    pub(crate) fn ran_out(&mut self) {
        self.have_run_out = true;
    }

    fn grow(&mut self) {
        let room = self.pool.bound().full / BOUND_SHARE / self.bytes;
        let (count, limit) = (self.count, self.limit.min(room));
        self.count = (count + count.min(GROWTH_MAX)).min(limit).max(count).max(1);
        self.number();
    }

    /// Notes that so many were used since the last refill.
    fn note(&mut self, used: usize) {
        self.used = self.used.max(used);
        self.refills += 1;
        if self.refills == REFILLS {
            let enough = self.used.max(self.count_min);
            self.count -= self.count.saturating_sub(enough).div_ceil(2);
            (self.used, self.refills) = (0, 0);
        }
    }

    /// The buffer with this number comes back with data. `None`: the kernel does not have it.
    pub(crate) fn take(&mut self, number: u16) -> Option<ChunkMut> {
        let mut buffer = self.lent.get_mut(usize::from(number))?.take()?;
        buffer.take_back();
        self.vacant.push(number);
        Some(buffer)
    }

    /// Gives the kernel a buffer for each that came back.
    pub(crate) fn refill(&mut self, kernel: &mut impl Kernel) {
        if std::mem::take(&mut self.have_run_out) {
            self.grow();
        }
        let mut given = self.lent.len() - self.vacant.len();
        if given >= self.count {
            return;
        }
        self.note(self.count - given);
        while given < self.count
            && let Some(number) = self.vacant.pop()
        {
            given += 1;
            let mut buffer = self.pool.take(self.bytes);
            let (into, len) = buffer.lend();
            kernel.provide(number, into, len as u32);
            self.lent[usize::from(number)] = Some(buffer);
        }
        kernel.publish();
    }

    /// Never gives back what the kernel has: it may still write there.
    pub(crate) fn leak(&mut self) {
        self.lent.drain(..).for_each(std::mem::forget);
    }
}

impl Drop for Buffers {
    /// Without an operation in flight the kernel picks none of them; otherwise they were leaked before.
    fn drop(&mut self) {
        self.lent.iter_mut().flatten().for_each(ChunkMut::take_back);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::fd::RawFd;
    use std::time::Duration;

    use super::*;
    use crate::{Completion, Features, Op};

    /// Has buffers, and no operations.
    #[derive(Debug, Default)]
    struct Provided(VecDeque<u16>);

    impl Kernel for Provided {
        fn features(&self) -> Features {
            Features::ALL
        }

        fn push(&mut self, _: u64, _: Op) {}

        fn wants_enter(&mut self) -> bool {
            false
        }

        fn enter(&mut self, _: Option<Duration>) {}

        fn next(&mut self) -> Option<Completion> {
            None
        }

        fn provide(&mut self, number: u16, _: *mut u8, _: u32) {
            self.0.push_back(number);
        }

        fn publish(&mut self) {}

        fn notify(&mut self, _: RawFd) -> bool {
            false
        }
    }

    #[test]
    fn what_a_bad_moment_needed_is_taken_back() {
        let (mut kernel, pool) = (Provided::default(), Pool::new(0));
        let mut buffers = Buffers::new(&pool, 4096, 2, 64);
        let use_some = |buffers: &mut Buffers, count: usize, kernel: &mut Provided| {
            for _ in 0..count {
                let number = kernel.0.pop_front().expect("a buffer");
                drop(buffers.take(number).expect("it was provided"));
            }
            buffers.refill(kernel);
            kernel.0.len()
        };
        use_some(&mut buffers, 0, &mut kernel);
        for count in [4, 8, 16] {
            buffers.ran_out();
            assert_eq!(use_some(&mut buffers, 0, &mut kernel), count);
        }
        // As long as many are needed now and then, they are there.
        for refill in 0..3 * REFILLS {
            let count = if refill % REFILLS == 7 { 16 } else { 1 };
            assert_eq!(use_some(&mut buffers, count, &mut kernel), 16);
        }
        let mut left = Vec::new();
        for _ in 0..5 * REFILLS {
            left.push(use_some(&mut buffers, 1, &mut kernel));
        }
        left.dedup();
        assert_eq!(left, [16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        // And it grows as it did.
        buffers.ran_out();
        assert_eq!(use_some(&mut buffers, 0, &mut kernel), 4);
        let lent = pool.stats().lent_bytes;
        assert_eq!(lent, 4 * 4096);
    }
}
