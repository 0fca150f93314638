//! Bodies of text, compressed and inflated.

use ringcall_buf::{Chunk, Pool};
use ringcall_compression::{Compression, Threshold, compress, inflate};

/// A body of 64 KiB that looks like text, and its compressed form.
#[derive(Debug)]
pub struct Press {
    algorithm: Compression,
    pool: Pool,
    text: Vec<u8>,
    packed: Chunk,
}

const BYTES: usize = 64 << 10;

const WORDS: [&str; 16] = [
    "price", "quantity", "of", "the", "order", "was", "changed", "at", "venue", "by", "its",
    "owner", "before", "close", "and", "again",
];

/// Words in no order, with numbers between them.
fn text() -> Vec<u8> {
    let mut text = String::new();
    let mut state = 1u64;
    while text.len() < BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = WORDS[(state >> 60) as usize];
        match (state >> 56) & 7 {
            0 => text.push_str(&format!("{word} {} ", (state >> 40) & 0xffff)),
            _ => text.push_str(&format!("{word} ")),
        }
    }
    text.truncate(BYTES);
    text.into_bytes()
}

impl Press {
    /// One that has worked once.
    ///
    /// # Panics
    /// When the algorithm is not built in.
    #[must_use]
    pub fn new(algorithm: Compression) -> Press {
        let (pool, text) = (Pool::new(1 << 20), text());
        let packed = compress(algorithm, &text, &Threshold::default(), &pool);
        Press { algorithm, pool, text, packed: packed.expect("text becomes shorter") }
    }

    /// Compresses the text; returns how long it is then.
    #[must_use]
    pub fn compress(&self) -> usize {
        let packed = compress(self.algorithm, &self.text, &Threshold::default(), &self.pool);
        packed.map_or(0, |packed| packed.len())
    }

    /// Inflates it again; returns how long it is then.
    #[must_use]
    pub fn inflate(&self) -> usize {
        inflate(self.algorithm, &self.packed, BYTES, &self.pool).map_or(0, |text| text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_shorter_and_comes_back() {
        for algorithm in Compression::ALL {
            let press = Press::new(algorithm);
            assert!((1..BYTES / 2).contains(&press.compress()), "{}", press.compress());
            assert_eq!(press.inflate(), BYTES);
        }
    }
}
