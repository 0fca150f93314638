//! How values stand in records.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;
use core::time::Duration;

use ringcall_buf::ObjectError;

use crate::frame::{ArchiveFormat, CancelReason, InstanceId, ReplyHeader};
use crate::ids::OneWay;
use crate::{
    CallId, CloseCode, CloseReason, Codec, EncodeError, Encoding, Instant, MessageId, RequestId,
    Side, StreamId, TlsFault, TransportError,
};

/// What stands in a record.
pub(super) trait Value<'a>: Sized {
    fn put(&self, out: &mut Vec<u8>);

    /// `None` where there is no such value.
    fn take(values: &mut Values<'a>) -> Option<Self>;
}

/// Types whose variants have a number each, and fields that are values.
macro_rules! numbered {
    ($($type:ident $(<$life:lifetime>)? {
        $($number:literal: $variant:ident $(($field:ident))? $({ $($named:ident),* })?,)*
    })*) => {
        $(impl<'a> $crate::record::values::Value<'a> for $type $(<$life>)? {
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                match self {
                    $($type::$variant $(($field))? $({ $($named),* })? => {
                        out.push($number);
                        $($crate::record::values::Value::put($field, out);)?
                        $($($crate::record::values::Value::put($named, out);)*)?
                    })*
                }
            }

            fn take(values: &mut $crate::record::values::Values<'a>) -> Option<Self> {
                Some(match values.u8()? {
                    $($number => $type::$variant
                        $(({
                            let $field = $crate::record::values::Value::take(values)?;
                            $field
                        }))?
                        $({ $($named: $crate::record::values::Value::take(values)?),* })?,)*
                    _ => return None,
                })
            }
        })*
    };
}
pub(super) use numbered;

/// Structures that are their fields, one behind the other.
macro_rules! fields {
    ($($type:ident $(<$life:lifetime>)? { $($field:ident),* $(,)? })*) => {
        $(impl<'a> $crate::record::values::Value<'a> for $type $(<$life>)? {
            fn put(&self, out: &mut alloc::vec::Vec<u8>) {
                let $type { $($field),* } = self;
                $($crate::record::values::Value::put($field, out);)*
            }

            fn take(values: &mut $crate::record::values::Values<'a>) -> Option<Self> {
                $(let $field = $crate::record::values::Value::take(values)?;)*
                Some($type { $($field),* })
            }
        })*
    };
}
pub(super) use fields;

/// Types that are one value inside.
macro_rules! wrapped {
    ($($type:ty: $inner:ty, |$value:ident| $get:expr, $make:expr;)*) => {
        $(impl<'a> Value<'a> for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let $value = self;
                let inner: $inner = $get;
                inner.put(out);
            }

            fn take(values: &mut Values<'a>) -> Option<Self> {
                let inner = <$inner>::take(values)?;
                $make(inner)
            }
        })*
    };
}

wrapped! {
    usize: u64, |n| *n as u64, |n| usize::try_from(n).ok();
    u32: u64, |n| u64::from(*n), |n| u32::try_from(n).ok();
    u16: u64, |n| u64::from(*n), |n| u16::try_from(n).ok();
    // Small ones in either direction are short.
    i32: u32, |n| (n << 1 ^ n >> 31) as u32, |n: u32| Some((n >> 1) as i32 ^ ((n & 1) as i32).wrapping_neg());
    bool: u8, |is| u8::from(*is), |n| match n {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    Instant: u64, |at| at.as_nanos(), |nanos| Some(Instant::from_nanos(nanos));
    // Longer ones than this (of 584 years) are not told apart.
    Duration: u64, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX),
        |nanos| Some(Duration::from_nanos(nanos));
    MessageId: u64, |id| id.to_wire(), |wire| Some(MessageId::from_wire(wire));
    CallId: MessageId, |id| id.0, |id| Some(CallId(id));
    StreamId: MessageId, |id| id.0, |id| Some(StreamId(id));
    OneWay: u64, |it| it.to_bits(), |bits| Some(OneWay::from_bits(bits));
    Codec: u8, |codec| codec.0, |number| Some(Codec(number));
    CloseCode: u16, |code| code.0, |number| Some(CloseCode(number));
    ArchiveFormat: u8, |format| format.0, |bits| Some(ArchiveFormat(bits));
    InstanceId: [u8; 16], |id| id.0, |id| Some(InstanceId(id));
    ReplyHeader: [u8; 32], |header| header.encode(), |bytes| Some(ReplyHeader::decode(&bytes));
}

fields! {
    RequestId { id, one_way }
    Encoding { codec, compression, signature }
}

impl<'a> Value<'a> for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn take(values: &mut Values<'a>) -> Option<u8> {
        values.u8()
    }
}

impl<'a> Value<'a> for u64 {
    /// Seven bits a byte, the lowest first.
    fn put(&self, out: &mut Vec<u8>) {
        let mut n = *self;
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    }

    /// Only as it is written.
    fn take(values: &mut Values<'a>) -> Option<u64> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = values.u8()?;
            let bits = u64::from(byte & 0x7f);
            let placed = bits.checked_shl(shift)?;
            if placed.checked_shr(shift)? != bits {
                return None;
            }
            n |= placed;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(n);
            }
        }
        None
    }
}

impl<'a, const N: usize> Value<'a> for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn take(values: &mut Values<'a>) -> Option<[u8; N]> {
        values.array()
    }
}

impl<'a, V: Value<'a>> Value<'a> for Option<V> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(values: &mut Values<'a>) -> Option<Option<V>> {
        match bool::take(values)? {
            true => V::take(values).map(Some),
            false => Some(None),
        }
    }
}

impl<'a> Value<'a> for Result<(), ObjectError> {
    fn put(&self, out: &mut Vec<u8>) {
        self.err().put(out);
    }

    fn take(values: &mut Values<'a>) -> Option<Self> {
        let error: Option<ObjectError> = Value::take(values)?;
        Some(error.map_or(Ok(()), Err))
    }
}

impl<'a> Value<'a> for EncodeError {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_numbers().put(out);
    }

    fn take(values: &mut Values<'a>) -> Option<EncodeError> {
        let (number, n) = Value::take(values)?;
        Some(EncodeError::from_numbers(number, n))
    }
}

impl<'a, A: Value<'a>, B: Value<'a>> Value<'a> for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(values: &mut Values<'a>) -> Option<(A, B)> {
        Some((A::take(values)?, B::take(values)?))
    }
}

numbered! {
    Side { 0: Client, 1: Server, }
    CancelReason { 0: Dropped, 1: Expired, 2: Superseded, }
    CloseReason {
        0: UnknownPreface(bytes),
        1: PeerSpeaksTls,
        2: PeerSpeaksPlaintext,
        3: Tls(fault),
        4: Version { min, max },
        5: FrameTooLarge,
        6: BadHeader,
        7: BadPadding,
        8: UnknownKind(kind),
        9: UnknownFlags(flags),
        10: BadLength,
        11: BadHello,
        12: UnknownExtension(tag),
        13: BadId,
        14: SlotOutOfRange,
        15: IdReused,
        16: DataOutOfOrder,
        17: CreditExceeded,
        18: BadCredit,
        19: UnknownReplies,
        20: TooMuchIgnored,
        21: NotNegotiated,
        22: Truncated,
        23: TooManyPings,
        24: TooManyCancels,
        25: TooManyControlFrames,
        26: SmallParts,
        27: BadStream,
        28: HandshakeTimeout,
        29: BodyStalled,
        30: SendStalled,
        31: PeerSilent,
        32: GoAway(code),
        33: PeerClosed,
        34: Local,
        35: Transport(error),
        36: Denied,
        37: MemoryShort,
        38: WrongInstance,
    }
    TlsFault {
        0: CertificateExpired,
        1: CertificateNotYetValid,
        2: CertificateUnknownIssuer,
        3: CertificateWrongName,
        4: CertificateRevoked,
        5: CertificateBad,
        6: CertificateMissing,
        7: NoCommonVersion,
        8: NoCommonSuite,
        9: NoCommonProtocol,
        10: Alert(number),
        11: Tampered,
        12: Malformed,
        13: Truncated,
        14: TooMuch,
        15: Unanswered,
        16: Internal,
    }
    TransportError {
        0: Refused,
        1: Reset,
        2: TimedOut,
        3: Unreachable,
        4: AddressInUse,
        5: BadAddress,
        6: PermissionDenied,
        7: Exhausted,
        8: Unsupported,
        9: Os(number),
        10: Unresolved,
    }
}

impl<'a> Value<'a> for ObjectError {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            ObjectError::Ended => (0_u8, 0_i32).put(out),
            ObjectError::NoRoom => (1_u8, 0_i32).put(out),
            ObjectError::Os(number) => (2_u8, *number).put(out),
            // The type may grow.
            _ => (0_u8, 0_i32).put(out),
        }
    }

    fn take(values: &mut Values<'a>) -> Option<ObjectError> {
        let (number, os) = <(u8, i32)>::take(values)?;
        Some(match number {
            0 => ObjectError::Ended,
            1 => ObjectError::NoRoom,
            2 => ObjectError::Os(os),
            _ => return None,
        })
    }
}

/// Takes values off the front; `None` where there is no such value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a>(pub(super) &'a [u8]);

impl<'a> Values<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn numbers_round_trip(n: u64, small: i32) {
            let mut out = Vec::new();
            (n, small).put(&mut out);
            let mut values = Values(&out);
            proptest::prop_assert_eq!(<(u64, i32)>::take(&mut values), Some((n, small)));
            proptest::prop_assert!(values.is_empty());
        }
    }

    #[test]
    fn a_number_is_written_in_one_way_only() {
        for bad in [
            &[0x80][..],
            &[0x80, 0],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(u64::take(&mut Values(bad)), None, "{bad:?}");
        }
    }
}
