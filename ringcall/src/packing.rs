//! Compressed bodies: when they are made, and what becomes of those that arrive.

use std::sync::atomic::{AtomicU64, Ordering};

use ringcall_buf::Pool;
use ringcall_compression::{Compression, InflateError, Threshold};
use ringcall_core::{Answer, Arrived, Cause, Chunk, Encoded, Failure, SharedChunk, Status};

/// What a shard does about compression. Nothing is compressed unless somebody asks for it: callers with
/// [`CallOptions::compression`](crate::CallOptions::compression), servers with
/// [`replies`](CompressionConfig::replies).
///
/// Never let messages be compressed that hold secrets beside text of somebody else's choice: their length tells
/// the one to whoever chooses the other, through TLS as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Whether bodies that arrive may be compressed, with whatever is built in by the features `lz4` and
    /// `zstd`. Yes by default.
    pub accept: bool,
    /// How replies are compressed, errors and items of replies included, for callers that read that. Not at
    /// all by default.
    pub replies: Option<Compression>,
    /// When compressing replies is worth it.
    pub threshold: Threshold,
}

impl Default for CompressionConfig {
    fn default() -> CompressionConfig {
        CompressionConfig { accept: true, replies: None, threshold: Threshold::default() }
    }
}

/// What compression came to in this process so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressionCounts {
    /// Bodies that were sent compressed.
    pub packed: u64,
    /// How long they were.
    pub packed_from_bytes: u64,
    /// What was sent of them.
    pub packed_to_bytes: u64,
    /// Bodies that arrived compressed and were inflated.
    pub inflated: u64,
    /// What arrived of them.
    pub inflated_from_bytes: u64,
    /// How long they became.
    pub inflated_to_bytes: u64,
    /// Bodies that arrived and were damaged, or would have become larger than they may.
    pub refused: u64,
    /// Requests that were refused because the shard held as many inflated bodies as it may.
    pub shed: u64,
}

struct Counts {
    packed: AtomicU64,
    packed_from_bytes: AtomicU64,
    packed_to_bytes: AtomicU64,
    inflated: AtomicU64,
    inflated_from_bytes: AtomicU64,
    inflated_to_bytes: AtomicU64,
    refused: AtomicU64,
    shed: AtomicU64,
}

static COUNTS: Counts = Counts {
    packed: AtomicU64::new(0),
    packed_from_bytes: AtomicU64::new(0),
    packed_to_bytes: AtomicU64::new(0),
    inflated: AtomicU64::new(0),
    inflated_from_bytes: AtomicU64::new(0),
    inflated_to_bytes: AtomicU64::new(0),
    refused: AtomicU64::new(0),
    shed: AtomicU64::new(0),
};

/// What compression came to in this process so far.
#[must_use]
pub fn compression_counts() -> CompressionCounts {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    CompressionCounts {
        packed: read(&COUNTS.packed),
        packed_from_bytes: read(&COUNTS.packed_from_bytes),
        packed_to_bytes: read(&COUNTS.packed_to_bytes),
        inflated: read(&COUNTS.inflated),
        inflated_from_bytes: read(&COUNTS.inflated_from_bytes),
        inflated_to_bytes: read(&COUNTS.inflated_to_bytes),
        refused: read(&COUNTS.refused),
        shed: read(&COUNTS.shed),
    }
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// How many bytes a thread keeps for the next body.
const KEPT_BYTES: usize = 1 << 20;
/// And a shard, for requests: one of the largest that there are by default. New pages for each would take as long as to
/// inflate it does.
const KEPT_FOR_REQUESTS_BYTES: usize = 4 << 20;

thread_local! {
    /// Where compressed bodies are made, and bodies are inflated that no shard holds.
    static POOL: Pool = Pool::new(KEPT_BYTES);
}

/// The number of the compression that somebody wishes for; 0 of none.
pub(crate) fn wish(compression: Option<Compression>) -> u8 {
    compression.map_or(0, Compression::number)
}

/// Compresses what was encoded, if that is wished for, the other side reads it, and it is worth it. Gives the
/// number of the compression that it has then.
#[cold]
pub(crate) fn pack(
    encoded: Encoded,
    wish: u8,
    accepted: u8,
    threshold: &Threshold,
) -> (Encoded, u8) {
    let is_accepted = accepted.checked_shr(u32::from(wish)).is_some_and(|bits| bits & 1 == 1);
    let Some(compression) = Compression::from_number(wish).filter(|_| is_accepted) else {
        return (encoded, 0);
    };
    let packed = POOL.with(|pool| {
        // What is beside a message is large and has its own form.
        if encoded.is_beside {
            return None;
        }
        let joined;
        let body = match encoded.slices()? {
            [body, [], [], []] | [[], [], [], body] => body,
            // In pieces, which a block has to be made of as a whole.
            pieces => {
                threshold.bytes_max(encoded.len())?;
                let mut whole = pool.take(encoded.len());
                pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                joined = whole.freeze();
                &*joined
            }
        };
        ringcall_compression::compress(compression, body, threshold, pool).map(|it| it.share())
    });
    let Some(packed) = packed else { return (encoded, 0) };
    count(&COUNTS.packed, 1);
    count(&COUNTS.packed_from_bytes, encoded.len());
    count(&COUNTS.packed_to_bytes, packed.len());
    // What is compressed cannot be said in another codec any more.
    let encoded =
        Encoded { body: packed, within: None, attached: None, transcode: None, ..encoded };
    (encoded, compression.number())
}

/// A body that can be inflated where it is held.
pub(crate) trait Inflate: Sized + AsRef<[u8]> {
    fn inflate(self, compression: u8, limit: usize) -> Result<Self, Failure>;
}

impl Inflate for Chunk {
    fn inflate(self, compression: u8, limit: usize) -> Result<Chunk, Failure> {
        if compression == 0 {
            return Ok(self);
        }
        POOL.with(|pool| inflate(compression, &self, limit, pool))
            .map_err(|_| Failure::unknown(Cause::BadReply))
    }
}

impl Inflate for SharedChunk {
    fn inflate(self, compression: u8, limit: usize) -> Result<SharedChunk, Failure> {
        if compression == 0 {
            return Ok(self);
        }
        POOL.with(|pool| inflate(compression, &self, limit, pool).map(|body| body.share()))
            .map_err(|_| Failure::unknown(Cause::BadReply))
    }
}

/// The answer with its body as it was before it was compressed.
#[inline]
pub(crate) fn inflate_answer<B: Inflate>(
    answer: Result<Answer<B>, Failure>,
    limit: usize,
) -> Result<Answer<B>, Failure> {
    match answer {
        Ok(mut answer) if answer.header.compression != 0 => {
            answer.body = answer.body.inflate(answer.header.compression, limit)?;
            answer.header.compression = 0;
            Ok(answer)
        }
        other => other,
    }
}

/// What a shard inflates requests into. What they become is charged to nobody's credit, so it has a budget of
/// its own: of bytes that are held, by handlers or whoever keeps a view.
pub(crate) struct Inflated {
    pool: Pool,
    budget: usize,
}

impl Inflated {
    pub(crate) fn new(budget: usize) -> Inflated {
        Inflated { pool: Pool::new(KEPT_FOR_REQUESTS_BYTES.min(budget)), budget }
    }

    /// The body of a request, or the status that refuses it.
    #[cold]
    pub(crate) fn request(
        &self,
        compression: u8,
        body: &Chunk,
        limit: usize,
    ) -> Result<Chunk, Status> {
        let length = ringcall_compression::parse_length(body).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let held = self.pool.stats().lent_bytes;
        if length <= limit && held > 0 && held + Pool::cost(length) > self.budget {
            count(&COUNTS.shed, 1);
            return Err(Status::OVERLOADED);
        }
        inflate(compression, body, limit, &self.pool).map_err(|error| match error {
            InflateError::Unavailable(_) => Status::UNSUPPORTED,
            _ => Status::BAD_BODY,
        })
    }

    /// The body of an item, if it is sound.
    #[cold]
    pub(crate) fn item(&self, compression: u8, body: &Chunk, limit: usize) -> Option<Chunk> {
        inflate(compression, body, limit, &self.pool).ok()
    }
}

fn inflate(number: u8, body: &[u8], limit: usize, pool: &Pool) -> Result<Chunk, InflateError> {
    // Core has refused what was not accepted.
    let compression = Compression::from_number(number).ok_or(InflateError::Corrupt)?;
    match ringcall_compression::inflate(compression, body, limit, pool) {
        Ok(inflated) => {
            count(&COUNTS.inflated, 1);
            count(&COUNTS.inflated_from_bytes, body.len());
            count(&COUNTS.inflated_to_bytes, inflated.len());
            Ok(inflated)
        }
        Err(error) => {
            let before = COUNTS.refused.fetch_add(1, Ordering::Relaxed);
            if (before + 1).is_power_of_two() {
                let claimed = ringcall_compression::parse_length(body).unwrap_or(0);
                log::warn!(
                    "{} compressed bodies were refused so far; the last one, {} bytes of {compression} that \
                     say they were {claimed}: {error}",
                    before + 1,
                    body.len()
                );
            }
            Err(error)
        }
    }
}

/// What arrived, an item with its body as it was before it was compressed.
#[inline]
pub(crate) fn inflate_arrived<B: Inflate>(
    arrived: Arrived<B>,
    limit: usize,
) -> Result<Arrived<B>, Failure> {
    match arrived {
        Arrived::Item { mut encoding, body, attached } if encoding.compression != 0 => {
            let body = body.inflate(encoding.compression, limit)?;
            encoding.compression = 0;
            Ok(Arrived::Item { encoding, body, attached })
        }
        Arrived::End(end) => Ok(Arrived::End(inflate_answer(end, limit))),
        other => Ok(other),
    }
}
