//! Names of calls and methods.

use core::fmt;
use core::num::NonZeroU32;

/// Which end of a connection opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that connected.
    Client,
    /// The end that accepted.
    Server,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Client => "client",
            Side::Server => "server",
        })
    }
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// Names a call on its connection: who began it (1 bit), the slot's generation (31 bits), the slot
/// (32 bits).
///
/// Both ends find a call by indexing with the slot, which is below the limit that the receiver
/// advertised: there is no map whose size or hashing an attacker could choose. The generation tells a
/// slot's owners apart, so that a late reply never reaches the next one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MessageId(u64);

const GENERATION_MASK: u32 = 0x7fff_ffff;

impl MessageId {
    /// Frames that belong to no call.
    pub const CONNECTION: MessageId = MessageId(0);

    /// The id of the call that `side` began in `slot`; the generation counts modulo 2^31.
    #[inline]
    #[must_use]
    pub const fn new(side: Side, generation: u32, slot: u32) -> MessageId {
        let initiator = matches!(side, Side::Server) as u64;
        let generation = (generation & GENERATION_MASK) as u64;
        MessageId(initiator << 63 | generation << 32 | slot as u64)
    }

    /// The id of the next call in the same slot.
    #[inline]
    #[must_use]
    pub(crate) const fn next(self) -> MessageId {
        let next = MessageId(self.0.wrapping_add(1 << 32));
        // A generation that wraps must not carry into the side.
        if (next.0 ^ self.0) >> 63 == 0 { next } else { self.first() }
    }

    /// The id with generation 0 in the same slot.
    #[cold]
    const fn first(self) -> MessageId {
        MessageId(self.0 & !((GENERATION_MASK as u64) << 32))
    }

    /// From a frame's head.
    #[inline]
    #[must_use]
    pub const fn from_wire(wire: u64) -> MessageId {
        MessageId(wire)
    }

    /// For a frame's head.
    #[inline]
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// Who began the call.
    #[inline]
    #[must_use]
    pub const fn side(self) -> Side {
        if self.0 >> 63 == 0 { Side::Client } else { Side::Server }
    }

    /// Which use of the slot it is.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }

    /// Where both ends keep the call.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}.{}", self.side(), self.slot(), self.generation())
    }
}

/// A call that this side made, as returned by [`Connection::call`](crate::Connection::call).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub(crate) MessageId);

/// A call that the other side made, as delivered with its [`Request`](crate::Request).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    pub(crate) id: MessageId,
    /// For one-way calls, which hold no slot.
    pub(crate) one_way: Option<OneWay>,
}

/// What a one-way call has instead of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OneWay {
    /// How many body bytes are charged for it.
    pub(crate) charged: u32,
    /// Tells it from others that the peer has given the same message id, as it may.
    pub(crate) number: NonZeroU32,
}

impl OneWay {
    /// As it is recorded.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.number.get()) << 32 | u64::from(self.charged)
    }

    pub(crate) fn from_bits(bits: u64) -> OneWay {
        let number = NonZeroU32::new((bits >> 32) as u32).unwrap_or(NonZeroU32::MIN);
        OneWay { charged: bits as u32, number }
    }
}

/// The streams of a call, whichever side made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(pub(crate) MessageId);

impl StreamId {
    /// Where both ends keep the call: below the in-flight limit of the side that serves it.
    #[must_use]
    pub fn slot(self) -> u32 {
        self.0.slot()
    }

    /// Which side made the call.
    #[must_use]
    pub fn caller(self) -> Side {
        self.0.side()
    }
}

impl From<CallId> for StreamId {
    fn from(call: CallId) -> StreamId {
        StreamId(call.0)
    }
}

impl From<RequestId> for StreamId {
    fn from(request: RequestId) -> StreamId {
        StreamId(request.id)
    }
}

impl RequestId {
    /// Whether the caller expects no answer.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.one_way.is_some()
    }
}

/// The control method that gives a side's table of methods by page: any side that sets *control methods* in its HELLO answers
/// it, see `docs/PROTOCOL.md`.
pub const METHODS_PAGE: &str = "ringcall.Methods/page";

/// The control method by which a side says that it begins with a call that has a [`TIED`](crate::frame::tag::TIED): one-way, to
/// whoever made that call.
pub const CALLS_BEGUN: &str = "ringcall.Calls/begun";

/// Of a method's full name; those that there are are shorter by far.
const METHOD_NAME_BYTES_MAX: usize = 512;

/// Whether a method may be called that: `package.Service/method`, of up to 512 bytes, without spaces.
#[must_use]
pub fn is_method_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.contains(|c: char| c.is_control() || c.is_whitespace() || c == '/')
    };
    let parts = name.split_once('/').filter(|_| name.len() <= METHOD_NAME_BYTES_MAX);
    parts.is_some_and(|(service, method)| is_word(service) && is_word(method))
}

/// The number of a method on the wire: FNV-1a (64 bits) of `package.Service/method` in UTF-8.
///
/// The signature is not part of it, so that a changed method is recognised as the same one. Two
/// methods with equal numbers are refused when a server registers them.
#[must_use]
pub const fn method_id(full_name: &str) -> u64 {
    let bytes = full_name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_called_by_service_and_name() {
        let names = ["demo.Echo/echo", "Echo/echo", "ringcall.Methods/page", "größe.Größe/größe"];
        assert!(names.into_iter().all(is_method_name));
        let long = "a".repeat(METHOD_NAME_BYTES_MAX) + "/a";
        let others = ["", "/", "echo", "Echo/", "/echo", "a/b/c", "a b/c", "a/b\n", &long];
        assert!(!others.into_iter().any(is_method_name));
    }

    #[test]
    fn fnv_1a_matches_its_published_vectors() {
        assert_eq!(method_id(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(method_id("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(method_id("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn ids_hold_their_parts() {
        let id = MessageId::new(Side::Server, 0x8000_0005, 7);
        assert_eq!((id.side(), id.generation(), id.slot()), (Side::Server, 5, 7));
        assert_eq!(MessageId::from_wire(id.to_wire()), id);
    }
}
