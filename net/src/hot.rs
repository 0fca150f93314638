//! The one connection that everything comes from: it is received from without asking first which ones have something.

use ringcall_core::Handle;

/// So many looks in a row must have been about it alone.
const LOOKS: u32 = 4;
/// So many times at most it is received from until the others are looked after.
const TIMES_MAX: u32 = 16;
/// Only while no more than this comes at a time: whoever takes much too eagerly takes it in small pieces.
const BYTES_MAX: usize = 4096;

/// Which connection that is, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hot {
    /// The only connection that the last looks were about, and how many they were.
    only: Option<(Handle, u32)>,
    /// How many times it was received from since the last look.
    times: u32,
}

impl Hot {
    /// Whom to receive from directly now.
    #[inline]
    #[must_use]
    pub fn candidate(&self) -> Option<Handle> {
        let (handle, looks) = self.only?;
        (looks >= LOOKS && self.times < TIMES_MAX).then_some(handle)
    }

    /// It is received from.
    #[inline]
    pub fn count(&mut self) {
        self.times += 1;
    }

    /// That was in vain: others are looked after sooner.
    #[inline]
    pub fn was_in_vain(&mut self) {
        self.times += TIMES_MAX / 2;
    }

    /// All connections are looked at.
    #[inline]
    pub fn look(&mut self) {
        self.times = 0;
    }

    /// A look was about this connection alone.
    #[inline]
    pub fn only(&mut self, handle: Handle) {
        let before = self.only.filter(|(only, _)| *only == handle);
        let looks = before.map_or(0, |(_, looks)| looks);
        self.only = Some((handle, looks.saturating_add(1)));
    }

    /// So much has come at a time.
    #[inline]
    pub fn received(&mut self, bytes: usize) {
        if bytes > BYTES_MAX {
            self.forget();
        }
    }

    /// There is none, or none that may be received from like that.
    #[inline]
    pub fn forget(&mut self) {
        self.only = None;
    }
}

#[cfg(all(test, not(ringcall_loom)))]
mod tests {
    use super::*;

    const ONE: Handle = Handle { index: 1, generation: 0 };
    const OTHER: Handle = Handle { index: 2, generation: 0 };

    fn hot() -> Hot {
        let mut hot = Hot::default();
        for _ in 0..LOOKS {
            assert_eq!(hot.candidate(), None);
            hot.only(ONE);
        }
        assert_eq!(hot.candidate(), Some(ONE));
        hot
    }

    #[test]
    fn it_is_the_one_of_which_several_looks_were_in_a_row() {
        let mut hot = hot();
        hot.only(OTHER);
        assert_eq!(hot.candidate(), None);
    }

    #[test]
    fn the_others_are_looked_after_in_between() {
        let mut hot = hot();
        (0..TIMES_MAX).for_each(|_| hot.count());
        assert_eq!(hot.candidate(), None);
        hot.look();
        assert_eq!(hot.candidate(), Some(ONE));
        (0..2).for_each(|_| hot.was_in_vain());
        assert_eq!(hot.candidate(), None);
    }

    #[test]
    fn who_sends_much_is_none() {
        let mut hot = hot();
        hot.received(BYTES_MAX);
        assert_eq!(hot.candidate(), Some(ONE));
        hot.received(BYTES_MAX + 1);
        assert_eq!(hot.candidate(), None);
    }
}
