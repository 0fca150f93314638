//! Memory for ringcall: aligned, pooled, reference counted.
//!
//! All `unsafe` that has to do with buffers lives in this crate. It knows nothing of frames or
//! sockets; it answers three questions that a latency-critical protocol asks all the time:
//!
//! * **Where do bytes from a socket land?** In an [`Arena`]: a block of 64 KiB whose unread rest an
//!   engine fills and whose filled part is cut off as [`Chunk`]s. When nobody holds a chunk of the
//!   block any more, the arena starts over at its beginning, so that the same memory stays in the
//!   caches.
//! * **Where are frames built?** In the same kind of arena, through a [`Writer`]. A finished frame
//!   is frozen: the kernel may read it for as long as somebody holds a reference.
//! * **Where does a large body land?** In a [`ChunkMut`] of its own, of the right size, from the
//!   [`Pool`].
//!
//! # Two counts
//!
//! A [`Chunk`] belongs to the thread that made it and its reference count is not atomic: an atomic
//! count a chunk costs a tenth to a quarter of the throughput of small calls. To send one to
//! another thread, [`Chunk::share`] it: a [`SharedChunk`] has an atomic count. All local handles of
//! a block together hold one shared reference (biased reference counting, Choi et al., PACT 2018),
//! so a block that never leaves its thread is never counted atomically.
//!
//! Every block is aligned to 64 bytes and is zeroed by the allocator when it is made, so its memory
//! is always initialised, and pages that nobody wrote cost nothing. With the feature `mmap` a block of 64 KiB or
//! more is pages of its own, which go back to the system when it ends.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(any(test, ringcall_loom))]
extern crate std;

mod arena;
mod block;
mod chunk;
mod frozen;
mod ledger;
#[cfg(all(feature = "mmap", not(ringcall_loom)))]
mod memory;
#[cfg(ringcall_loom)]
#[doc(hidden)]
pub mod model;
#[cfg(all(test, ringcall_loom))]
mod models;
mod pool;
mod run;
mod segment;
mod shared;
mod sync;
mod writer;

pub use arena::Arena;
pub use chunk::{Chunk, ChunkMut, FrontFrame};
pub use frozen::Frozen;
pub use pool::{Bound, Pool, PoolStats, Reservation};
pub use run::Run;
pub use segment::{External, Object, ObjectError, Segment, SharedSegment};
pub use shared::{SharedChunk, SharedPool};
pub use writer::{Full, Writer};

/// Every block starts at a multiple of this, so that an offset within a block is also an alignment.
pub const BLOCK_ALIGN: usize = 64;

/// The size of an arena's blocks unless said otherwise: large enough to batch a turn's frames, small
/// enough to stay in a core's caches.
pub const BLOCK_BYTES: usize = 64 * 1024;
