//! The buffers that the kernel picks from when data arrives.

use ringcall_buf::{ChunkMut, Pool};

use crate::Kernel;

/// All buffers together are at most this part of the pool's bound.
const BOUND_SHARE: usize = 16;

/// How many more there are after a refill at most. New blocks are zeroed, on pages that the system may have to find
/// first: up to 0.1 ms for 64 KiB, in the middle of a turn.
const GROWTH_MAX: usize = 32;

/// Blocks of the pool that are with the kernel, by number.
///
/// Provided buffers are used in the order in which they were provided, so all of them pass through the
/// caches. Hence there are few at first, and up to twice as many each time they run out, as far as the
/// [bound](Pool::bound) of the pool has room: to be a part of it that matters would make memory short without a single
/// call. However many receives find none before the next refill, they have run out once.
#[derive(Debug)]
pub(crate) struct Buffers {
    pool: Pool,
    bytes: usize,
    /// With the kernel, by number.
    lent: Vec<Option<ChunkMut>>,
    /// Numbers without a buffer.
    vacant: Vec<u16>,
    limit: usize,
    /// Some receive found none since the last refill.
    have_run_out: bool,
}

impl Buffers {
    /// Lends nothing yet. `limit` is the size of the kernel's ring.
    pub(crate) fn new(pool: &Pool, bytes: usize, first: usize, limit: u16) -> Buffers {
        let limit = usize::from(limit);
        let mut buffers = Buffers {
            pool: pool.clone(),
            bytes,
            lent: Vec::new(),
            vacant: Vec::new(),
            limit,
            have_run_out: false,
        };
        buffers.resize(first.min(limit));
        buffers
    }

    fn resize(&mut self, count: usize) {
        let before = self.lent.len();
        self.lent.resize_with(count, || None);
        // The kernel gets low numbers first.
        self.vacant.extend((before..count).rev().map(|number| number as u16));
    }

    /// A receive found none.
    pub(crate) fn ran_out(&mut self) {
        self.have_run_out = true;
    }

    fn grow(&mut self) {
        let room = self.pool.bound().full / BOUND_SHARE / self.bytes;
        let (count, limit) = (self.lent.len(), self.limit.min(room));
        self.resize((count + count.min(GROWTH_MAX)).min(limit).max(count).max(1));
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
        if self.vacant.is_empty() {
            return;
        }
        for number in self.vacant.drain(..) {
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
