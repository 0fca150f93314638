//! Bytes of which some may be hidden: only how many there were is known.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;

use super::values::{Value, Values};
use super::walker::Walker;

/// More bytes than this are in no piece of a connection: the largest message, and what lies around it.
const BYTES_MAX: usize = (64 << 20) + (64 << 10);

/// Bytes in order, the hidden ones among them as zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pieces<'a> {
    len: usize,
    /// In turn: how many are kept, and which, and how many are hidden, until all are there. Only the first of
    /// these numbers may be zero.
    encoded: &'a [u8],
}

/// A part of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As they were.
    Kept(&'a [u8]),
    /// So many of which nothing is known.
    Hidden(usize),
}

impl<'a> Pieces<'a> {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts, in order; none is empty.
    pub fn iter(&self) -> impl Iterator<Item = Piece<'a>> + use<'a> {
        let (mut values, mut left, mut is_kept) = (Values(self.encoded), self.len, false);
        core::iter::from_fn(move || {
            while left > 0 {
                is_kept = !is_kept;
                let n = usize::take(&mut values).filter(|n| *n <= left)?;
                left = left.saturating_sub(n);
                let piece = match is_kept {
                    true => Piece::Kept(values.bytes(n)?),
                    false => Piece::Hidden(n),
                };
                if n > 0 {
                    return Some(piece);
                }
            }
            None
        })
    }

    /// All of them, zeros in place of hidden ones.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        for piece in self.iter() {
            match piece {
                Piece::Kept(kept) => bytes.extend_from_slice(kept),
                Piece::Hidden(n) => bytes.resize(bytes.len().saturating_add(n), 0),
            }
        }
        bytes
    }

    /// These bytes, all of them as they are.
    pub(crate) fn kept(bytes: &[u8], scratch: &'a mut Vec<u8>) -> Pieces<'a> {
        scratch.clear();
        if !bytes.is_empty() {
            put_run(scratch, bytes, true);
        }
        Pieces { len: bytes.len(), encoded: scratch }
    }

    /// So many bytes, all of them hidden.
    pub(crate) fn hidden(len: usize, scratch: &'a mut Vec<u8>) -> Pieces<'a> {
        scratch.clear();
        if len > 0 {
            0_usize.put(scratch);
            len.put(scratch);
        }
        Pieces { len, encoded: scratch }
    }

    /// These bytes, with those hidden that are the application's.
    pub(super) fn walked(
        bytes: &[u8],
        walker: &mut Walker,
        scratch: &'a mut Vec<u8>,
    ) -> Pieces<'a> {
        scratch.clear();
        // What is of one sort, and not appended yet: its beginning, its end.
        let (mut from, mut to, mut is_kept) = (0, 0, true);
        while let Some(rest) = bytes.get(to..).filter(|rest| !rest.is_empty()) {
            let (n, keep) = walker.next(rest);
            if keep != is_kept {
                put_run(scratch, bytes.get(from..to).unwrap_or_default(), is_kept);
                (from, is_kept) = (to, keep);
            }
            to = to.saturating_add(n);
        }
        if !bytes.is_empty() {
            put_run(scratch, bytes.get(from..to).unwrap_or_default(), is_kept);
        }
        Pieces { len: bytes.len(), encoded: scratch }
    }
}

impl<'a> Value<'a> for Pieces<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        self.len.put(out);
        out.extend_from_slice(self.encoded);
    }

    fn take(values: &mut Values<'a>) -> Option<Pieces<'a>> {
        let len = usize::take(values).filter(|len| *len <= BYTES_MAX)?;
        let begin = values.0;
        let (mut left, mut is_kept) = (len, false);
        while left > 0 {
            is_kept = !is_kept;
            let n = usize::take(values).filter(|n| *n <= left)?;
            if n == 0 && (!is_kept || left < len) {
                return None;
            }
            left = left.checked_sub(n)?;
            if is_kept {
                values.bytes(n)?;
            }
        }
        let encoded = begin.get(..begin.len().checked_sub(values.0.len())?)?;
        Some(Pieces { len, encoded })
    }
}

fn put_run(out: &mut Vec<u8>, bytes: &[u8], is_kept: bool) {
    bytes.len().put(out);
    if is_kept {
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::frame::{
        Extension, ExtensionWriter, FLAG_MORE, Head, Kind, PREFACE, RequestHeader, tag,
    };
    use crate::{Codec, MessageId, Side};

    /// A preface, and a request whose body and whose values are all `0xaa`.
    fn stream() -> Vec<u8> {
        let header = RequestHeader {
            method: 1,
            in_signature: 2,
            out_signature: 3,
            deadline_us: 4,
            codec: Codec::RAW,
            compression: 0,
            priority: 0,
            attempt: 0,
        };
        let mut extensions = ExtensionWriter::new();
        let total = 100_u64.to_le_bytes();
        let values = [
            (tag::TOTAL_LEN, &total[..]),
            (tag::METADATA, b"\x03key\xaa\xaa\xaa\xaa\xaa"),
            (tag::CREDENTIALS, b"\xaa\xaa\xaa"),
            (77, b"\xaa"),
        ];
        for (tag, value) in values {
            assert!(extensions.push(Extension { tag, critical: false, value }));
        }
        let header = [&header.encode()[..], &extensions.finish()].concat();
        let head = Head {
            length: (header.len() + 21) as u32,
            kind: Kind::Request as u8,
            flags: FLAG_MORE,
            header_len: header.len() as u16,
            id: MessageId::new(Side::Client, 0, 0),
        };
        [&PREFACE[..], &head.encode(), &header, &[0xaa; 21], &[0; 11]].concat()
    }

    fn walked(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut walker, mut all) = (Walker::new(true), Vec::new());
        for chunk in chunks {
            let (mut scratch, mut out) = (Vec::new(), Vec::new());
            Pieces::walked(chunk, &mut walker, &mut scratch).put(&mut out);
            let mut values = Values(&out);
            let pieces = Pieces::take(&mut values).unwrap();
            assert!(values.is_empty());
            assert_eq!(pieces.len(), chunk.len());
            all.extend(pieces.to_vec());
        }
        all
    }

    #[test]
    fn what_is_the_applications_is_hidden_and_nothing_else() {
        let stream = [&stream()[..], &stream()[8..]].concat();
        let hidden: Vec<u8> =
            stream.iter().map(|byte| if *byte == 0xaa { 0 } else { *byte }).collect();
        assert_eq!(walked(&[&stream]), hidden);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(walked(&bytes), hidden);
        for cut in 0..stream.len() {
            let (front, back) = stream.split_at(cut);
            assert_eq!(walked(&[front, back]), hidden, "cut at {cut}");
        }
    }

    #[test]
    fn everything_behind_strange_bytes_is_hidden() {
        let bytes = b"GET /secret HTTP/1.1".to_vec();
        assert_eq!(walked(&[&bytes]), [b"GET /sec", &vec![0; 12][..]].concat());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked_to_their_end(bytes: Vec<u8>) {
            let bytes = [&PREFACE[..], &bytes].concat();
            let hidden = walked(&[&bytes]);
            proptest::prop_assert!(hidden.iter().zip(&bytes).all(|(h, b)| h == b || *h == 0));
            proptest::prop_assert_eq!(hidden.len(), bytes.len());
        }

        #[test]
        fn any_bytes_are_pieces_or_none(bytes: Vec<u8>) {
            if let Some(pieces) = Pieces::take(&mut Values(&bytes)) {
                let sum: usize = pieces.iter().map(|piece| match piece {
                    Piece::Kept(kept) => kept.len(),
                    Piece::Hidden(n) => n,
                }).sum();
                proptest::prop_assert_eq!(sum, pieces.len());
            }
        }
    }
}
