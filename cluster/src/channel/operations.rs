//! Names for what calls are to do, the same in all of their attempts, and for attempts that are tied.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringcall_core::frame::{ExtensionWriter, tag};

/// Makes names that are nobody else's, also not those of a channel with the same seed: whoever made a call
/// with another one's key would get its answer.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// What makes secrets of a number.
    random: [RandomState; 2],
    made: AtomicU64,
}

impl Operations {
    /// The next one, as a TLV.
    #[cold]
    pub(super) fn next(&self) -> Arc<[u8]> {
        tlv(tag::IDEMPOTENCY_KEY, &self.name())
    }

    /// A name for an attempt, and the same as a TLV.
    #[cold]
    pub(super) fn next_tie(&self) -> ([u8; 16], Arc<[u8]>) {
        let name = self.name();
        (name, tlv(tag::TIED, &name))
    }

    fn name(&self) -> [u8; 16] {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let [first, second] = [0, 1].map(|half: usize| self.random[half].hash_one(number));
        (u128::from(first) << 64 | u128::from(second)).to_le_bytes()
    }
}

fn tlv(tag: u16, name: &[u8]) -> Arc<[u8]> {
    let mut writer = ExtensionWriter::new();
    // A header holds more than 16 bytes.
    let _fits = writer.push_parts(tag, [name]);
    writer.finish().into()
}
