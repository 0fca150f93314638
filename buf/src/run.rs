//! Frames that lie behind each other.

use core::fmt;
use core::ptr::{self, NonNull};

use crate::Chunk;
use crate::block::Block;

/// A chunk that grows at its end, by what was made right behind it: frames that go out together. What it ends at is
/// all that is compared and changed for one more.
pub struct Run {
    /// As it began.
    front: Chunk,
    /// Where it ends by now; null if it is empty, which no frame begins at.
    end: *const u8,
}

impl Run {
    /// No frames.
    #[inline]
    #[must_use]
    pub const fn empty() -> Run {
        Run { front: Chunk::empty(), end: ptr::null() }
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.is_null()
    }

    /// Takes all of them.
    #[inline]
    #[must_use]
    pub fn take(&mut self) -> Chunk {
        let mut run = core::mem::take(&mut self.front);
        if !self.end.is_null() {
            run.extend_to(self.end);
            self.end = ptr::null();
        }
        run
    }

    /// Appends a frame. Gives back what there was if the frame does not lie right behind it: then it begins the next run.
    #[must_use]
    pub fn push(&mut self, frame: Chunk) -> Option<Chunk> {
        if self.front.has_block_of(&frame) && self.end == frame.as_ptr() {
            self.end = self.end.wrapping_add(frame.len());
            return None;
        }
        self.begin(frame)
    }

    /// Begins with this frame; gives back what there was.
    pub(crate) fn begin(&mut self, frame: Chunk) -> Option<Chunk> {
        let before = (!self.is_empty()).then(|| self.take());
        if !frame.is_empty() {
            self.end = frame.as_ptr_range().end;
            self.front = frame;
        }
        before
    }

    /// Appends `len` bytes at `at`, which must be ours to freeze, if they lie right behind.
    ///
    /// The address alone tells: what lies right in front of the memory of a block is its header, never bytes
    /// of another block, so bytes that end where those at `at` begin are of the same block.
    #[inline(always)]
    pub(crate) fn extend_over(
        &mut self,
        block: Option<Block>,
        at: NonNull<u8>,
        len: usize,
    ) -> bool {
        let is_next = self.ends_at(block, at);
        if is_next {
            self.end = self.end.wrapping_add(len);
        }
        is_next
    }

    /// Whether it ends at `at`, in this block.
    #[inline(always)]
    pub(crate) fn ends_at(&self, block: Option<Block>, at: NonNull<u8>) -> bool {
        let is_end = self.end == at.as_ptr();
        debug_assert!(!is_end || self.front.is_of(block));
        is_end
    }
}

impl Default for Run {
    fn default() -> Run {
        Run::empty()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.end.addr().saturating_sub(self.front.as_ptr().addr());
        write!(f, "Run({} bytes)", if self.is_empty() { 0 } else { len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn only_what_lies_right_behind_is_appended() {
        let pool = Pool::new(0);
        let whole = pool.copy(b"abcdef");
        let mut run = Run::empty();
        assert!(run.is_empty() && run.take().is_empty());
        assert!(run.push(whole.slice(0..2)).is_none());
        assert!(run.push(whole.slice(2..4)).is_none());
        let before = run.push(whole.slice(5..6));
        assert_eq!(before.as_deref(), Some(&b"abcd"[..]));
        let before = run.push(pool.copy(b"x"));
        assert_eq!(before.as_deref(), Some(&b"f"[..]));
        assert_eq!(&*run.take(), b"x");
        assert!(run.is_empty());
    }
}
