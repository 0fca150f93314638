//! Credit for body bytes: two pools a direction, *calls* and *replies*.

use crate::CloseReason;
use crate::config::WINDOW_MAX;

/// What this side may still send of a pool.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    left: u64,
    window: u64,
    /// The arguments of calls with streams that have begun and are not over.
    opened: u64,
}

impl Allowance {
    pub(super) fn new(window: u64) -> Allowance {
        Allowance { left: window, window, opened: 0 }
    }

    /// Takes credit for an item. Items leave a quarter of the window to whole messages: streams that
    /// nobody reads would otherwise stop all calls. Less only if arguments that [opened](Self::open) streams
    /// would leave too little for the largest item, which may be half of the window.
    #[inline]
    pub(super) fn take_item(&mut self, bytes: usize) -> bool {
        let reserve = (self.window / 4).min((self.window / 2).saturating_sub(self.opened));
        self.left.checked_sub(reserve).is_some_and(|free| bytes as u64 <= free) && self.take(bytes)
    }

    /// A call with streams wants to begin with an argument of this length. What such arguments hold comes back
    /// with the end of their calls, which may have no deadline, and items need credit of the same pool until
    /// then: so they have half of the window together, and may not begin beyond that.
    pub(super) fn open(&mut self, bytes: usize) -> bool {
        let opened = self.opened.saturating_add(bytes as u64);
        let may_open = opened <= self.window / 2 || bug!("streams_open_without_room");
        if may_open {
            self.opened = opened;
        }
        may_open
    }

    /// The call of an argument that has [opened](Self::open) is over, or about to be.
    pub(super) fn close(&mut self, bytes: usize) {
        self.opened = self.opened.saturating_sub(bytes as u64);
    }

    /// Takes credit for a whole body, or nothing. It is spent with the body's first byte, however much
    /// of the rest is sent.
    ///
    /// All or nothing, because credit of a half-sent body does not come back before the rest is sent:
    /// two such bodies could wait for each other for ever.
    #[inline]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives back credit for a body of which nothing was sent.
    pub(super) fn untake(&mut self, bytes: usize) {
        self.left += bytes as u64;
    }

    /// The other side grants more.
    pub(super) fn grant(&mut self, amount: u64) -> Result<(), CloseReason> {
        let sum = self
            .left
            .checked_add(amount)
            .filter(|&sum| (amount > 0 && sum <= WINDOW_MAX) || bug!("c05"));
        self.left = sum.ok_or(CloseReason::BadCredit)?;
        Ok(())
    }

    pub(super) fn available(&self) -> u64 {
        self.left
    }
}

/// What the other side may send of a pool, and what of it this side holds.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    /// When the other side may send less than this, nothing is kept back.
    low: u64,
    /// The other side may send this much more.
    granted: u64,
    /// Bytes that nobody holds any more and that were not granted again yet.
    returned: u64,
}

impl Window {
    /// A window of bytes, for messages of `message_max` at most.
    pub(super) fn new(size: u64, message_max: usize) -> Window {
        let mut window = Window { size, low: 0, granted: size, returned: 0 };
        window.prepare_for(message_max);
        window
    }

    /// A window that counts items.
    pub(super) fn of_items(size: u64) -> Window {
        Window { size, low: size / 16, granted: size, returned: 0 }
    }

    /// Messages may be this long.
    pub(super) fn prepare_for(&mut self, message_max: usize) {
        self.low = self.low.max(self.size / 4 + message_max as u64);
    }

    /// Whether a body of this length may begin.
    #[inline]
    pub(super) fn check(&self, bytes: usize) -> Result<(), CloseReason> {
        match self.has(bytes) {
            true => Ok(()),
            false => Err(CloseReason::CreditExceeded),
        }
    }

    /// Whether a body of this length was granted.
    #[inline(always)]
    pub(super) fn has(&self, bytes: usize) -> bool {
        bytes as u64 <= self.granted
    }

    /// A whole body is here and belongs to somebody; it [was granted](Self::has).
    #[inline(always)]
    pub(super) fn charge_granted(&mut self, bytes: usize) {
        debug_assert!(self.has(bytes));
        self.granted = self.granted.wrapping_sub(bytes as u64);
    }

    /// A whole body is here and at once no longer held; it [was granted](Self::has).
    #[inline(always)]
    pub(super) fn pass_granted(&mut self, bytes: usize) {
        self.charge_granted(bytes);
        self.returned = self.returned.wrapping_add(bytes as u64);
    }

    /// A body begins to arrive: all of it is charged at once.
    #[inline]
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), CloseReason> {
        self.check(bytes)?;
        self.charge_granted(bytes);
        Ok(())
    }

    /// Body bytes that were charged are no longer held.
    #[inline]
    pub(super) fn release(&mut self, bytes: usize) {
        debug_assert!(bytes as u64 <= self.held(), "released more than was charged");
        self.returned = self.returned.wrapping_add(bytes as u64);
    }

    /// Body bytes are no longer held, as the application says, which may say it twice.
    #[inline]
    pub(super) fn release_at_most(&mut self, bytes: usize) {
        self.release(bytes.min(usize::try_from(self.held()).unwrap_or(usize::MAX)));
    }

    /// Whether enough came together for a CREDIT frame: a quarter of the window, and anything when the other
    /// side has little left, since somebody may wait for just that. Of bytes, little is less than the largest
    /// message and the quarter that an item leaves to others: what is held meanwhile may be held for ever, by a
    /// stream that rests. Of items it is a sixteenth of the window, and a quarter is until a sixteenth came
    /// together.
    #[inline]
    pub(super) fn is_grant_due(&self) -> bool {
        if bug!("grant_forgotten") {
            return self.returned >= self.size;
        }
        if self.granted < self.low && !bug!("credit_kept_back") {
            return self.returned > 0;
        }
        let sixteenth = self.size / 16;
        // In this order, since little has come back as a rule.
        self.returned > sixteenth
            && (self.returned >= self.size / 4 || self.granted < self.size / 4)
    }

    pub(super) fn take_grant(&mut self) -> u64 {
        let amount = core::mem::take(&mut self.returned);
        self.granted += amount;
        amount
    }

    /// How many bytes the other side may still send, when it has heard all that was granted.
    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// How many bytes this side holds.
    #[inline]
    pub(super) fn held(&self) -> u64 {
        self.size - self.granted - self.returned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_zero_and_overflowing_credit_are_refused() {
        let mut allowance = Allowance::new(WINDOW_MAX - 10);
        assert_eq!(allowance.grant(0), Err(CloseReason::BadCredit));
        assert_eq!(allowance.grant(11), Err(CloseReason::BadCredit));
        assert_eq!(allowance.grant(u64::MAX), Err(CloseReason::BadCredit));
        assert_eq!(allowance.grant(10), Ok(()));
    }

    proptest::proptest! {
        /// Whatever is taken, sent, held and granted: nothing is lost and nothing appears.
        #[test]
        fn c12_credit_is_conserved(steps: alloc::vec::Vec<(bool, u8)>) {
            let size = 1000;
            let (mut allowance, mut window) = (Allowance::new(size), Window::new(size, 500));
            let mut held = alloc::vec::Vec::new();
            for (send, n) in steps {
                if send && allowance.take(usize::from(n)) {
                    window.charge(usize::from(n)).unwrap();
                    held.push(usize::from(n));
                } else if !held.is_empty() {
                    window.release(held.swap_remove(usize::from(n) % held.len()));
                }
                if window.is_grant_due() {
                    allowance.grant(window.take_grant()).unwrap();
                }
                let holding: usize = held.iter().sum();
                assert_eq!(window.held(), holding as u64);
                assert_eq!(allowance.available(), window.granted);
                // What is neither held nor sendable is kept back, and that is less than a quarter.
                assert!(size - allowance.available() - window.held() < size / 4);
            }
        }
    }
}
