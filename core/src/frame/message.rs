//! Headers of frames that carry messages: REQUEST, REPLY, DATA, ITEM, END.

use super::{Fields, Reader, fixed};
use crate::{Codec, Encoding, Refusal, Status};

/// Flags of a REQUEST.
pub mod request_flags {
    /// There will be no REPLY.
    pub const ONE_WAY: u8 = 1 << 0;
    /// The caller sends a stream of ITEMs.
    pub const ITEMS_IN: u8 = 1 << 1;
    /// The caller expects a stream of ITEMs.
    pub const ITEMS_OUT: u8 = 1 << 2;
    /// DATA frames with the rest of the body follow.
    pub const MORE: u8 = super::super::FLAG_MORE;
    /// This call is a retry already: nobody further down may retry it again.
    pub const RETRIED: u8 = 1 << 4;
    /// Running it twice does no harm.
    pub const IDEMPOTENT: u8 = 1 << 5;
    /// All of them.
    pub const ALL: u8 =
        ONE_WAY | ITEMS_IN | ITEMS_OUT | MORE | RETRIED | IDEMPOTENT | super::super::FLAG_CONFIRM;
}

/// The fixed part of a REQUEST's header. Laid out as it is sent, so that its fields are moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RequestHeader {
    /// Hash of `package.Service/method`, see [`method_id`](crate::method_id).
    pub method: u64,
    /// Shapes of the argument and the items that the caller sends.
    pub in_signature: u64,
    /// Shapes of the reply, the error and the items that the caller reads.
    pub out_signature: u64,
    /// What is left of the deadline, in microseconds: 0 expired, `u32::MAX` none.
    pub deadline_us: u32,
    /// How the body is encoded.
    pub codec: Codec,
    /// How the body is compressed: 0 not at all.
    pub compression: u8,
    /// 0 is the most ordinary, what is more important has more; how many there are is up to the services.
    pub priority: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
}

impl RequestHeader {
    /// The length of the fixed part.
    pub const LEN: usize = 32;

    /// Reads the fixed part; what follows it are TLVs.
    #[inline]
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(RequestHeader, &[u8])> {
        let (fixed, rest) = header.split_first_chunk()?;
        Some((RequestHeader::decode(fixed), rest))
    }

    /// Reads the fixed part; every sequence of bytes is one.
    #[inline]
    #[must_use]
    pub fn decode(fixed: &[u8; RequestHeader::LEN]) -> RequestHeader {
        let mut fields = Reader(fixed);
        RequestHeader {
            method: fields.u64(),
            in_signature: fields.u64(),
            out_signature: fields.u64(),
            deadline_us: fields.u32(),
            codec: Codec(fields.u8()),
            compression: fields.u8(),
            priority: fields.u8(),
            attempt: fields.u8(),
        }
    }

    /// The fixed part's bytes.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; RequestHeader::LEN] {
        let mut bytes = [0; RequestHeader::LEN];
        bytes[0..8].copy_from_slice(&self.method.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.in_signature.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.out_signature.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.deadline_us.to_le_bytes());
        bytes[28..32].copy_from_slice(&[
            self.codec.0,
            self.compression,
            self.priority,
            self.attempt,
        ]);
        bytes
    }
}

/// The fixed part of a REPLY's or an END's header. Laid out as it is sent, so that its fields are moved together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReplyHeader {
    /// Shapes of what the body may hold: reply, error and items.
    pub signature: u64,
    /// How the call ended.
    pub status: Status,
    /// How the body is encoded.
    pub codec: Codec,
    /// How the body is compressed: 0 not at all.
    pub compression: u8,
    /// How long the call waited for its handler, in microseconds.
    pub queue_us: u32,
    /// How long the handler had it, in microseconds.
    pub handler_us: u32,
    /// How busy the server is, in thousandths of what it can do; 0 if it does not say.
    pub load: u16,
    /// When to try again, in milliseconds: 0 no advice, `u16::MAX` not at all.
    pub retry_after_ms: u16,
    /// The lowest priority class that the server admits at the moment.
    pub admission: u8,
}

impl From<Refusal> for ReplyHeader {
    fn from(refusal: Refusal) -> ReplyHeader {
        let retry_after_ms = refusal.retry_after_ms();
        ReplyHeader { retry_after_ms, ..ReplyHeader::new(refusal.status()) }
    }
}

impl ReplyHeader {
    /// Whether it is that of a value, of this signature and in this codec, which is not compressed.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self, signature: u64, codec: Codec) -> bool {
        // All but the signature lies side by side, and is compared as a word.
        let class = self.status.to_wire() & Status::CLASS;
        let [low, high] = class.to_le_bytes();
        let word = u32::from_le_bytes([low, high, self.codec.0, self.compression]);
        self.signature == signature && word == (codec.0 as u32) << 16
    }

    /// The length of the fixed part.
    pub const LEN: usize = 32;

    /// A header with a status and nothing else.
    #[must_use]
    pub const fn new(status: Status) -> ReplyHeader {
        ReplyHeader {
            signature: 0,
            status,
            codec: Codec::RAW,
            compression: 0,
            queue_us: 0,
            handler_us: 0,
            load: 0,
            retry_after_ms: 0,
            admission: 0,
        }
    }

    /// Reads the fixed part; what follows it are TLVs.
    #[inline]
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(ReplyHeader, &[u8])> {
        let (fixed, rest) = header.split_first_chunk()?;
        Some((ReplyHeader::decode(fixed), rest))
    }

    /// Reads the fixed part; every sequence of bytes is one.
    #[inline]
    #[must_use]
    pub fn decode(fixed: &[u8; ReplyHeader::LEN]) -> ReplyHeader {
        let mut fields = Reader(fixed);
        ReplyHeader {
            signature: fields.u64(),
            status: Status::from_wire(fields.u16()),
            codec: Codec(fields.u8()),
            compression: fields.u8(),
            queue_us: fields.u32(),
            handler_us: fields.u32(),
            load: fields.u16(),
            retry_after_ms: fields.u16(),
            admission: fields.u8(),
        }
    }

    /// The fixed part's bytes.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; ReplyHeader::LEN] {
        let mut bytes = [0; ReplyHeader::LEN];
        bytes[0..8].copy_from_slice(&self.signature.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.status.to_wire().to_le_bytes());
        bytes[10..12].copy_from_slice(&[self.codec.0, self.compression]);
        bytes[12..16].copy_from_slice(&self.queue_us.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.handler_us.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.load.to_le_bytes());
        bytes[22..24].copy_from_slice(&self.retry_after_ms.to_le_bytes());
        // With the zeros behind it: what is written as one word goes into a frame as one.
        bytes[24..32].copy_from_slice(&u64::from(self.admission).to_le_bytes());
        bytes
    }

    /// The fixed part as numbers, which can be handed on without a place in memory.
    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; 4] {
        let [codec, compression] = [self.codec.0, self.compression].map(u64::from);
        let (load, retry) = (u64::from(self.load), u64::from(self.retry_after_ms));
        [
            self.signature,
            u64::from(self.status.to_wire()) | codec << 16 | compression << 24,
            u64::from(self.queue_us) | u64::from(self.handler_us) << 32,
            load | retry << 16 | u64::from(self.admission) << 32,
        ]
    }

    pub(crate) fn from_words([signature, how, times, advice]: [u64; 4]) -> ReplyHeader {
        ReplyHeader {
            signature,
            status: Status::from_wire(how as u16),
            codec: Codec((how >> 16) as u8),
            compression: (how >> 24) as u8,
            queue_us: times as u32,
            handler_us: (times >> 32) as u32,
            load: advice as u16,
            retry_after_ms: (advice >> 16) as u16,
            admission: (advice >> 32) as u8,
        }
    }
}

/// The header of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Where in the body this part belongs: right behind what was sent before.
    pub offset: u64,
}

impl DataHeader {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(DataHeader, &[u8])> {
        let (mut fields, rest) = fixed::<{ DataHeader::LEN }>(header)?;
        let offset = fields.u64();
        let _reserved = fields.u64();
        Some((DataHeader { offset }, rest))
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; DataHeader::LEN] {
        Fields::new().put(self.offset.to_le_bytes()).finish()
    }
}

impl From<ItemHeader> for Encoding {
    #[inline]
    fn from(header: ItemHeader) -> Encoding {
        let ItemHeader { signature, codec, compression } = header;
        Encoding { codec, compression, signature }
    }
}

/// The header of an ITEM frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemHeader {
    /// The signature of the direction's items.
    pub signature: u64,
    /// How the body is encoded.
    pub codec: Codec,
    /// How the body is compressed: 0 not at all.
    pub compression: u8,
}

impl ItemHeader {
    /// The length of the fixed part.
    pub const LEN: usize = 16;

    /// Reads the fixed part; what follows it are TLVs.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<(ItemHeader, &[u8])> {
        let (fixed, rest) = header.split_first_chunk()?;
        Some((ItemHeader::decode(fixed), rest))
    }

    /// Reads the fixed part; every sequence of bytes is one.
    #[inline]
    #[must_use]
    pub fn decode(fixed: &[u8; ItemHeader::LEN]) -> ItemHeader {
        let mut fields = Reader(fixed);
        ItemHeader { signature: fields.u64(), codec: Codec(fields.u8()), compression: fields.u8() }
    }

    /// The fixed part's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ItemHeader::LEN] {
        Fields::new()
            .put(self.signature.to_le_bytes())
            .put([self.codec.0, self.compression])
            .finish()
    }
}
