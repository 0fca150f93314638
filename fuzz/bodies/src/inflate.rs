//! Compressed bodies that somebody has tampered with.

use ringcall_buf::Pool;
use ringcall_compression::{Compression, Threshold, compress, parse_length};

/// No larger than this may what comes out be.
const LIMIT: usize = 1 << 16;

/// Takes the bytes as a compressed body, or compresses them and damages that.
///
/// # Panics
/// When a sound body does not come back, or one is longer than it says or than it may be.
pub fn inflate(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let algorithm = Compression::ALL[usize::from(which & 1)];
    let pool = Pool::new(0);
    if which & 0x80 == 0 {
        return open(algorithm, data, &pool);
    }
    let Some((&damage, body)) = data.split_first() else { return };
    // Repeated, so that there is something to gain.
    let body = body.repeat(usize::from(which >> 1 & 7) + 1);
    let mut threshold = Threshold::default();
    threshold.body_bytes_min = 0;
    let Some(small) = compress(algorithm, &body, &threshold, &pool) else { return };
    let back = ringcall_compression::inflate(algorithm, &small, LIMIT, &pool);
    assert!(back.is_ok_and(|back| *back == *body), "a sound body is read as what was written");
    let mut damaged = small.to_vec();
    let at = usize::from(damage) % damaged.len();
    damaged[at] ^= which | 1;
    open(algorithm, &damaged, &pool);
    damaged.truncate(at);
    open(algorithm, &damaged, &pool);
}

fn open(algorithm: Compression, body: &[u8], pool: &Pool) {
    let held = pool.stats().lent_bytes;
    if let Ok(out) = ringcall_compression::inflate(algorithm, body, LIMIT, pool) {
        assert_eq!(Some(out.len() as u64), parse_length(body), "it is as long as it says");
        assert!(out.len() <= LIMIT && out.is_aligned_to(16));
    }
    assert_eq!(pool.stats().lent_bytes, held, "nothing is held");
}
