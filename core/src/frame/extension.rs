//! TLVs: what may follow the fixed part of a header.
//!
//! A TLV is a tag (`u16`, its top bit: critical), a length (`u16`), a value, and zeros up to the next
//! multiple of four. Tag 0 with length 0, four zero bytes, is padding.

use core::fmt;

/// The tags that v1 reserves, without the critical bit.
pub mod tag {
    /// `u64`: the length of the whole body, when DATA frames follow.
    pub const TOTAL_LEN: u16 = 1;
    /// `u64`: how much of the end of the body is an attachment beside the message.
    pub const ATTACHMENT_LEN: u16 = 2;
    /// `u64`: credit for the stream of items that answers this call.
    pub const REPLY_CREDIT: u16 = 3;
    /// W3C trace context, binary.
    pub const TRACE_CONTEXT: u16 = 4;
    /// W3C baggage.
    pub const BAGGAGE: u16 = 5;
    /// The group that the caller asked for.
    pub const ASKED_GROUP: u16 = 6;
    /// The group that was chosen, with the registry's version.
    pub const REAL_GROUP: u16 = 7;
    /// The version of the service.
    pub const SERVICE_VERSION: u16 = 8;
    /// Who calls.
    pub const CALLER: u16 = 9;
    /// Proof of who calls.
    pub const CREDENTIALS: u16 = 10;
    /// Names an operation across its attempts.
    pub const IDEMPOTENCY_KEY: u16 = 11;
    /// How many retries are left in the caller's budget.
    pub const RETRY_TOKENS: u16 = 12;
    /// `u32`: CRC32C of the body.
    pub const CRC32C: u16 = 13;
    /// One entry of metadata: key length `u8`, key, value.
    pub const METADATA: u16 = 14;
    /// Text for people: why a connection or a call ended.
    pub const REASON: u16 = 15;
    /// Who the sender of a HELLO says it is, see [`Identity`](crate::Identity).
    pub const IDENTITY: u16 = 16;
    /// 16 bytes: names an attempt whose caller wants to hear when it begins, see
    /// [`CALLS_BEGUN`](crate::CALLS_BEGUN).
    pub const TIED: u16 = 17;
    /// All of them.
    pub const ALL: [u16; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
    /// Set in a tag on the wire: whoever does not know it must not go on.
    pub const CRITICAL: u16 = 0x8000;
}

/// One TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// See [`tag`]; without the critical bit.
    pub tag: u16,
    /// Whether a receiver that does not know the tag must refuse.
    pub critical: bool,
    /// What the tag says about the value's form.
    pub value: &'a [u8],
}

impl Extension<'_> {
    /// The value as a number, if it has eight bytes.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        self.value.try_into().ok().map(u64::from_le_bytes)
    }
}

/// The TLVs behind the fixed part of a header, one by one.
#[derive(Clone, Copy)]
pub struct Extensions<'a>(&'a [u8]);

impl fmt::Debug for Extensions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({} bytes)", self.0.len())
    }
}

/// A TLV is cut off, or its padding is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadExtension;

impl fmt::Display for BadExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header extension is cut off or not padded with zeros")
    }
}

impl core::error::Error for BadExtension {}

impl<'a> Extensions<'a> {
    /// Reads what follows the fixed part of a header.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Extensions<'a> {
        Extensions(bytes)
    }

    fn parse_next(&mut self) -> Option<Option<Extension<'a>>> {
        loop {
            if self.0.is_empty() {
                return Some(None);
            }
            let ([t0, t1, l0, l1], rest) = self.0.split_first_chunk::<4>()?;
            let wire_tag = u16::from_le_bytes([*t0, *t1]);
            let len = usize::from(u16::from_le_bytes([*l0, *l1]));
            let (value, rest) = rest.split_at_checked(len)?;
            let (padding, rest) = rest.split_at_checked(len.wrapping_neg() & 3)?;
            if padding.iter().any(|&byte| byte != 0) {
                return None;
            }
            self.0 = rest;
            let tag = wire_tag & !tag::CRITICAL;
            if tag == 0 {
                // Padding has no value and cannot be critical.
                if wire_tag != 0 || len != 0 {
                    return None;
                }
                continue;
            }
            return Some(Some(Extension { tag, critical: wire_tag != tag, value }));
        }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Result<Extension<'a>, BadExtension>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.parse_next() {
            Some(found) => found.map(Ok),
            None => {
                self.0 = &[];
                Some(Err(BadExtension))
            }
        }
    }
}

/// Room for the first few TLVs.
const FIRST_BYTES: usize = 128;

/// Collects TLVs and pads them to a multiple of 16.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionWriter(alloc::vec::Vec<u8>);

impl ExtensionWriter {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> ExtensionWriter {
        ExtensionWriter(alloc::vec::Vec::new())
    }

    /// Appends one; `false` and no change if its value is longer than 65 535 bytes.
    #[must_use]
    pub fn push(&mut self, extension: Extension<'_>) -> bool {
        let critical = if extension.critical { tag::CRITICAL } else { 0 };
        self.push_parts(extension.tag | critical, core::iter::once(extension.value))
    }

    /// Appends one whose value is put together from parts; the tag may have the critical bit. `false` and no
    /// change if the value is longer than 65 535 bytes.
    #[must_use]
    pub fn push_parts<'a>(&mut self, tag: u16, parts: impl IntoIterator<Item = &'a [u8]>) -> bool {
        if self.0.capacity() == 0 {
            // One allocation is enough for most calls.
            self.0.reserve(FIRST_BYTES);
        }
        let begin = self.0.len();
        self.0.extend_from_slice(&tag.to_le_bytes());
        self.0.extend_from_slice(&[0; 2]);
        let value = self.0.len();
        parts.into_iter().for_each(|part| self.0.extend_from_slice(part));
        let Ok(len) = u16::try_from(self.0.len().saturating_sub(value)) else {
            self.0.truncate(begin);
            return false;
        };
        if let Some(place) = self.0.get_mut(value.saturating_sub(2)..value) {
            place.copy_from_slice(&len.to_le_bytes());
        }
        self.pad_to(4);
        true
    }

    /// Appends TLVs that are written already, as [`finish`](Self::finish) or a header has them.
    pub fn append(&mut self, written: &[u8]) {
        debug_assert!(written.len().is_multiple_of(4));
        self.0.extend_from_slice(written);
        self.pad_to(4);
    }

    /// Whether nothing was appended.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was appended so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to put behind the fixed part.
    #[inline]
    #[must_use]
    pub fn finish(mut self) -> alloc::vec::Vec<u8> {
        if !self.0.is_empty() {
            self.pad_to(super::ALIGN);
        }
        self.0
    }

    fn pad_to(&mut self, align: usize) {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    proptest::proptest! {
        #[test]
        fn extensions_round_trip(items: Vec<(u16, bool, Vec<u8>)>) {
            let items: Vec<_> = items
                .into_iter()
                .map(|(tag, critical, value)| (tag & 0x7fff | 1, critical, value))
                .collect();
            let mut writer = ExtensionWriter::new();
            for (tag, critical, value) in &items {
                assert!(writer.push(Extension { tag: *tag, critical: *critical, value }));
            }
            let bytes = writer.finish();
            assert_eq!(bytes.len() % 16, 0);
            let read: Vec<_> = Extensions::new(&bytes)
                .map(|found| found.map(|e| (e.tag, e.critical, e.value.to_vec())).unwrap())
                .collect();
            assert_eq!(read, items);
        }

        #[test]
        fn a07_any_bytes_end(bytes: Vec<u8>) {
            assert!(Extensions::new(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }

    #[test]
    fn cut_off_values_and_dirty_padding_are_errors() {
        for bad in [
            &[1, 0, 4, 0][..],
            &[1, 0, 1, 0, 7],
            &[1, 0, 1, 0, 7, 0, 0, 9],
            &[0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0x80, 0, 0],
            &[0],
        ] {
            assert_eq!(Extensions::new(bad).last(), Some(Err(BadExtension)), "{bad:?}");
        }
    }
}
