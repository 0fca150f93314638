//! Bytes that can be read in place for as long as they are held.

use bytes::Bytes;

use crate::{Chunk, SharedChunk};

/// Immutable bytes at an address that does not change while the value lives, also when it is moved.
///
/// This is what allows a typed view to check bytes once and to read them in place ever after.
///
/// # Safety
/// For one value, every call of `as_ref` must return the same bytes at the same address, and nobody may
/// change them while the value lives.
pub unsafe trait Frozen: AsRef<[u8]> + 'static {}

// SAFETY: frozen block memory, kept alive by a count. (test: `chunks_keep_their_bytes`)
unsafe impl Frozen for Chunk {}
// SAFETY: as above. (test: `shared_chunks_come_home_from_other_threads`)
unsafe impl Frozen for SharedChunk {}
// SAFETY: `Bytes` does not change its bytes and keeps them where they are.
unsafe impl Frozen for Bytes {}
