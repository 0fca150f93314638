//! The memory that the connections of a shard share.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell, RefMut};
use core::fmt;
use core::ops::{Deref, DerefMut};

use ringcall_buf::{Arena, BLOCK_BYTES, Chunk, ChunkMut, Pool};

/// The pool, outgoing arena and budgets of a shard. A handle: clones are the same memory.
#[derive(Clone)]
pub struct Memory(Rc<Inner>);

struct Inner {
    pool: Pool,
    outgoing: RefCell<Arena>,
    /// What bodies that are arriving hold.
    landing: Cell<usize>,
    landing_max: usize,
    /// Beyond so many bytes in use, bodies must not pin receive blocks.
    hoard_bytes: usize,
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
    /// Of free blocks kept for the next user. 16 MiB by default.
    pub kept_bytes: usize,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits { landing_bytes: 64 << 20, lent_bytes: 64 << 20, kept_bytes: 16 << 20 }
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
        Memory(Rc::new(Inner {
            outgoing: RefCell::new(Arena::new(&pool, BLOCK_BYTES)),
            landing: Cell::new(0),
            landing_max: limits.landing_bytes,
            hoard_bytes: limits.lent_bytes / 4 * 3,
            pool,
        }))
    }

    /// Where the transport takes its receive buffers from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// The arena that frames are built in. Whoever is building one already, an encoder that makes a call
    /// itself, gets another.
    #[inline]
    pub(crate) fn arena(&self) -> OutgoingArena<'_> {
        match self.0.outgoing.try_borrow_mut() {
            Ok(arena) => OutgoingArena::Common(arena),
            Err(_) => self.another_arena(),
        }
    }

    #[cold]
    fn another_arena(&self) -> OutgoingArena<'_> {
        OutgoingArena::Own(Box::new(Arena::new(&self.0.pool, BLOCK_BYTES)))
    }

    /// A copy of a few bytes in the outgoing arena.
    pub(crate) fn outgoing(&self, bytes: &[u8]) -> Chunk {
        let mut range = self.arena().allot(bytes.len(), 0);
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

    /// Whether so much is in use that bodies should not pin receive buffers.
    #[inline]
    pub(crate) fn is_hoarded(&self) -> bool {
        self.0.pool.stats().lent_bytes > self.0.hoard_bytes
    }
}

/// The common arena, or one for a frame that is built while another is.
pub(crate) enum OutgoingArena<'a> {
    Common(RefMut<'a, Arena>),
    Own(Box<Arena>),
}

impl Deref for OutgoingArena<'_> {
    type Target = Arena;

    #[inline]
    fn deref(&self) -> &Arena {
        match self {
            OutgoingArena::Common(arena) => arena,
            OutgoingArena::Own(arena) => arena,
        }
    }
}

impl DerefMut for OutgoingArena<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Arena {
        match self {
            OutgoingArena::Common(arena) => arena,
            OutgoingArena::Own(arena) => arena,
        }
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
