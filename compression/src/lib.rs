//! Bodies in fewer bytes, and back.
//!
//! A compressed body is eight bytes of length, little endian, and behind them the data of the algorithm: an
//! LZ4 *block*, or zstd *frames* without a dictionary. The length is that of the body before it was
//! compressed. It is what a peer says, so it is looked at twice: before anything is allocated it must be within
//! the receiver's limit, and whatever comes out must be exactly as long. [`inflate`] writes into memory of
//! that length and nowhere else, so no input makes it use more.
//!
//! Both algorithms are always known by name; which of them are built in is up to the features `lz4` and
//! `zstd`, see [`Compression::is_available`].
//!
//! # Secrets
//!
//! The length of compressed data tells how much of it repeats. Whoever can put text of their choice into a body
//! beside a secret, and sees how long it becomes, can guess the secret piece by piece (CRIME, BREACH), through
//! TLS as well. So never compress messages that hold both; that is why nothing is compressed unless a program
//! asks for it.

#![forbid(unsafe_code)]

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zstd")]
mod zstd;

use std::fmt;

use ringcall_buf::{Chunk, Pool};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// LZ4 blocks: the fastest. Needs the feature `lz4`.
    Lz4,
    /// zstd, level 1: about two thirds of the length of LZ4, for two to four times its work. Needs the feature
    /// `zstd`.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

    /// Its number on the wire. 0 is no compression.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        }
    }

    /// The compression with this number, if it is a known one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Compression> {
        Compression::ALL.into_iter().find(|compression| compression.number() == number)
    }

    /// Whether it is built in.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Compression::Lz4 => cfg!(feature = "lz4"),
            Compression::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// Those that are built in, bit *n* for number *n*: what HELLO says.
    #[must_use]
    pub fn available_bits() -> u8 {
        let available = Compression::ALL.into_iter().filter(|it| it.is_available());
        available.fold(0, |bits, compression| bits | 1 << compression.number())
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

/// How long the length in front of the data is.
pub const PREFIX_BYTES: usize = 8;

/// When compressing is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Threshold {
    /// Shorter bodies are sent as they are; 1024 bytes by default. Below, the answer costs more time than its
    /// bytes on any network that is worth the trouble.
    pub body_bytes_min: usize,
    /// A body is sent compressed only if that saves at least one in so many of its bytes; 8 by default.
    pub saves_one_in: usize,
}

impl Default for Threshold {
    fn default() -> Threshold {
        Threshold { body_bytes_min: 1024, saves_one_in: 8 }
    }
}

impl Threshold {
    /// How long the compressed form of so many bytes may be; `None` if it is not to be tried.
    #[must_use]
    pub fn bytes_max(&self, body: usize) -> Option<usize> {
        let saved = body / self.saves_one_in.max(1);
        (body >= self.body_bytes_min && saved > 0).then(|| body - saved)
    }
}

/// The compressed form of a body, in memory of `pool`; `None` if it is not worth it, or the algorithm is not
/// built in.
#[must_use]
pub fn compress(
    compression: Compression,
    body: &[u8],
    threshold: &Threshold,
    pool: &Pool,
) -> Option<Chunk> {
    let algorithm = algorithm(compression)?;
    let data_max = threshold.bytes_max(body.len())?.checked_sub(PREFIX_BYTES)?;
    let room = algorithm.room(body.len(), data_max);
    let mut out = pool.take(PREFIX_BYTES.checked_add(room)?);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let data = algorithm.compress(body, out.spare()).filter(|data| *data <= data_max)?;
    out.fill(data);
    Some(out.freeze())
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InflateError {
    /// The algorithm is not built in.
    Unavailable(Compression),
    /// It says that it is longer than it may be; nothing was allocated.
    TooLarge {
        /// What it may be, in bytes.
        limit: usize,
    },
    /// It is not the data of its algorithm, or not as long as it says.
    Corrupt,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InflateError::Unavailable(compression) => write!(f, "{compression} is not built in"),
            InflateError::TooLarge { limit } => {
                write!(f, "the compressed body is larger than {limit} bytes")
            }
            InflateError::Corrupt => f.write_str("the compressed body is damaged"),
        }
    }
}

impl std::error::Error for InflateError {}

/// How long a compressed body says that it was; `None` if it is too short to say.
#[must_use]
pub fn parse_length(body: &[u8]) -> Option<u64> {
    body.first_chunk::<PREFIX_BYTES>().map(|length| u64::from_le_bytes(*length))
}

/// The body that a compressed one was made of, at a multiple of 64, in memory of `pool`.
///
/// # Errors
/// [`InflateError`]; `limit` is how long the result may be at most.
pub fn inflate(
    compression: Compression,
    body: &[u8],
    limit: usize,
    pool: &Pool,
) -> Result<Chunk, InflateError> {
    let algorithm = algorithm(compression).ok_or(InflateError::Unavailable(compression))?;
    let (length, data) = body.split_first_chunk::<PREFIX_BYTES>().ok_or(InflateError::Corrupt)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|it| *it <= limit);
    let length = length.ok_or(InflateError::TooLarge { limit })?;
    if length > algorithm.bytes_out_max(data.len()) {
        // No data of this algorithm becomes so long: not worth the memory.
        return Err(InflateError::Corrupt);
    }
    let mut out = pool.take(length);
    if algorithm.inflate(data, out.spare()) != Some(length) {
        return Err(InflateError::Corrupt);
    }
    out.fill(length);
    Ok(out.freeze())
}

/// One that is built in.
trait Algorithm {
    /// How much room compressing a body wants, of which so much at most will do.
    fn room(&self, body: usize, data_max: usize) -> usize;

    /// How much of `out` is used; `None` if there was not enough.
    fn compress(&self, body: &[u8], out: &mut [u8]) -> Option<usize>;

    /// How much of `out` is used; `None` if it is not its data, or there was not enough.
    fn inflate(&self, data: &[u8], out: &mut [u8]) -> Option<usize>;

    /// How much can come of so much data at most.
    fn bytes_out_max(&self, data: usize) -> usize;
}

fn algorithm(compression: Compression) -> Option<&'static dyn Algorithm> {
    match compression {
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Some(&lz4::Lz4),
        #[cfg(feature = "zstd")]
        Compression::Zstd => Some(&zstd::Zstd),
        #[allow(unreachable_patterns, reason = "depends on the features")]
        _ => None,
    }
}
