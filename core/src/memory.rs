//! The memory that the connections of a shard share.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

use ringcall_buf::{Arena, BLOCK_BYTES, Bound, Chunk, ChunkMut, Pool, Reservation};

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
    /// There was no room for a body since somebody last looked.
    is_landing_denied: Cell<bool>,
    /// How many connections there are.
    connections: Cell<usize>,
    /// What is left for all of them when memory is short.
    reserve: usize,
    /// No connection holds much of what there is too much of.
    is_exhausted: Cell<bool>,
    /// In a replay: what was left for its connection.
    replayed_room: Cell<usize>,
}

/// See [`Memory::room`].
const ROOM_BYTES_MIN: usize = 256 * 1024;

/// Free blocks of no more than this are kept however long nobody needs them.
const KEPT_BYTES_MIN: usize = 1 << 20;

/// How much memory a shard may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// For bodies that are still arriving. Beyond it a connection that has begun none waits, unread,
    /// until others have arrived; one that has begun some goes on within its windows. 64 MiB by default.
    ///
    /// Nobody waits for longer than an eighth of [`Config::stall_timeout`](crate::Config::stall_timeout): then
    /// requests are refused with [`OVERLOADED`](crate::Status::OVERLOADED), replies and items land all the same.
    /// Meanwhile [`Endpoint`](crate::Endpoint) closes those that hold a part and are silent for a tenth of it, or so
    /// slow that a body takes more than six times as long.
    pub landing_bytes: usize,
    /// Of blocks in use: beyond three quarters of it, bodies that arrived whole are copied out of
    /// their receive buffers, so that a few that are held long do not pin much. 64 MiB by default.
    pub lent_bytes: usize,
    /// Of free blocks kept for the next user. 64 MiB by default. Above one MiB, half of those that nobody needed for
    /// ten seconds are freed.
    pub kept_bytes: usize,
    /// Of everything that connections hold: what arrives, what is answered and not sent, calls that run, and
    /// free blocks. `None`, the default, is no bound in core; the facade derives one from what the process may have.
    ///
    /// Above four fifths of it memory is *short*: what is left is shared out among the connections, and calls of
    /// those that hold more than their part are refused with [`OVERLOADED`](crate::Status::OVERLOADED), get no further
    /// credit, and send items only as they are read. At the bound [`Endpoint`](crate::Endpoint) closes those that hold
    /// the most, with [`MemoryShort`](crate::CloseReason::MemoryShort). The limits above are at most a quarter of it
    /// (`landing_bytes`) and half of it (`lent_bytes`).
    pub total_bytes: Option<usize>,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits {
            landing_bytes: 64 << 20,
            lent_bytes: 64 << 20,
            kept_bytes: 64 << 20,
            total_bytes: None,
        }
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
        let full = limits.total_bytes.unwrap_or(usize::MAX);
        let short = full / 5 * 4;
        let pool = Pool::new(limits.kept_bytes);
        pool.set_high_water(limits.lent_bytes.min(full / 2) / 4 * 3);
        pool.set_bound(Bound { short, full });
        Memory::of(pool, false, limits.landing_bytes.min(full / 4), full - short)
    }

    /// Memory in which no two frames lie behind each other, and that never counts as hoarded by itself: so that
    /// a replay can stop sending behind each frame, as it may have been when other connections used the memory,
    /// too.
    pub(crate) fn scattered(landing_max: usize) -> Memory {
        let pool = Pool::new(MemoryLimits::default().kept_bytes);
        Memory::of(pool, true, landing_max, usize::MAX)
    }

    fn of(pool: Pool, is_scattered: bool, landing_max: usize, reserve: usize) -> Memory {
        Memory(Rc::new(Inner {
            pool,
            is_scattered,
            outgoing: Cell::new(None),
            landing: Cell::new(0),
            landing_max,
            is_landing_denied: Cell::new(false),
            connections: Cell::new(0),
            reserve,
            is_exhausted: Cell::new(false),
            replayed_room: Cell::new(usize::MAX),
        }))
    }

    /// Where the transport takes its receive buffers from.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// Frees half of the blocks that nobody needed since this was called before, if there are many.
    pub(crate) fn release_unused(&self) {
        self.0.pool.release_unused(KEPT_BYTES_MIN);
    }

    /// Whether there are so many free blocks that some might be [freed](Self::release_unused).
    #[inline]
    pub(crate) fn keeps_much(&self) -> bool {
        self.0.pool.stats().kept_bytes > KEPT_BYTES_MIN
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
            self.0.is_landing_denied.set(true);
            return None;
        }
        self.0.landing.set(landing);
        Some(self.0.pool.take(len))
    }

    pub(crate) fn land_end(&self, len: usize) {
        self.0.landing.set(self.0.landing.get().saturating_sub(Pool::cost(len)));
    }

    /// Whether there was no room for a body since this was last asked.
    pub(crate) fn take_landing_denied(&self) -> bool {
        self.0.is_landing_denied.take()
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

    // ---- the bound ----

    /// A connection begins, which takes so many bytes itself.
    #[inline(never)]
    pub(crate) fn enter(&self, bytes: usize) -> Box<Share> {
        self.0.connections.set(self.0.connections.get() + 1);
        let reserved = self.0.pool.reserve(bytes);
        Box::new(Share { reserved, in_transit: 0, memory: self.clone() })
    }

    /// What a connection may hold of calls and answers: its part of what is left if memory is short, otherwise
    /// anything.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        match self.0.pool.is_short() {
            false => usize::MAX,
            true => self.scarce_room(),
        }
    }

    #[cold]
    fn scarce_room(&self) -> usize {
        if self.0.is_scattered {
            return self.0.replayed_room.get();
        }
        match self.0.is_exhausted.get() {
            true => 0,
            false => (self.0.reserve / self.0.connections.get().max(1)).max(self.room_min()),
        }
    }

    /// However many there are: enough for a few calls, and for the answers that a turn sends in the end.
    fn room_min(&self) -> usize {
        ROOM_BYTES_MIN.min(self.0.reserve / 16)
    }

    /// The same, as others have made it; of [scattered](Self::scattered) memory.
    pub(crate) fn set_room(&self, bytes: usize) {
        self.0.replayed_room.set(bytes);
        let short = if bytes == usize::MAX { usize::MAX } else { 0 };
        self.0.pool.set_bound(Bound { short, full: usize::MAX });
    }

    /// Whether so much is held that little is left: see [`MemoryLimits::total_bytes`].
    #[inline]
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.pool.is_short()
    }

    /// Whether more is held than may be.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.pool.is_full()
    }

    /// There is nobody to close: it is the application that holds it. Nobody is served any more when as much as was to
    /// be left is used once again.
    pub(crate) fn exhaust(&self, is_nobody: bool) {
        let Bound { full, .. } = self.0.pool.bound();
        let is_beyond = self.0.pool.held_bytes() > full.saturating_add(self.0.reserve);
        self.0.is_exhausted.set(is_nobody && is_beyond);
    }

    /// How much has to be let go until memory is not short any more.
    pub(crate) fn excess(&self) -> usize {
        let Bound { short, .. } = self.0.pool.bound();
        self.0.pool.held_bytes().saturating_sub(short - short / 8)
    }
}

/// A connection's place among those that share the memory, and what its tables take of it.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Memory,
    reserved: Reservation,
    /// How much of that the transport has, of memory that is no block of the pool's.
    in_transit: usize,
}

impl Share {
    /// Its tables take so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.reserved.grow(bytes);
    }

    /// What its tables take.
    pub(crate) fn bytes(&self) -> usize {
        self.reserved.bytes() - self.in_transit
    }

    /// The transport has so much more of memory that is no block of the pool's.
    #[cold]
    pub(crate) fn give(&mut self, bytes: usize) {
        self.reserved.grow(bytes);
        self.in_transit += bytes;
    }

    /// The transport has sent everything.
    #[inline]
    pub(crate) fn sent(&mut self) {
        if self.in_transit > 0 {
            self.reserved.shrink(core::mem::take(&mut self.in_transit));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Inner { connections, .. } = &*self.memory.0;
        connections.set(connections.get() - 1);
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
