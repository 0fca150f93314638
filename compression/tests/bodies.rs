//! Bodies come back as they were, and nothing that a peer sends becomes larger than it may.
#![cfg(all(feature = "lz4", feature = "zstd"))]

use proptest::collection::vec;
use proptest::prelude::*;
use ringcall_buf::Pool;
use ringcall_compression::{
    Compression, InflateError, PREFIX_BYTES, Threshold, compress, inflate, parse_length,
};

const LIMIT: usize = 4 << 20;

fn always() -> Threshold {
    let mut threshold = Threshold::default();
    (threshold.body_bytes_min, threshold.saves_one_in) = (0, 8);
    threshold
}

/// Text-like: words from a small vocabulary.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![Just("price"), Just("size "), Just("0.125"), Just(", "), Just("ABC")];
    vec(word, 0..3000).prop_map(|words| words.concat().into_bytes())
}

fn algorithm() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::Lz4), Just(Compression::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bodies_come_back(algorithm in algorithm(), body in prop_oneof![text(), vec(any::<u8>(), 0..5000)]) {
        let pool = Pool::new(1 << 20);
        let threshold = Threshold::default();
        match compress(algorithm, &body, &threshold, &pool) {
            None => {}
            Some(small) => {
                prop_assert!(body.len() >= threshold.body_bytes_min);
                prop_assert!(small.len() <= body.len() - body.len() / 8);
                prop_assert_eq!(parse_length(&small), Some(body.len() as u64));
                let back = inflate(algorithm, &small, body.len(), &pool).unwrap();
                prop_assert_eq!(&*back, &body[..]);
                prop_assert!(back.is_aligned_to(16));
                // A byte less is too little.
                let short = inflate(algorithm, &small, body.len() - 1, &pool);
                prop_assert_eq!(short.unwrap_err(), InflateError::TooLarge { limit: body.len() - 1 });
            }
        }
    }

    #[test]
    fn a10_whatever_comes_nothing_grows_beyond_its_length(
        algorithm in algorithm(), bytes in vec(any::<u8>(), 0..300), length in 0u64..100_000,
    ) {
        let pool = Pool::new(0);
        let mut body = length.to_le_bytes().to_vec();
        body.extend(bytes);
        if let Ok(out) = inflate(algorithm, &body, 65_536, &pool) {
            prop_assert_eq!(out.len() as u64, length);
            prop_assert!(length <= 65_536);
        }
        prop_assert_eq!(pool.stats().lent_bytes, 0);
    }

    #[test]
    fn a10_a_damaged_body_is_an_error_or_as_long_as_it_says(
        algorithm in algorithm(), body in text(), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let pool = Pool::new(1 << 20);
        let Some(small) = compress(algorithm, &body, &always(), &pool) else { return Ok(()) };
        let mut damaged = small.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        if let Ok(out) = inflate(algorithm, &damaged, LIMIT, &pool) {
            prop_assert_eq!(Some(out.len() as u64), parse_length(&damaged));
        }
    }
}

/// So many zeros in as few bytes as there is a way to: 8 MiB take 32 KiB as LZ4, and 700 bytes as zstd.
fn zeros(algorithm: Compression, len: usize) -> Vec<u8> {
    let pool = Pool::new(0);
    let small = compress(algorithm, &vec![0; len], &always(), &pool);
    small.expect("zeros are compressed").to_vec()
}

#[test]
fn a10_a_bomb_allocates_nothing() {
    for algorithm in Compression::ALL {
        let mut bomb = zeros(algorithm, 8 << 20);
        assert!(bomb.len() < 40_000, "{algorithm}: {}", bomb.len());
        let pool = Pool::new(1 << 30);
        let inflated = inflate(algorithm, &bomb, LIMIT, &pool);
        assert_eq!(inflated.unwrap_err(), InflateError::TooLarge { limit: LIMIT });
        // The pool would have kept what was allocated.
        assert_eq!(pool.stats().kept_bytes, 0);
        // One that lies is cut off where it said that it ends.
        for said in [0, 1, 1000, LIMIT as u64] {
            bomb[..PREFIX_BYTES].copy_from_slice(&said.to_le_bytes());
            let inflated = inflate(algorithm, &bomb, LIMIT, &pool);
            assert_eq!(inflated.unwrap_err(), InflateError::Corrupt, "{algorithm}, {said}");
            assert!(pool.stats().kept_bytes <= 2 * LIMIT);
        }
    }
}

#[test]
fn a10_what_cannot_become_so_long_is_not_tried() {
    for algorithm in Compression::ALL {
        let pool = Pool::new(1 << 30);
        let mut body = (LIMIT as u64).to_le_bytes().to_vec();
        body.extend([0; 4]);
        let inflated = inflate(algorithm, &body, LIMIT, &pool);
        assert_eq!(inflated.unwrap_err(), InflateError::Corrupt);
        assert_eq!(pool.stats().kept_bytes, 0);
        assert_eq!(inflate(algorithm, &[0; 7], LIMIT, &pool).unwrap_err(), InflateError::Corrupt);
        body[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let inflated = inflate(algorithm, &body, LIMIT, &pool);
        assert_eq!(inflated.unwrap_err(), InflateError::TooLarge { limit: LIMIT });
    }
}

#[test]
fn a10_a_bomb_in_a_bomb_is_opened_once() {
    for algorithm in Compression::ALL {
        let inner = zeros(algorithm, 5 << 20);
        let pool = Pool::new(0);
        let outer = compress(algorithm, &inner, &always(), &pool).expect("it is worth it again");
        let opened = inflate(algorithm, &outer, LIMIT, &pool);
        assert_eq!(&*opened.expect("it is sound"), &inner[..]);
    }
}

#[test]
fn frames_of_zstd_with_huge_windows_use_no_memory_beside_the_body() {
    // A frame header that asks for a window of 2 GiB, and a last block of one byte repeated 10 times.
    let mut body = 10u64.to_le_bytes().to_vec();
    body.extend([0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3]);
    body.extend([(10 << 3) | 0b011, 0, 0, b'x']);
    let pool = Pool::new(0);
    if let Ok(out) = inflate(Compression::Zstd, &body, LIMIT, &pool) {
        assert_eq!(&*out, b"xxxxxxxxxx");
    }
}

#[test]
fn what_is_not_worth_it_is_left_alone() {
    let pool = Pool::new(0);
    let threshold = Threshold::default();
    for algorithm in Compression::ALL {
        assert!(compress(algorithm, &[0; 1023], &threshold, &pool).is_none());
        assert!(compress(algorithm, &[0; 1024], &threshold, &pool).is_some());
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        let noise: Vec<u8> = std::iter::repeat_with(next).take(5000).collect();
        assert!(compress(algorithm, &noise, &threshold, &pool).is_none());
    }
}

#[test]
fn numbers_are_those_of_the_wire() {
    assert_eq!(Compression::from_number(0), None);
    assert_eq!(Compression::from_number(1), Some(Compression::Lz4));
    assert_eq!(Compression::from_number(2), Some(Compression::Zstd));
    assert_eq!(Compression::from_number(3), None);
    assert_eq!(Compression::available_bits(), 0b110);
}

/// The bodies of the page, by algorithm.
fn body_of_the_page(algorithm: Compression) -> Vec<u8> {
    let page = include_str!("../../docs/PROTOCOL.md");
    let start = format!("```body {algorithm}\n");
    let (_, rest) = page.split_once(&start).expect("the page has one");
    let (hex, _) = rest.split_once("```").expect("it ends");
    let byte = |text| u8::from_str_radix(text, 16).expect("a byte");
    hex.split_whitespace().map(byte).collect()
}

#[test]
fn the_bodies_of_the_page_are_read() {
    let pool = Pool::new(0);
    for (algorithm, expected) in
        [(Compression::Lz4, "xxxxxxxxxxy"), (Compression::Zstd, "xxxxxxxxxx")]
    {
        let body = inflate(algorithm, &body_of_the_page(algorithm), LIMIT, &pool);
        assert_eq!(&*body.expect("it is sound"), expected.as_bytes(), "{algorithm}");
    }
}
