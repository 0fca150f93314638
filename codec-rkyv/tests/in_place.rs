//! Large fields of `Bytes` are not copied into a message, and make the same message as if they were.
#![cfg(feature = "bytes")]

use bytes::Bytes;
use proptest::prelude::*;
use ringcall_buf::{Arena, Full, Pool, Segment, SharedPool, Writer};
use ringcall_codec_rkyv::{Message, Typed, View};
use ringcall_core::{Codec, EncodeError, Encoded, Payload, REFERENCE_BYTES_MIN};
use ringcall_macros::message;

/// What the macro asks for.
mod ringcall {
    pub(crate) mod __private {
        pub(crate) use ringcall_codec_rkyv as codec;
    }
}

#[message(crate = ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    name: String,
    large: Bytes,
    small: bytes::Bytes,
    note: Option<String>,
}

/// As a field in a list, and of a type that is only called like that.
#[message(crate = ringcall)]
#[derive(Clone, Debug, PartialEq)]
enum Album {
    Empty,
    Pictures { pictures: Vec<Picture>, cover: Bytes },
    Other(other::Bytes),
}

mod other {
    #[super::message(crate = super::ringcall)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Bytes {
        pub(super) bytes: Vec<u8>,
    }
}

/// A parameter may be called like that.
#[message(crate = ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Framed<Bytes> {
    bytes: Bytes,
}

const LIMIT: usize = 8 << 20;

/// Written in one part.
fn copied<M: Message>(message: &M) -> Vec<u8> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(LIMIT);
    message.encode(&mut out).unwrap();
    pool.finish(out).0.to_vec()
}

/// Written in parts, as frames are. And what was not copied.
fn in_parts<M: Message>(message: &M) -> (Vec<u8>, Option<Segment>) {
    let pool = Pool::new(0);
    let mut arena = Arena::new(&pool, 4096);
    message.encode(arena.begin(0, LIMIT)).unwrap();
    assert_eq!(arena.frame().message_len(), copied(message).len());
    let written = arena.finish();
    let Some((at, within)) = arena.take_within() else { return (written.to_vec(), None) };
    let whole = [&written[..at], within.as_slice().unwrap(), &written[at..]].concat();
    (whole, Some(within))
}

fn picture(name: usize, large: usize, small: usize) -> Picture {
    let bytes = |len: usize| (0..len).map(|index| (index * 7) as u8).collect::<Bytes>();
    let note = (name % 2 == 1).then(|| "of somebody".into());
    Picture { name: "n".repeat(name), large: bytes(large), small: bytes(small), note }
}

#[test]
fn from_16_kib_on_they_are_sent_from_where_they_are() {
    for len in [REFERENCE_BYTES_MIN, 1 << 20] {
        let picture = picture(5, len, 100);
        let (_, within) = in_parts(&picture);
        assert_eq!(within.unwrap().as_slice().unwrap().as_ptr(), picture.large.as_ptr());
    }
    assert!(in_parts(&picture(5, REFERENCE_BYTES_MIN - 1, 100)).1.is_none());
    // One of a message; the others are copied.
    let two = picture(0, 20_000, 30_000);
    let (whole, within) = in_parts(&two);
    assert_eq!(within.unwrap().as_slice().unwrap().as_ptr(), two.large.as_ptr());
    assert_eq!(View::<Picture, _>::new(Bytes::from(whole)).unwrap().to_owned(), two);
    let framed = Framed { bytes: vec![7u8; 20_000] };
    let (whole, within) = in_parts(&framed);
    assert!(within.is_none(), "{framed:?}");
    assert_eq!(View::<Framed<Vec<u8>>, _>::new(Bytes::from(whole)).unwrap().to_owned(), framed);
    let vec = vec![7u8; 1 << 20];
    assert!(in_parts(&vec).1.is_none(), "nobody counts them");
}

#[test]
fn what_another_thread_has_encoded_keeps_its_parts() {
    let picture = picture(9, 100_000, 3);
    let pool = SharedPool::new(4096);
    let mut writer = pool.writer(LIMIT).with_parts();
    Payload::encode(&Typed(&picture), Codec::RKYV, 0, &mut writer).unwrap();
    let mut encoded = Encoded::take(&pool, writer, Codec::RKYV);
    encoded.transcode = Typed(&picture).transcode();
    let [front, within, back, rest] = encoded.slices().unwrap();
    assert_eq!(within.as_ptr(), picture.large.as_ptr());
    assert!(rest.is_empty() && encoded.len() == front.len() + within.len() + back.len());
    let read = |write: &dyn Fn(&mut Writer) -> Result<(), EncodeError>| {
        let mut out = pool.writer(LIMIT);
        write(&mut out).unwrap();
        pool.finish(out).0.to_vec()
    };
    assert_eq!(read(&|out| encoded.encode(Codec::RKYV, 0, out)), copied(&picture));
    let named = read(&|out| encoded.encode(Codec::MESSAGEPACK, 0, out));
    assert_eq!(named, read(&|out| Typed(&picture).encode(Codec::MESSAGEPACK, 0, out)));
}

#[test]
fn they_count_for_the_limit() {
    let pool = Pool::new(0);
    let mut arena = Arena::new(&pool, 4096);
    let picture = picture(3, 50_000, 10);
    let len = copied(&picture).len();
    for limit in [100, 49_999, 50_020, len - 1] {
        let full = EncodeError::Full(Full { limit });
        assert_eq!(picture.encode(arena.begin(0, limit)), Err(full));
    }
    picture.encode(arena.begin(0, len)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_message_is_the_same(
        lens in prop::collection::vec((0usize..40, 0usize..40_000, 0usize..40_000), 0..3),
        cover in 0usize..40_000,
        which in 0..3,
    ) {
        let pictures = lens.iter().map(|&(name, large, small)| picture(name, large, small)).collect();
        let album = match which {
            0 => Album::Empty,
            1 => Album::Pictures { pictures, cover: picture(0, cover, 0).large },
            _ => Album::Other(other::Bytes { bytes: vec![7; cover] }),
        };
        let (whole, _) = in_parts(&album);
        prop_assert_eq!(&whole, &copied(&album));
        prop_assert_eq!(View::<Album, _>::new(Pool::new(0).copy(&whole)).unwrap().to_owned(), album);
    }
}
