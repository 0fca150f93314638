//! Views of the types that rkyv brings. What `#[message]` makes of one's own is tested where that macro
//! is, in `ringcall/tests/suite/messages.rs`.

mod mutation;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use mutation::{debug_len, mutations};
use proptest::prelude::*;
use ringcall_buf::{Chunk, Frozen, Full, Pool, SharedPool, SharedSegment};
use ringcall_codec_rkyv::{Archivable, FromBody, Invalid, Message, SharedView, Typed, View};
use ringcall_core::{Codec, EncodeError, Payload, REFERENCE_BYTES_MIN};

const LIMIT: usize = 1 << 20;

type Nested =
    (Vec<(String, Option<Box<u64>>)>, [i16; 3], (u128, i128), Option<Box<(char, bool, String)>>);

fn encode_up_to<M: Message>(value: &M, limit: usize) -> Result<Vec<u8>, EncodeError> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(limit);
    value.encode(&mut out)?;
    Ok(pool.finish(out).0.to_vec())
}

fn encode<M: Message>(value: &M) -> Vec<u8> {
    encode_up_to(value, LIMIT).expect("it fits")
}

/// As a body lands: at a multiple of 16.
fn land(body: &[u8]) -> Chunk {
    Pool::new(0).copy(body)
}

/// In memory of its own and of its size, so that a sanitizer sees who reads behind it.
fn view<T: Archivable>(body: &[u8]) -> Result<View<T, Bytes>, Invalid> {
    View::new(Bytes::from(Box::from(body)))
}

/// With the four bytes from `at` overwritten; counted from the end if negative.
fn with_word(body: &[u8], at: isize, word: u32) -> Vec<u8> {
    let mut body = body.to_vec();
    let at = at.rem_euclid(body.len() as isize) as usize;
    body[at..at + 4].copy_from_slice(&word.to_le_bytes());
    body
}

fn is<T: Archivable + PartialEq>(view: &View<T, Bytes>, value: &T) -> bool {
    view.to_owned() == *value
}

#[test]
fn numbers_are_written_as_their_archives() {
    macro_rules! check {
        ($($number:expr),*) => {$(
            // A tuple of one is archived by rkyv, and has the same layout.
            assert_eq!(encode(&$number), encode(&($number,)));
            assert!(view(&encode(&$number)).is_ok_and(|view| is(&view, &$number)));
            let room = encode(&$number).len() - 1;
            let full = EncodeError::Full(Full { limit: room });
            assert_eq!(encode_up_to(&$number, room), Err(full));
        )*};
    }
    check! { 0xf1_u8, 0xf1f2_u16, 0xf1f2_f3f4_u32, 0xf1f2_f3f4_f5f6_f7f8_u64 }
    check! { -2_i8, -258_i16, -0x0102_0304_i32, -0x0102_0304_0506_0708_i64, 1.25_f32, -1.0e-300_f64 }
}

/// Reads all there is, one by one.
fn read<B: Frozen>(view: &View<Nested, B>) -> Nested {
    let list = view.0.iter().map(|item| {
        let number = item.1.as_ref().map(|number| Box::new(number.to_native()));
        (item.0.as_str().to_owned(), number)
    });
    let array = [0, 1, 2].map(|index| view.1[index].to_native());
    let wide = (view.2.0.to_native(), view.2.1.to_native());
    let boxed = view
        .3
        .as_ref()
        .map(|boxed| Box::new((boxed.0.to_native(), boxed.1, boxed.2.as_str().to_owned())));
    (list.collect(), array, wide, boxed)
}

/// Reads all there is in every way, if it is something. Nothing may come of it that is larger than what
/// arrived.
fn touch(body: &[u8]) {
    let Ok(view) = view::<Nested>(body) else { return };
    assert_eq!(read(&view), view.to_owned());
    assert!(view.0.len() * 16 <= body.len());
    assert!(debug_len(&view) <= 64 * body.len());
}

/// Short, so that damage hits something that matters.
fn nested() -> impl Strategy<Value = Nested> {
    let item = (".{0,20}", any::<Option<Box<u64>>>());
    let boxed = prop::option::of((any::<char>(), any::<bool>(), ".{0,20}").prop_map(Box::new));
    (prop::collection::vec(item, 0..8), any::<[i16; 3]>(), any::<(u128, i128)>(), boxed)
}

fn example() -> Nested {
    let list = vec![
        ("short".to_owned(), None),
        ("a string that does not fit inline".to_owned(), Some(Box::new(7))),
    ];
    (list, [-1, 0, 1], (1 << 100, -1), Some(Box::new(('ß', true, "boxed".to_owned()))))
}

proptest! {
    #[test]
    fn views_read_what_was_written(value in nested()) {
        let view = view::<Nested>(&encode(&value)).unwrap();
        prop_assert_eq!(&read(&view), &value);
        prop_assert_eq!(view.to_owned(), value);
    }

    #[test]
    fn an_argument_by_value_is_what_was_written(value in nested()) {
        let body = land(&encode(&value));
        prop_assert_eq!(Nested::from_body(body.clone()).unwrap(), value.clone());
        let shared = SharedView::<Nested>::from_body(body).unwrap();
        prop_assert_eq!(Nested::into_owned_shared(shared), value);
    }

    #[test]
    fn equal_values_are_equal_bytes(value in nested()) {
        // In memory where something else has been.
        let pool = SharedPool::new(8192);
        for stale in [0xff, 0] {
            let mut out = pool.writer(LIMIT);
            out.put(&[stale; 8192]).unwrap();
            drop(pool.finish(out));
            let mut out = pool.writer(LIMIT);
            value.encode(&mut out).unwrap();
            prop_assert_eq!(&*pool.finish(out).0, &encode(&value)[..]);
        }
    }

    #[test]
    fn a_body_ends_where_its_archive_does(value in nested(), front in 1_usize..5) {
        // What lies in front of an archive does not matter, what lies behind does: the root is at the end.
        let body = encode(&value);
        let moved = [&vec![0xaa; 16 * front], &body[..]].concat();
        prop_assert_eq!(view::<Nested>(&moved).unwrap().to_owned(), value);
    }

    #[test]
    fn a_body_that_was_cut_is_no_surprise(value in nested()) {
        let body = encode(&value);
        (0..body.len()).for_each(|len| touch(&body[..len]));
        (16..body.len()).step_by(16).for_each(|from| touch(&body[from..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_damaged_body_is_no_surprise(value in nested(), mutations in mutations()) {
        let mut body = encode(&value);
        mutations.into_iter().for_each(|mutation| mutation.apply(&mut body));
        touch(&body);
    }

    #[test]
    fn random_bytes_are_no_surprise(body in prop::collection::vec(any::<u8>(), 0..200)) {
        touch(&body);
        let _ = view::<Vec<String>>(&body).map(|view| (debug_len(&view), view.to_owned()));
        let _ = view::<Option<IpAddr>>(&body).map(|view| (debug_len(&view), view.to_owned()));
        let _ = view::<(char, Duration)>(&body).map(|view| (debug_len(&view), view.to_owned()));
    }
}

// ---- keeping ----

#[test]
fn a_clone_reads_the_same_bytes() {
    let view = View::<Nested>::new(land(&encode(&example()))).unwrap();
    let clone = view.clone();
    assert_eq!(clone.as_bytes().as_ptr(), view.as_bytes().as_ptr());
    drop(view);
    assert_eq!(read(&clone), example());
}

#[test]
fn a_shared_view_reads_the_same_bytes_on_another_thread() {
    let view = View::<Nested>::new(land(&encode(&example()))).unwrap();
    let shared: SharedView<Nested> = view.share();
    assert_eq!(shared.as_bytes().as_ptr(), view.as_bytes().as_ptr());
    drop(view);
    let elsewhere = std::thread::spawn(move || shared.clone().to_owned());
    assert_eq!(elsewhere.join().unwrap(), example());
}

#[test]
fn a_detached_view_keeps_only_its_own_bytes() {
    let (large, small) = (Pool::new(0), Pool::new(0));
    let body = encode(&example());
    let mut landed = large.take(1 << 20);
    landed.extend_from_slice(&body);
    let view = View::<Nested>::new(landed.freeze()).unwrap();
    let detached = view.detach(&small);
    drop(view);
    assert_eq!(large.stats().lent_bytes, 0);
    assert_eq!(small.stats().lent_bytes, Pool::cost(body.len()));
    assert_eq!(read(&detached), example());
}

/// Who makes a view of their own bytes may have them anywhere: what lies right there must lie right in a copy.
#[test]
fn a_detached_view_lies_as_the_original_did() {
    let body = encode(&(7_u64, 1_u8));
    let pool = Pool::new(0);
    for phase in [0, 8] {
        let landed = pool.copy(&[&vec![0; phase], &body[..]].concat());
        let body = landed.slice(phase..landed.len());
        let detached = View::<(u64, u8)>::new(body).unwrap().detach(&pool);
        assert_eq!(detached.to_owned(), (7, 1));
        let address = detached.as_bytes().as_ptr().addr();
        assert_eq!(address % 16, phase, "at {address:#x}");
    }
    // The root of an archive is at its end: in front of it there is whatever makes it lie right.
    let landed = pool.copy(&[&[0; 8][..], &7_u64.to_le_bytes()].concat());
    let view = View::<u64>::new(landed.slice(4..16)).unwrap();
    assert_eq!(view.detach(&pool).to_owned(), 7);
}

// ---- crafted bodies ----

#[test]
fn a12_a_misaligned_body_is_refused() {
    let body = encode(&example());
    for offset in 1..16 {
        let shifted = land(&[&vec![0; offset], &body[..]].concat());
        let body = shifted.slice(offset..shifted.len());
        assert_eq!(View::<Nested>::new(body.clone()).err(), Some(Invalid), "offset {offset}");
        assert_eq!(View::<Nested, _>::new(body.share()).err(), Some(Invalid));
        assert_eq!(View::<Nested, _>::new(Bytes::from(body.share())).err(), Some(Invalid));
    }
}

#[test]
fn a12_bodies_without_alignment_may_lie_anywhere() {
    let shifted = land(&[&[0], &encode(&"anything".to_owned().into_bytes())[..]].concat());
    let aligned = shifted.slice(1..shifted.len());
    // A vector's own offset and length are words.
    assert!(View::<Vec<u8>>::new(aligned).is_err());
    let shifted = land(&[0, 1, 2, 3]);
    assert_eq!(View::<[u8; 3]>::new(shifted.slice(1..4)).unwrap().to_owned(), [1, 2, 3]);
}

/// The root of a string is four bytes of length, two of its bits a mark, and four of offset.
#[test]
fn a13_a_string_that_points_outside_is_refused() {
    let body = encode(&"x".repeat(100));
    assert!(view::<String>(&body).is_ok());
    for offset in [1, 8, -108, -112, i32::MAX, i32::MIN, i32::MAX - 8] {
        let forged = with_word(&body, -4, offset as u32);
        assert_eq!(view::<String>(&forged).err(), Some(Invalid), "offset {offset}");
    }
}

#[test]
fn a13_a_string_that_is_longer_than_its_body_is_refused() {
    let body = encode(&"x".repeat(100));
    for len in [105, 128, 1 << 20, (1 << 30) - 1] {
        let marked = len & 0b11_1111 | 0b1000_0000 | (len & !0b11_1111) << 2;
        assert_eq!(view::<String>(&with_word(&body, -8, marked)).err(), Some(Invalid), "len {len}");
    }
}

/// The root of a vector is four bytes of offset, from where they are, and four of length.
#[test]
fn a13_a_vector_that_reaches_outside_is_refused() {
    let body = encode(&vec![7_u32; 10]);
    assert_eq!(&body[40..], [(-40_i32).to_le_bytes(), 10_i32.to_le_bytes()].concat());
    for len in [11, 12, 1 << 30, i32::MAX as u32, u32::MAX / 4, u32::MAX / 4 + 1, u32::MAX] {
        assert_eq!(view::<Vec<u32>>(&with_word(&body, -4, len)).err(), Some(Invalid), "len {len}");
    }
    for offset in [-39, -41, -44, -36, 0, 4, i32::MIN, i32::MAX] {
        let forged = with_word(&body, -8, offset as u32);
        assert_eq!(view::<Vec<u32>>(&forged).err(), Some(Invalid), "offset {offset}");
    }
}

#[test]
fn a13_a_root_that_does_not_fit_is_refused() {
    for len in 0..64 {
        assert_eq!(view::<[u64; 8]>(&[0; 64][..len]).err(), Some(Invalid), "{len} bytes");
    }
    assert!(view::<[u64; 8]>(&[0; 64]).is_ok());
}

/// Otherwise a short body could hold a long one many times over.
#[test]
fn a13_vectors_that_overlap_are_refused() {
    let body = encode(&(vec![1_u64, 2], vec![3_u64, 4]));
    assert_eq!(body.len(), 48);
    let first = i32::from_le_bytes(body[32..36].try_into().unwrap());
    assert_eq!(first, -32);
    assert!(view::<(Vec<u64>, Vec<u64>)>(&body).is_ok());
    // The second points to the first's elements, to half of them, and the other way round.
    for (at, offset) in [(40, -40), (40, -32), (32, -16), (32, -24)] {
        let forged = with_word(&body, at, offset as u32);
        let checked = view::<(Vec<u64>, Vec<u64>)>(&forged);
        assert_eq!(checked.err(), Some(Invalid), "offset {offset} at {at}");
    }
}

#[test]
fn a13_a_pointer_to_itself_is_refused() {
    let body = encode(&Box::new(Box::new(1_u32)));
    assert_eq!(body.len(), 12);
    assert!(view::<Box<Box<u32>>>(&body).is_ok());
    // The inner one to itself and to the outer one, the outer one to itself.
    for (at, offset) in [(4, 0), (4, 4), (8, 0)] {
        let checked = view::<Box<Box<u32>>>(&with_word(&body, at, offset));
        assert_eq!(checked.err(), Some(Invalid), "offset {offset} at {at}");
    }
}

#[test]
fn a16_only_0_and_1_are_a_bool() {
    let valid = (0..=255).filter(|&byte| view::<bool>(&[byte]).is_ok());
    assert_eq!(valid.collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a16_only_0_and_1_are_the_tag_of_an_option() {
    let valid = (0..=255).filter(|&byte| view::<Option<u8>>(&[byte, 7]).is_ok());
    assert_eq!(valid.collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a16_only_4_and_6_are_versions_of_an_address() {
    let mut body = encode(&IpAddr::from(Ipv4Addr::LOCALHOST));
    let valid = (0..=255).filter(|&tag| {
        body[0] = tag;
        view::<IpAddr>(&body).is_ok()
    });
    assert_eq!(valid.count(), 2);
}

#[test]
fn a16_a_surrogate_is_no_char() {
    for number in [0xd800_u32, 0xdfff, 0x11_0000, u32::MAX] {
        assert_eq!(view::<char>(&number.to_le_bytes()).err(), Some(Invalid), "{number:x}");
    }
    assert_eq!(view::<char>(&0x10_ffff_u32.to_le_bytes()).unwrap().to_owned(), '\u{10ffff}');
}

#[test]
fn a16_zero_is_not_nonzero() {
    assert_eq!(view::<(NonZeroU32,)>(&[0; 4]).err(), Some(Invalid));
    assert_eq!(view::<(NonZeroU32,)>(&[1, 0, 0, 0]).unwrap().0.get(), 1);
}

#[test]
fn a16_a_second_has_a_billion_nanoseconds() {
    let body = encode(&Duration::new(u64::MAX, 999_999_999));
    assert_eq!(view::<Duration>(&body).unwrap().to_owned(), Duration::MAX);
    for nanos in [1_000_000_000, u32::MAX] {
        assert_eq!(view::<Duration>(&with_word(&body, 8, nanos)).err(), Some(Invalid));
    }
}

#[test]
fn a16_strings_are_utf_8() {
    let inline = encode(&"short".to_owned());
    let far = encode(&"x".repeat(100));
    for body in [inline, far] {
        for byte in [0x80, 0xc0, 0xed, 0xf5] {
            let mut forged = body.clone();
            forged[1] = byte;
            assert_eq!(view::<String>(&forged).err(), Some(Invalid), "{byte:x}");
        }
    }
}

// ---- encoding ----

#[test]
fn a_message_that_does_not_fit_is_an_error() {
    let value = example();
    let len = encode(&value).len();
    for limit in 0..len {
        let full = EncodeError::Full(Full { limit });
        assert_eq!(encode_up_to(&value, limit), Err(full));
    }
    assert!(encode_up_to(&value, len).is_ok());
}

#[test]
fn a_message_has_its_codec_and_those_with_names() {
    let archived = |codec, out: &mut _| Typed(&7_u32).encode(codec, 0, out);
    let raw = |codec, out: &mut _| Typed(&Bytes::from_static(b"raw")).encode(codec, 0, out);
    for codec in [Codec::RAW, Codec::RKYV, Codec::MESSAGEPACK, Codec::JSON, Codec(77)] {
        let mut out = SharedPool::new(4096).writer(LIMIT);
        let wrong = Err(EncodeError::Codec(codec));
        let has_json = cfg!(feature = "json") && codec == Codec::JSON;
        let is_known = matches!(codec, Codec::RKYV | Codec::MESSAGEPACK) || has_json;
        let expected = if is_known { Ok(()) } else { wrong };
        assert_eq!(archived(codec, &mut out), expected);
        let expected = if codec == Codec::RAW { Ok(()) } else { wrong };
        assert_eq!(raw(codec, &mut out), expected);
    }
}

#[test]
fn nothing_is_no_bytes() {
    assert_eq!(encode(&()), Vec::<u8>::new());
    assert!(view::<()>(&[]).is_ok());
}

// ---- raw bodies ----

#[test]
fn raw_bodies_are_the_bytes_themselves() {
    let bytes = Bytes::from(vec![7; REFERENCE_BYTES_MIN - 1]);
    assert_eq!(encode(&bytes), bytes);
    assert_eq!(encode(&Bytes::new()), Vec::<u8>::new());
}

#[test]
fn large_raw_bodies_are_sent_from_where_they_are() {
    let bytes = Bytes::from(vec![7; REFERENCE_BYTES_MIN]);
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(LIMIT);
    Message::encode(&bytes, &mut out).unwrap();
    let (copied, attached) = pool.finish(out);
    assert!(copied.is_empty());
    let Some(SharedSegment::Bytes(attached)) = attached else { panic!("{attached:?}") };
    assert_eq!(attached.as_ptr(), bytes.as_ptr());
}

#[test]
fn raw_bodies_have_a_limit_too() {
    for len in [100, REFERENCE_BYTES_MIN] {
        let full = EncodeError::Full(Full { limit: len - 1 });
        assert_eq!(encode_up_to(&Bytes::from(vec![7; len]), len - 1), Err(full));
    }
}

#[test]
fn received_raw_bodies_are_not_copied() {
    let body = land(&[7; 100]);
    let at = body.as_ptr();
    assert_eq!(Bytes::receive(body.clone()).unwrap().as_ptr(), at);
    assert_eq!(Chunk::from_body(body.clone()).unwrap().as_ptr(), at);
    assert_eq!(Bytes::from_body(body.clone()).unwrap().as_ptr(), at);
    assert_eq!(Bytes::into_owned_shared(body.share()).as_ptr(), at);
}

#[test]
fn a_raw_body_may_lie_anywhere() {
    let body = land(b" anywhere");
    assert_eq!(Bytes::from_body(body.slice(1..9)).unwrap(), "anywhere");
}

// ---- types of other crates ----

#[cfg(feature = "bytes")]
#[test]
fn bytes_may_be_a_field() {
    let value = (Bytes::from_static(b"inside"), 7_u8);
    let view = view::<(Bytes, u8)>(&encode(&value)).unwrap();
    assert_eq!(view.0.as_slice(), b"inside");
    assert_eq!(view.to_owned(), value);
}

#[test]
fn bytes_are_taken_out_of_a_view_where_they_lie_or_copied_if_they_are_few() {
    for (len, is_shared) in [(REFERENCE_BYTES_MIN, true), (REFERENCE_BYTES_MIN - 1, false)] {
        let view: View<(Vec<u8>, u8)> = View::new(land(&encode(&(vec![9_u8; len], 7)))).unwrap();
        let lay_at = view.0.as_ptr();
        let taken = [view.slice_ref(&view.0), view.share().slice_ref(&view.0)];
        drop(view);
        for taken in taken {
            assert_eq!((&taken[..], taken.as_ptr() == lay_at), (&vec![9; len][..], is_shared));
        }
    }
}

#[test]
#[should_panic(expected = "subset")]
fn what_is_taken_out_of_a_view_must_lie_in_it() {
    let view: View<Vec<u8>> = View::new(land(&encode(&vec![9_u8; 10]))).unwrap();
    let _elsewhere = view.slice_ref(&[9; REFERENCE_BYTES_MIN]);
}

#[cfg(feature = "uuid")]
#[test]
fn a_uuid_is_sixteen_bytes_that_may_lie_anywhere() {
    let value = uuid::Uuid::from_u128(7);
    assert_eq!(encode(&value), value.as_bytes());
    assert_eq!(view::<uuid::Uuid>(&encode(&value)).unwrap().to_owned(), value);
    let mut shape = ringcall_codec_rkyv::Shape::default();
    <uuid::Uuid as Message>::describe(&mut shape);
    assert_eq!(shape.text(), "uuid:16:1");
}

#[cfg(feature = "smol_str")]
#[test]
fn a_short_string_is_a_string_to_others() {
    use smol_str::SmolStr;
    for text in ["", "short", "longer than what fits into the value"] {
        let (short, string) = (SmolStr::new(text), String::from(text));
        assert_eq!(encode(&short), encode(&string));
        assert_eq!(view::<SmolStr>(&encode(&string)).unwrap().to_owned(), short);
        assert_eq!(view::<String>(&encode(&short)).unwrap().to_owned(), string);
    }
    let describe = |describe: fn(&mut ringcall_codec_rkyv::Shape)| {
        let mut shape = ringcall_codec_rkyv::Shape::default();
        describe(&mut shape);
        shape.text().to_owned()
    };
    assert_eq!(describe(<SmolStr as Message>::describe), describe(<String as Message>::describe));
}
