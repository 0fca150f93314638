//! Integers of 128 bits in MessagePack, which has none with more than 64.
//!
//! Those that fit into 64 bits are ordinary integers, so that a type may be made wider or narrower. The others
//! are bytes. Sixteen would not say whether they have a sign, and a reader with the other kind of integer
//! would take one number for another; so there are seventeen.

const LEN: usize = 17;

/// An integer as its bytes say it: big endian, two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wide {
    Unsigned(u128),
    Negative(i128),
}

impl Wide {
    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let (sign, low) = match self {
            Wide::Unsigned(value) => (0, value.to_be_bytes()),
            Wide::Negative(value) => (0xff, value.to_be_bytes()),
        };
        let mut bytes = [sign; LEN];
        bytes[1..].copy_from_slice(&low);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Wide> {
        let (sign, low) = bytes.split_first()?;
        let low = low.try_into().ok()?;
        match (*sign, i128::from_be_bytes(low)) {
            (0, _) => Some(Wide::Unsigned(u128::from_be_bytes(low))),
            (0xff, value @ ..0) => Some(Wide::Negative(value)),
            _ => None,
        }
    }
}
