//! Bodies that say whose they are, and what their receiver is to do.

use std::sync::OnceLock;

use bytes::Bytes;
use ringcall_core::{Codec, EncodeError, Payload, REFERENCE_BYTES_MIN, Writer};

use crate::rng::{Rng, mix};

/// The longest body that there is.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 19;
/// At how many places of the pattern bodies begin.
const PLACES: u64 = 4096;

fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut rng = Rng::new(0, 0);
        let words = (BODY_BYTES_MAX + PLACES as usize) / 8 + 1;
        (0..words).flat_map(|_| rng.next().to_le_bytes()).collect()
    })
}

/// A body of `len` bytes that belongs to `owner`: its first eight bytes are the owner, the rest is taken
/// from a place that depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub(crate) owner: u64,
    pub(crate) len: usize,
}

impl Body {
    fn rest(&self) -> Bytes {
        let at = (mix(self.owner) % PLACES) as usize;
        pattern().slice(at..at + self.len.saturating_sub(8))
    }

    /// Whether these are its bytes.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        let front = self.len.min(8);
        bytes.len() == self.len
            && bytes[..front] == self.owner.to_le_bytes()[..front]
            && bytes[front..] == self.rest()[..]
    }
}

impl Payload for Body {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        out.put(&self.owner.to_le_bytes()[..self.len.min(8)])?;
        let mut rest = self.rest();
        // Long ones are not copied, as with ordinary payloads: to their end, or with something written behind them.
        if rest.len() < REFERENCE_BYTES_MIN {
            return Ok(out.put(&rest)?);
        }
        if self.owner & 1 == 0 || !out.can_attach_within() {
            return Ok(out.attach(rest.into())?);
        }
        let back = rest.split_off(rest.len() - (self.owner >> 1) as usize % 40);
        out.attach_within(rest.into())?;
        Ok(out.put(&back)?)
    }
}

/// The owner of an item.
pub(crate) fn item_owner(call: u64, of_caller: bool, nth: u32) -> u64 {
    mix(call << 1 | u64::from(of_caller)) ^ u64::from(nth)
}

/// The owner of the answer to a call.
pub(crate) fn answer_owner(call: u64) -> u64 {
    !call
}

/// What the server does with a call: travels as its in-signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) how: How,
    /// How long it takes, in units of 64 µs.
    pub(crate) delay: u16,
    /// Of the answer, in bytes.
    pub(crate) answer_len: u32,
    /// How many items it answers with, if it was asked for items.
    pub(crate) items: u8,
    /// Of each item at most, as a power of two.
    pub(crate) item_bits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// At once.
    Now,
    /// After a while.
    Later,
    /// Only when nobody waits any more.
    Never,
    /// After having called the caller.
    CallBack,
    /// With an error of the application.
    Error,
    /// With a refusal, without having run.
    Refuse,
}

const HOWS: [How; 6] = [How::Now, How::Later, How::Never, How::CallBack, How::Error, How::Refuse];

impl Plan {
    pub(crate) fn to_signature(self) -> u64 {
        let how = HOWS.iter().position(|how| *how == self.how).expect("all are there") as u64;
        how | u64::from(self.delay) << 4
            | u64::from(self.answer_len) << 20
            | u64::from(self.items) << 48
            | u64::from(self.item_bits) << 56
    }

    pub(crate) fn from_signature(signature: u64) -> Plan {
        Plan {
            how: HOWS[(signature & 15) as usize],
            delay: (signature >> 4) as u16,
            answer_len: (signature >> 20) as u32 & 0x0fff_ffff,
            items: (signature >> 48) as u8,
            item_bits: (signature >> 56) as u8,
        }
    }

    /// How long the *nth* item of a call is.
    pub(crate) fn item_len(self, call: u64, of_caller: bool, nth: u32) -> usize {
        let owner = item_owner(call, of_caller, nth);
        let bits = mix(owner) % (u64::from(self.item_bits) + 1);
        (mix(owner ^ 1) % (1 << bits)) as usize
    }
}
