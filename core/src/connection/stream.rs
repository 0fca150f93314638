//! The streams of one call: what may still be sent and received of each.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;

use super::assembly::Arriving;
use super::outbound::Body;
use super::state::{InputInput, InputState, OutputInput, OutputState};
use crate::config::WINDOW_MAX;
use crate::frame::ItemHeader;
use crate::{CloseReason, Instant, MessageId};

/// A stream may have an item in flight for so many bytes of its window, and a pool of the connection
/// likewise: what an item costs beside its body.
const BYTES_AN_ITEM: u64 = 1024;
const STREAM_ITEMS_MIN: u64 = 16;
const POOL_ITEMS_MIN: u64 = 64;
/// What an ended stream may still send beyond its credit and one message: the heads of its frames, of which
/// there is one for each item, and one for each KiB of large ones at most.
const LATE_SLACK: u64 = 64 * 1024;
const LATE_SHARE: u64 = 16;

/// How many items a stream with a window of so many bytes begins with.
pub(super) const fn stream_items(window: u64) -> u64 {
    let items = window / BYTES_AN_ITEM;
    if items > STREAM_ITEMS_MIN { items } else { STREAM_ITEMS_MIN }
}

/// How many items a pool with a window of so many bytes begins with.
pub(super) const fn pool_items(window: u64) -> u64 {
    let items = window / BYTES_AN_ITEM;
    if items > POOL_ITEMS_MIN { items } else { POOL_ITEMS_MIN }
}

/// What a call with streams has beside its slot.
#[derive(Debug)]
pub(super) struct Streams {
    /// Items that this side sends.
    pub(super) output: Option<Output>,
    /// Items that this side receives; absent when it does not want them any more.
    pub(super) input: Option<Input>,
    /// This side has made the call, and wants items.
    pub(super) asked_for_items: bool,
    /// What of its argument this side counts among those that [opened](super::credit::Allowance::open) streams.
    pub(super) argument: usize,
    /// When something last happened in either direction.
    pub(super) touched: Instant,
}

/// How many bytes of a call's items may still arrive after its streams have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Late {
    /// Of this call only, not of the slot's next owner.
    pub(super) id: MessageId,
    pub(super) bytes: u64,
}

/// Items that this side sends.
#[derive(Debug)]
pub(super) struct Output {
    state: OutputState,
    /// Credit in bytes. An item may overdraw it, since a window need not have room for the largest one.
    bytes: i64,
    /// Credit in items.
    items: u64,
    /// Its application was told to wait.
    pub(super) is_blocked: bool,
    /// It is in the list of those that wait for the connection.
    pub(super) is_listed: bool,
    /// The first frame of the answer has been sent.
    pub(super) has_begun: bool,
    /// The end, which waits behind an item that is being sent.
    pub(super) last: Option<Box<Body>>,
}

impl Output {
    pub(super) fn new(state: OutputState, window: u64) -> Output {
        Output {
            state,
            bytes: i64::try_from(window).unwrap_or(i64::MAX),
            items: stream_items(window),
            is_blocked: false,
            is_listed: false,
            has_begun: false,
            last: None,
        }
    }

    pub(super) fn state(&self) -> OutputState {
        self.state
    }

    pub(super) fn step(&mut self, input: OutputInput) -> bool {
        let next = self.state.on(input);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }

    /// Whether an item may begin as far as this stream is concerned.
    #[inline]
    pub(super) fn may_send(&self) -> bool {
        self.state == OutputState::Open && self.bytes > 0 && self.items > 0
    }

    /// An item is sent.
    #[inline]
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.items = self.items.saturating_sub(1);
    }

    pub(super) fn grant_bytes(&mut self, amount: u64) -> Result<(), CloseReason> {
        let amount = i64::try_from(amount).map_err(|_| CloseReason::BadCredit)?;
        let sum = self.bytes.checked_add(amount);
        let sum = sum.filter(|&sum| amount > 0 && sum <= WINDOW_MAX.cast_signed());
        self.bytes = sum.ok_or(CloseReason::BadCredit)?;
        Ok(())
    }

    pub(super) fn grant_items(&mut self, amount: u64) -> Result<(), CloseReason> {
        let sum = self.items.checked_add(amount).filter(|&sum| amount > 0 && sum <= WINDOW_MAX);
        self.items = sum.ok_or(CloseReason::BadCredit)?;
        Ok(())
    }
}

/// Items that this side receives.
#[derive(Debug)]
pub(super) struct Input {
    state: InputState,
    window: u64,
    /// What the other side may still send; below zero by no more than a message.
    bytes: i64,
    items: u64,
    /// What the application no longer holds and was not granted again yet.
    returned_bytes: u64,
    returned_items: u64,
    /// A grant of it is queued.
    pub(super) is_granting: bool,
    /// An item that arrives in parts.
    pub(super) arriving: Option<Box<Arriving<ItemHeader>>>,
}

impl Input {
    pub(super) fn new(state: InputState, window: u64) -> Input {
        Input {
            state,
            window,
            bytes: i64::try_from(window).unwrap_or(i64::MAX),
            items: stream_items(window),
            returned_bytes: 0,
            returned_items: 0,
            is_granting: false,
            arriving: None,
        }
    }

    /// Whether its sender has not ended it.
    pub(super) fn is_open(&self) -> bool {
        self.state == InputState::Open
    }

    pub(super) fn step(&mut self, input: InputInput) -> bool {
        let next = self.state.on(input);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }

    /// An item begins: it may overdraw the credit, if there is any.
    #[inline]
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), CloseReason> {
        self.check()?;
        self.spend(bytes);
        Ok(())
    }

    /// The same, of one that was [checked](Self::check).
    #[inline]
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.items = self.items.saturating_sub(1);
    }

    #[inline]
    pub(super) fn check(&self) -> Result<(), CloseReason> {
        if self.state != InputState::Open || self.arriving.is_some() {
            return Err(CloseReason::BadStream);
        }
        match self.bytes > 0 && self.items > 0 {
            true => Ok(()),
            false => Err(CloseReason::CreditExceeded),
        }
    }

    /// The application no longer holds some items. Says whether a grant is due now.
    #[inline]
    pub(super) fn release(&mut self, items: usize, bytes: usize) -> bool {
        self.returned_bytes = self.returned_bytes.saturating_add(bytes as u64);
        self.returned_items = self.returned_items.saturating_add(items as u64);
        let is_due = self.returned_bytes >= self.window / 4
            || self.returned_items >= stream_items(self.window) / 4;
        is_due && self.state == InputState::Open && !core::mem::replace(&mut self.is_granting, true)
    }

    /// What to grant: bytes and items.
    pub(super) fn take_grant(&mut self) -> (u64, u64) {
        self.is_granting = false;
        let bytes = core::mem::take(&mut self.returned_bytes);
        let items = core::mem::take(&mut self.returned_items);
        self.bytes = self.bytes.saturating_add_unsigned(bytes);
        self.items = self.items.saturating_add(items);
        (bytes, items)
    }

    /// How much may still arrive after this side has ended the stream: what was sent before the other
    /// side knew.
    pub(super) fn late_bytes(&self, message_bytes_max: usize) -> u64 {
        let credit = u64::try_from(self.bytes).unwrap_or(0);
        let most = credit.saturating_add(message_bytes_max as u64);
        most.saturating_add(most.max(self.window) / LATE_SHARE).saturating_add(LATE_SLACK)
    }
}
