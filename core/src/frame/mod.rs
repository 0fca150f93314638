//! Wire format v1: how frames look. What they mean is in `connection`; the
//! specification is `docs/PROTOCOL.md`, whose vectors the tests of this crate read.
//!
//! Everything in this module parses bytes of a peer: it returns `None` or an error and never panics.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod control;
mod extension;
mod hello;
mod message;
mod metadata;

pub use control::{Cancel, CancelReason, Credit, CreditPool, CreditUnit, GoAway, Limits, Ping};
pub use extension::{BadExtension, Extension, ExtensionWriter, Extensions, tag};
pub use hello::{ArchiveFormat, Hello, InstanceId, features};
pub use message::{DataHeader, ItemHeader, ReplyHeader, RequestHeader, request_flags};
pub use metadata::{METADATA_KEY_MAX, is_metadata_key, parse_metadata};

use core::ops::Range;

use crate::MessageId;

/// The first seven bytes on a connection, in both directions. Neither ASCII nor a TLS record.
pub const MAGIC: [u8; 7] = [0xf7, b'R', b'I', b'N', b'G', b'\r', b'\n'];
/// Follows the magic: the major version of the format.
pub const VERSION: u8 = 1;
/// How long the preface is.
pub const PREFACE_LEN: usize = 8;
/// What this implementation sends first.
pub const PREFACE: [u8; PREFACE_LEN] = [0xf7, b'R', b'I', b'N', b'G', b'\r', b'\n', VERSION];

/// Frames start and headers end at multiples of this, counted from the end of the preface.
pub const ALIGN: usize = 16;
/// The largest header a frame may have.
pub const HEADER_LEN_MAX: usize = 16 * 1024;
/// The largest frame before a connection is established: a HELLO.
pub const HANDSHAKE_FRAME_MAX: usize = 4096 - Head::LEN;
/// More DATA frames of this body follow. For REQUEST, REPLY, ITEM and END.
pub const FLAG_MORE: u8 = 1 << 3;
/// The body counts only when a DATA frame without bytes has confirmed it. For REQUEST, REPLY, ITEM and END,
/// together with [`FLAG_MORE`].
pub const FLAG_CONFIRM: u8 = 1 << 6;
/// A LIMITS frame that answers one.
pub const FLAG_ACK: u8 = 1 << 0;
/// A REPLY after which ITEMs follow.
pub const FLAG_ITEMS: u8 = 1 << 2;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Versions, limits and abilities of one side; the first frame from either.
    Hello = 1,
    /// Begins a call.
    Request = 2,
    /// Ends a call, or begins its stream of items.
    Reply = 3,
    /// Continues a body.
    Data = 4,
    /// One message of a stream.
    Item = 5,
    /// Ends a stream.
    End = 6,
    /// Allows the other side to send more.
    Credit = 7,
    /// The caller does not want the reply any more.
    Cancel = 8,
    /// Asks for a sign of life.
    Ping = 9,
    /// Answers a PING.
    Pong = 10,
    /// No further calls, please; says which ones were taken.
    GoAway = 11,
    /// Changes the limits of HELLO.
    Limits = 12,
}

impl Kind {
    /// All kinds of v1.
    pub const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::Request,
        Kind::Reply,
        Kind::Data,
        Kind::Item,
        Kind::End,
        Kind::Credit,
        Kind::Cancel,
        Kind::Ping,
        Kind::Pong,
        Kind::GoAway,
        Kind::Limits,
    ];

    /// The kind with this number, if v1 has it.
    #[inline]
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Hello,
            2 => Kind::Request,
            3 => Kind::Reply,
            4 => Kind::Data,
            5 => Kind::Item,
            6 => Kind::End,
            7 => Kind::Credit,
            8 => Kind::Cancel,
            9 => Kind::Ping,
            10 => Kind::Pong,
            11 => Kind::GoAway,
            12 => Kind::Limits,
            _ => return None,
        })
    }

    /// Whether a frame of an unknown kind may be skipped; any other closes the connection.
    #[must_use]
    pub const fn is_ignorable(number: u8) -> bool {
        number >= 0x80
    }

    /// The length of the fixed part of the kind's header.
    #[must_use]
    pub const fn fixed_len(self) -> usize {
        match self {
            Kind::Hello => Hello::LEN,
            Kind::Request => RequestHeader::LEN,
            Kind::Reply | Kind::End => ReplyHeader::LEN,
            Kind::Data => DataHeader::LEN,
            Kind::Item => ItemHeader::LEN,
            Kind::Credit => Credit::LEN,
            Kind::Cancel => Cancel::LEN,
            Kind::Ping | Kind::Pong => Ping::LEN,
            Kind::GoAway => GoAway::LEN,
            Kind::Limits => Limits::LEN,
        }
    }

    /// The flags that v1 knows for the kind; any other closes the connection.
    #[must_use]
    pub const fn known_flags(self) -> u8 {
        match self {
            Kind::Request => request_flags::ALL,
            Kind::Reply => FLAG_MORE | FLAG_ITEMS | FLAG_CONFIRM,
            Kind::Item | Kind::End => FLAG_MORE | FLAG_CONFIRM,
            Kind::Limits => FLAG_ACK,
            _ => 0,
        }
    }

    /// Whether frames of the kind may have a body.
    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(self, Kind::Request | Kind::Reply | Kind::Data | Kind::Item | Kind::End)
    }
}

/// The fixed part in front of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Length of header and body together, without this head and without padding.
    pub length: u32,
    /// A [`Kind`], or a number that v1 does not know.
    pub kind: u8,
    /// What the bits mean depends on the kind.
    pub flags: u8,
    /// Length of the header, a multiple of 16.
    pub header_len: u16,
    /// The call that the frame belongs to; zero for the connection itself.
    pub id: MessageId,
}

impl Head {
    /// How many bytes a head has.
    pub const LEN: usize = 16;

    /// Where the length stands.
    pub(crate) const LENGTH: Range<usize> = 0..4;
    /// Where kind, flags and the header's length stand.
    pub(crate) const KIND: Range<usize> = 4..8;
    /// Where the id stands.
    pub(crate) const ID: Range<usize> = 8..16;

    /// Reads a head; every sequence of bytes is one.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8; Head::LEN]) -> Head {
        let mut fields = Reader(bytes);
        Head {
            length: fields.u32(),
            kind: fields.u8(),
            flags: fields.u8(),
            header_len: fields.u16(),
            id: MessageId::from_wire(fields.u64()),
        }
    }

    /// The head's bytes.
    #[inline]
    #[must_use]
    pub fn encode(&self) -> [u8; Head::LEN] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [h0, h1] = self.header_len.to_le_bytes();
        let [i0, i1, i2, i3, i4, i5, i6, i7] = self.id.to_wire().to_le_bytes();
        [l0, l1, l2, l3, self.kind, self.flags, h0, h1, i0, i1, i2, i3, i4, i5, i6, i7]
    }

    /// The exact length of the body, `None` if the header is said to be longer than the frame.
    #[inline]
    #[must_use]
    pub fn body_len(&self) -> Option<usize> {
        self.length.checked_sub(u32::from(self.header_len)).map(|len| len as usize)
    }

    /// How many zero bytes follow the body.
    #[inline]
    #[must_use]
    pub fn padding(&self) -> usize {
        (self.length.wrapping_neg() & 15) as usize
    }

    /// How many bytes the frame takes in the stream, `None` if that does not fit a `usize`.
    #[inline]
    #[must_use]
    pub fn frame_len(&self) -> Option<usize> {
        Head::LEN.checked_add(self.length as usize)?.checked_add(self.padding())
    }
}

/// Kind, flags and length of the header in one number, as they stand in a [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape(u32);

impl Shape {
    /// Of a frame with a header of `header_len`.
    pub(crate) const fn new(kind: Kind, flags: u8, header_len: u16) -> Shape {
        let [low, high] = header_len.to_le_bytes();
        Shape(u32::from_le_bytes([kind as u8, flags, low, high]))
    }

    /// Reads it from a head.
    #[inline(always)]
    pub(crate) fn parse(bytes: &[u8; Head::LEN]) -> Shape {
        let mut fields = Reader(bytes);
        let _length = fields.u32();
        Shape(fields.u32())
    }

    /// The flags.
    #[inline(always)]
    pub(crate) const fn flags(self) -> u8 {
        let [_, flags, ..] = self.0.to_le_bytes();
        flags
    }

    /// The same without these flags.
    #[inline(always)]
    pub(crate) const fn without(self, flags: u8) -> Shape {
        Shape(self.0 & !u32::from_le_bytes([0, flags, 0, 0]))
    }
}

/// Splits the fixed part off a header.
#[inline]
fn fixed<const N: usize>(header: &[u8]) -> Option<(Reader<'_>, &[u8])> {
    let (fixed, rest) = header.split_first_chunk::<N>()?;
    Some((Reader(fixed), rest))
}

/// Takes numbers off the front of the fixed part of a header, whose length is known.
pub(crate) struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// The next field. The fields of a fixed part are as long as it is, so there always is one, and the
    /// compiler knows.
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((front, rest)) => {
                self.0 = rest;
                *front
            }
            None => [0; N],
        }
    }

    #[inline(always)]
    fn u8(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    #[inline(always)]
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    #[inline(always)]
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    #[inline(always)]
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Puts numbers into the zeroed fixed part of a header, front to back.
struct Fields<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fields<N> {
    #[inline(always)]
    fn new() -> Fields<N> {
        Fields { bytes: [0; N], at: 0 }
    }

    #[inline(always)]
    fn put<const M: usize>(mut self, field: [u8; M]) -> Self {
        let end = self.at.saturating_add(M);
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(&field);
        }
        self.at = end;
        self
    }

    #[inline(always)]
    fn finish(self) -> [u8; N] {
        debug_assert!(self.at <= N, "the fields fit their header");
        self.bytes
    }
}
