//! The memory that the connections of a shard share.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

use ringcall_buf::{Arena, BLOCK_BYTES, Chunk, ChunkMut, Pool};

/// The pool, outgoing arena and budgets of a shard. A handle: clones are the same memory.
#[derive(Clone)]
pub struct Memory(Rc<Inner>);

struct Inner {
    pool: Pool,
    /// No two frames lie behind each other.
    is_scattered: bool,
    outgoing: Cell<Option<Box<Arena>>>,
    /// What bodies that are arriving hold.
    landing: Cell<usize>,
    landing_max: usize,
}

/// How much memory a shard may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// For bodies that are still arriving. Beyond it a connection that has begun none waits, unread,
    /// until others have arrived; one that has begun some goes on within its windows. 64 MiB by default.
    pub landing_bytes: usize,
    /// Of blocks in use: beyond three quarters of it, bodies that arrived whole are copied out of
    /// their receive buffers, so that a few that are held long do not pin much. 64 MiB by default.
    pub lent_bytes: usize,
    /// Of free blocks kept for the next user. 64 MiB by default.
    pub kept_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits { landing_bytes: 64 << 20, lent_bytes: 64 << 20, kept_bytes: 64 << 20 }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new(MemoryLimits::default())
    }
}

impl Memory {
    /// Memory within these limits; nothing is allocated yet.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Memory {
        let pool = Pool::new(limits.kept_bytes);
        pool.set_high_water(limits.lent_bytes / 4 * 3);
        Memory(Rc::new(Inner {
            is_scattered: false,
            outgoing: Cell::new(None),
            landing: Cell::new(0),
            landing_max: limits.landing_bytes,
            pool,
        }))
    }

    /// Memory in which no two frames lie behind each other, and that never counts as hoarded by itself: so that
    /// a replay can stop sending behind each frame, as it may have been when other connections used the memory,
    /// too.
    pub(crate) fn scattered(landing_max: usize) -> Memory {
        Memory(Rc::new(Inner {
            pool: Pool::new(MemoryLimits::default().kept_bytes),
            is_scattered: true,
            outgoing: Cell::new(None),
            landing: Cell::new(0),
            landing_max,
        }))
    }

    /// Where the transport takes its receive buffers from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Takes the arena that frames are built in; give it back with [`put_arena`](Self::put_arena). Whoever
    /// comes in between, an encoder that makes a call itself, gets another.
    #[inline]
    pub(crate) fn take_arena(&self) -> Box<Arena> {
        match self.0.outgoing.take() {
            Some(arena) => arena,
            None => self.new_arena(),
        }
    }

    #[cold]
    fn new_arena(&self) -> Box<Arena> {
        Box::new(match self.0.is_scattered {
            true => Arena::scattered(&self.0.pool),
            false => Arena::new(&self.0.pool, BLOCK_BYTES),
        })
    }

    #[inline]
    pub(crate) fn put_arena(&self, arena: Box<Arena>) {
        self.0.outgoing.set(Some(arena));
    }

    /// A copy of a few bytes in the outgoing arena.
    pub(crate) fn outgoing(&self, bytes: &[u8]) -> Chunk {
        let mut arena = self.take_arena();
        let mut range = arena.allot(bytes.len(), 0);
        self.put_arena(arena);
        range.extend_from_slice(bytes);
        range.freeze()
    }

    /// Room to put a frame together that arrives in pieces. Of its own, so that somebody who sends
    /// slowly holds no more than that.
    pub(crate) fn gather(&self, len: usize) -> ChunkMut {
        self.0.pool.take(len)
    }

    /// Room for a body that is arriving; give it back with [`land_end`](Self::land_end). `None` if the
    /// budget does not allow it now. With `must` it is allowed all the same: bodies of a connection that
    /// has begun one must go on, or it could never finish that one. When nothing is landing, the first
    /// body is always allowed.
    pub(crate) fn land_begin(&self, len: usize, must: bool) -> Option<ChunkMut> {
        let landing = self.0.landing.get().checked_add(Pool::cost(len))?;
        if landing > self.0.landing_max && !must && self.0.landing.get() > 0 {
            return None;
        }
        self.0.landing.set(landing);
        Some(self.0.pool.take(len))
    }

    pub(crate) fn land_end(&self, len: usize) {
        self.0.landing.set(self.0.landing.get().saturating_sub(Pool::cost(len)));
    }

    /// What bodies that are arriving hold.
    pub(crate) fn landing(&self) -> usize {
        self.0.landing.get()
    }

    /// The same, as others have made it.
    pub(crate) fn set_landing(&self, bytes: usize) {
        self.0.landing.set(bytes);
    }

    /// What they may hold.
    pub(crate) fn landing_max(&self) -> usize {
        self.0.landing_max
    }

    /// Whether so much is in use that bodies should not pin receive buffers.
    #[inline]
    pub(crate) fn is_hoarded(&self) -> bool {
        self.0.pool.is_high()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("pool", &self.0.pool)
            .field("landing", &self.0.landing.get())
            .finish()
    }
}
