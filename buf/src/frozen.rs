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
pub unsafe trait Frozen: AsRef<[u8]> + Sized + 'static {
    /// Cuts off and returns what lies behind the first `n` bytes; nothing if there are no more. Neither part
    /// moves.
    #[must_use]
    fn split_off(&mut self, n: usize) -> Self;
}

// SAFETY: frozen block memory, kept alive by a count. (test: `chunks_keep_their_bytes`)
unsafe impl Frozen for Chunk {
    fn split_off(&mut self, n: usize) -> Self {
        let n = n.min(self.len());
        let front = self.split_to(n);
        core::mem::replace(self, front)
    }
}
// SAFETY: as above. (test: `shared_chunks_come_home_from_other_threads`)
unsafe impl Frozen for SharedChunk {
    fn split_off(&mut self, n: usize) -> Self {
        let n = n.min(self.len());
        let front = self.split_to(n);
        core::mem::replace(self, front)
    }
}
// SAFETY: `Bytes` does not change its bytes and keeps them where they are.
unsafe impl Frozen for Bytes {
    fn split_off(&mut self, n: usize) -> Self {
        Bytes::split_off(self, n.min(self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn tails_are_cut_off_where_they_lie() {
        fn check<B: Frozen>(mut body: B) {
            let at = body.as_ref().as_ptr();
            let tail = body.split_off(4);
            assert_eq!((body.as_ref(), tail.as_ref()), (&b"body"[..], &b"tail"[..]));
            assert_eq!(tail.as_ref().as_ptr(), at.wrapping_add(4));
            assert!(body.split_off(9).as_ref().is_empty());
        }
        let pool = Pool::new(0);
        check(pool.copy(b"bodytail"));
        check(pool.copy(b"bodytail").share());
        check(Bytes::from_static(b"bodytail"));
    }
}
