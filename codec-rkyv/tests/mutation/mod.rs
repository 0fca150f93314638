//! Bytes that were an archive once. What these tests hold is that nothing but an error comes of them,
//! or a view that can be read from end to end.

use std::fmt::{self, Write};

use proptest::prelude::*;

/// A change to a body; positions are modulo its length.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mutation {
    Flip {
        byte: usize,
        bit: u8,
    },
    Byte {
        at: usize,
        value: u8,
    },
    /// At a multiple of four, where lengths and offsets are.
    Word {
        at: usize,
        value: u32,
    },
    /// What is somewhere else: overlaps and cycles.
    Copy {
        from: usize,
        to: usize,
    },
}

impl Mutation {
    pub(crate) fn apply(self, body: &mut [u8]) {
        let len = body.len();
        match self {
            _ if len < 4 => {}
            Mutation::Flip { byte, bit } => body[byte % len] ^= 1 << (bit % 8),
            Mutation::Byte { at, value } => body[at % len] = value,
            Mutation::Word { at, value } => {
                let at = at % (len / 4) * 4;
                body[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            Mutation::Copy { from, to } => {
                let (from, to) = (from % (len / 4) * 4, to % (len / 4) * 4);
                body.copy_within(from..from + 4, to);
            }
        }
    }
}

pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<usize>;
    let mutation = prop_oneof![
        (at(), any::<u8>()).prop_map(|(byte, bit)| Mutation::Flip { byte, bit }),
        (at(), any::<u8>()).prop_map(|(at, value)| Mutation::Byte { at, value }),
        (at(), words()).prop_map(|(at, value)| Mutation::Word { at, value }),
        (at(), at()).prop_map(|(from, to)| Mutation::Copy { from, to }),
    ];
    prop::collection::vec(mutation, 1..4)
}

/// Lengths and offsets at which something ends, and near ones, which stay inside.
fn words() -> impl Strategy<Value = u32> {
    const EDGES: [u32; 8] =
        [0, 1, u32::MAX, i32::MAX as u32, i32::MIN as u32, 1 << 30, (1 << 30) - 1, 0xd800];
    prop_oneof![
        prop::sample::select(&EDGES[..]),
        (-256_i32..256).prop_map(|offset| offset as u32),
        any::<u32>(),
    ]
}

/// Formats a view, throws the text away, and tells how long it was.
pub(crate) fn debug_len(view: &impl fmt::Debug) -> usize {
    struct Length(usize);

    impl Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }

    let mut length = Length(0);
    write!(length, "{view:?}").expect("counting does not fail");
    length.0
}
