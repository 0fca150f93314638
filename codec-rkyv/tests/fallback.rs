//! MessagePack and JSON: the same values as in archives, and nothing else.

#![allow(clippy::vec_box, reason = "types of users may have it, and it has to be bounded as well")]

use std::cell::Cell;
use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use ringcall_buf::SharedPool;
use ringcall_codec_rkyv::{DEPTH_MAX, Form, Invalid, Message, View};
use ringcall_core::{Codec, EncodeError};
use ringcall_macros::message;

/// Where the macro looks.
mod ringcall {
    pub(crate) mod __private {
        pub(crate) use ringcall_codec_rkyv as codec;
    }
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Everything {
    flag: bool,
    letter: char,
    small: (u8, i8, u16, i16),
    large: (u32, i32, u64, i64),
    huge: (u128, i128),
    float: f32,
    double: f64,
    name: String,
    bytes: Vec<u8>,
    digits: [u8; 40],
    nested: Vec<Kind>,
    maybe: Option<Box<Everything>>,
    time: Duration,
    ip: IpAddr,
    nothing: (),
}

/// A type that came to its message through another macro: it stands in a group without brackets.
macro_rules! message_of {
    ($name:ident, $of:ty) => {
        #[message(crate = self::ringcall)]
        #[derive(Clone, Debug, PartialEq)]
        struct $name {
            value: $of,
        }
    };
}
message_of!(Digits, [u8; 40]);

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Plain,
    One(u32),
    Two(String, f64),
    Named { kind: Option<u8>, r#type: String },
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Node {
    value: u8,
    next: Option<Box<Node>>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Tree {
    children: Vec<Tree>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Chain(Option<Box<Chain>>);

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Twice {
    inner: Option<Option<u8>>,
    nothing: Option<()>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Empties {
    all: Vec<Empty>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Empty {
    a: Option<String>,
    b: Option<String>,
    c: Option<String>,
    d: Option<String>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Boxes {
    all: Vec<Box<Empty>>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct MaybeBoxes {
    all: Vec<Box<Option<Empty>>>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Links {
    all: Vec<Option<Box<Link>>>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Link {
    n: Option<Box<Link>>,
    empty: Option<Empty>,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Positive {
    value: std::num::NonZeroU8,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Float {
    value: f64,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Single {
    value: f32,
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Quote {
    price: f64,
    size: u32,
}

const CODECS: &[Codec] = &[
    Codec::MESSAGEPACK,
    #[cfg(feature = "json")]
    Codec::JSON,
];

fn encode<M: Message>(message: &M, codec: Codec) -> Result<Vec<u8>, EncodeError> {
    let pool = SharedPool::new(4096);
    let mut writer = pool.writer(64 << 20);
    message.encode_as(Form::of_codec(codec), &mut writer)?;
    Ok(pool.finish(writer).0.to_vec())
}

fn decode<M: Message>(codec: Codec, body: &[u8]) -> Result<M, Invalid> {
    M::decode_as(Form::of_codec(codec), body)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<u32>().prop_map(Kind::One),
        (".*", -1e300..1e300).prop_map(|(text, number)| Kind::Two(text, number)),
        (any::<Option<u8>>(), ".*").prop_map(|(kind, r#type)| Kind::Named { kind, r#type }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let finite = (
        any::<f32>().prop_filter("finite", |number| number.is_finite()),
        any::<f64>().prop_filter("finite", |number| number.is_finite()),
    );
    let leaf = (
        (any::<bool>(), any::<char>(), any::<(u8, i8, u16, i16)>(), any::<(u32, i32, u64, i64)>()),
        any::<(u128, i128)>(),
        finite,
        (".*", prop::collection::vec(any::<u8>(), 0..50), any::<[u8; 32]>()),
        prop::collection::vec(kind(), 0..5),
        (any::<u64>(), 0..1_000_000_000_u32),
        any::<IpAddr>(),
    );
    let leaf = leaf.prop_map(|(scalars, huge, floats, texts, nested, time, ip)| {
        let mut digits = [7; 40];
        digits[..32].copy_from_slice(&texts.2);
        Everything {
            flag: scalars.0,
            letter: scalars.1,
            small: scalars.2,
            large: scalars.3,
            huge,
            float: floats.0,
            double: floats.1,
            name: texts.0,
            bytes: texts.1,
            digits,
            nested,
            maybe: None,
            time: Duration::new(time.0, time.1),
            ip,
            nothing: (),
        }
    });
    leaf.prop_recursive(4, 8, 1, |inner| {
        (inner.clone(), inner).prop_map(|(mut outer, inner)| {
            outer.maybe = Some(Box::new(inner));
            outer
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_codec_says_the_same(value in everything()) {
        let pool = SharedPool::new(4096);
        let mut writer = pool.writer(64 << 20);
        value.encode(&mut writer).unwrap();
        let archive: View<Everything, _> = View::new(pool.finish(writer).0).unwrap();
        prop_assert_eq!(&archive.to_owned(), &value);
        for &codec in CODECS {
            let body = encode(&value, codec).unwrap();
            prop_assert_eq!(&decode::<Everything>(codec, &body).unwrap(), &value);
            // A view of it is the archive that the type itself makes.
            let view = Everything::receive_as::<ringcall_buf::SharedChunk>(Form::of_codec(codec), &body);
            let view = view.unwrap();
            prop_assert_eq!(view.as_bytes(), archive.as_bytes());
        }
    }

    /// What is cut off, or followed by something, is not taken for the whole.
    #[test]
    fn a_part_is_not_the_whole(value in everything(), at in any::<prop::sample::Index>()) {
        for &codec in CODECS {
            let mut body = encode(&value, codec).unwrap();
            let part = at.index(body.len());
            if part > 0 {
                prop_assert!(decode::<Everything>(codec, &body[..part]).is_err());
            }
            let whole = body.len();
            // In MessagePack also the heads of what does not follow itself.
            let more: &[&[u8]] = match codec {
                Codec::JSON => &[b"1", b"[", b"null"],
                _ => &[b"\x91", b"\x81", b"\xc0", b"\xc1", b"\xdc\0\x01", b"\xd4", b"\xa1"],
            };
            for more in more {
                body.truncate(whole);
                body.extend_from_slice(more);
                prop_assert!(decode::<Everything>(codec, &body).is_err(), "{:x?}", more);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for &codec in CODECS {
            let _ = decode::<Everything>(codec, &body);
            let _ = decode::<Chain>(codec, &body);
            let _ = decode::<Tree>(codec, &body);
        }
    }
}

/// Whatever it begins: also an array or a map of which only the head is there.
#[test]
fn nothing_may_follow_a_value() {
    for byte in 0..=255 {
        for value in [0x07, 0xc0] {
            let body = [value, byte];
            assert!(decode::<Option<u8>>(Codec::MESSAGEPACK, &body).is_err(), "{body:x?}");
        }
    }
}

fn list(len: usize) -> Node {
    (0..len).fold(Node { value: 0, next: None }, |next, _| Node {
        value: 1,
        next: Some(Box::new(next)),
    })
}

#[test]
fn a11_nesting_is_limited_in_every_codec() {
    for &codec in CODECS {
        let body = encode(&list(60), codec).unwrap();
        assert_eq!(decode::<Node>(codec, &body).unwrap(), list(60));
        // A reader would not follow.
        assert_eq!(encode(&list(200), codec), Err(EncodeError::Failed));
    }
    // What can be decoded, but not archived, is no view.
    const { assert!(DEPTH_MAX < 128) };
}

#[test]
fn a11_a_million_levels_are_an_error() {
    const DEEP: usize = 1_000_000;
    let packed = |begin: &[u8], end: &[u8]| [begin.repeat(DEEP), end.to_vec()].concat();
    // Maps `{"children": [`, arrays, and both as what a reader does not know.
    let tree = packed(b"\x81\xa8children\x91", b"\x80");
    assert!(decode::<Tree>(Codec::MESSAGEPACK, &tree).is_err());
    let node = packed(b"\x82\xa5value\x01\xa4next", b"\xc0");
    assert!(decode::<Node>(Codec::MESSAGEPACK, &node).is_err());
    let arrays = packed(b"\x91", b"\x90");
    assert!(decode::<Tree>(Codec::MESSAGEPACK, &arrays).is_err());
    let ignored = [b"\x82\xa7unknown".to_vec(), arrays, b"\xa8children\x90".to_vec()].concat();
    assert!(decode::<Tree>(Codec::MESSAGEPACK, &ignored).is_err());
    #[cfg(feature = "json")]
    for body in [
        r#"{"children":["#.repeat(DEEP),
        "[".repeat(DEEP),
        format!(r#"{{"unknown":{}"#, "[".repeat(DEEP)),
        r#"{"value":1,"next":"#.repeat(DEEP),
    ] {
        assert!(decode::<Tree>(Codec::JSON, body.as_bytes()).is_err());
        assert!(decode::<Node>(Codec::JSON, body.as_bytes()).is_err());
    }
    // An option of itself takes nothing of the body.
    for (codec, body) in [(Codec::MESSAGEPACK, &b"\x01"[..]), (Codec::JSON, b"1")] {
        assert!(decode::<Chain>(codec, body).is_err());
    }
}

#[test]
fn giant_lengths_are_errors_at_once() {
    for body in [
        &b"\xdd\xff\xff\xff\xff"[..],
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa8children\xdd\xff\xff\xff\xff",
        b"\x81\xa3all\xdd\xff\xff\xff\xff\x80\x80",
    ] {
        assert!(decode::<Tree>(Codec::MESSAGEPACK, body).is_err());
        assert!(decode::<Empties>(Codec::MESSAGEPACK, body).is_err());
        assert!(decode::<String>(Codec::MESSAGEPACK, body).is_err());
        assert!(decode::<Vec<u8>>(Codec::MESSAGEPACK, body).is_err());
    }
}

/// In a list, a byte stands for a struct of a hundred, also if that is behind a pointer.
#[test]
fn small_bodies_do_not_become_large_values() {
    fn assert_bounded<M: Message>(element: &[u8], len: fn(&M) -> usize) {
        let body = |count: usize| {
            let head = [&b"\x81\xa3all\xdd"[..], &(count as u32).to_be_bytes()].concat();
            [head, element.repeat(count)].concat()
        };
        let few = 10_000 / element.len();
        assert_eq!(decode::<M>(Codec::MESSAGEPACK, &body(few)).map(|all| len(&all)), Ok(few));
        assert!(decode::<M>(Codec::MESSAGEPACK, &body(4_000_000 / element.len())).is_err());
    }

    assert_bounded::<Empties>(b"\x80", |empties| empties.all.len());
    assert_bounded::<Boxes>(b"\x80", |boxes| boxes.all.len());
    assert_bounded::<MaybeBoxes>(b"\xc0", |boxes| boxes.all.len());
    let chain = [b"\x81\xa1n".repeat(50), b"\x80".to_vec()].concat();
    assert_bounded::<Links>(&chain, |links| links.all.len());
}

/// What is sent with all its names is read, however much of it is behind pointers.
#[test]
fn large_values_with_pointers_are_read() {
    let text = || Some("text".to_owned());
    let empty = Empty { a: text(), b: text(), c: text(), d: None };
    let link = (0..50).fold(Link { n: None, empty: None }, |next, _| Link {
        n: Some(Box::new(next)),
        empty: Some(empty.clone()),
    });
    let boxes = Boxes { all: vec![Box::new(empty); 20_000] };
    let links = Links { all: vec![Some(Box::new(link)); 2_000] };
    for &codec in CODECS {
        assert!(decode(codec, &encode(&boxes, codec).unwrap()) == Ok(boxes.clone()));
        assert!(decode(codec, &encode(&links, codec).unwrap()) == Ok(links.clone()));
    }
}

#[test]
fn what_a_reader_would_take_for_none_is_not_written() {
    let nothing = Twice { inner: None, nothing: None };
    let some = Twice { inner: Some(Some(1)), nothing: None };
    for &codec in CODECS {
        assert_eq!(decode::<Twice>(codec, &encode(&nothing, codec).unwrap()).unwrap(), nothing);
        assert_eq!(
            encode(&Twice { inner: Some(None), nothing: None }, codec),
            Err(EncodeError::Failed)
        );
        assert_eq!(
            encode(&Twice { inner: None, nothing: Some(()) }, codec),
            Err(EncodeError::Failed)
        );
        assert_eq!(encode(&Chain(Some(Box::new(Chain(None)))), codec), Err(EncodeError::Failed));
        // One that would be read as itself is refused as well: which it is depends on what is inside.
        assert_eq!(encode(&some, codec), Err(EncodeError::Failed));
    }
}

#[test]
fn numbers_that_a_codec_has_not_are_not_written() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let body = encode(&Float { value: number }, Codec::MESSAGEPACK).unwrap();
        let read = decode::<Float>(Codec::MESSAGEPACK, &body).unwrap();
        assert_eq!(read.value.to_bits(), number.to_bits());
        #[cfg(feature = "json")]
        {
            assert_eq!(encode(&Float { value: number }, Codec::JSON), Err(EncodeError::Failed));
            let single = Single { value: number as f32 };
            assert_eq!(encode(&single, Codec::JSON), Err(EncodeError::Failed));
            assert_eq!(encode(&Some(number), Codec::JSON), Err(EncodeError::Failed));
        }
    }
}

#[test]
fn a16_values_that_a_type_does_not_have_are_errors() {
    #[cfg(feature = "json")]
    {
        let json = |text: &str| decode::<Kind>(Codec::JSON, text.as_bytes());
        assert_eq!(json(r#""Plain""#), Ok(Kind::Plain));
        assert_eq!(json(r#"{"One":1}"#), Ok(Kind::One(1)));
        for wrong in [
            r#""Three""#,
            r#"{"Three":1}"#,
            "0",
            r#"{"One":-1}"#,
            r#"{"One":4294967296}"#,
            r#"{"One":1.5}"#,
            r#"{"One":"1"}"#,
            r#"{"One":1,"Plain":null}"#,
            r#"{"Two":["a"]}"#,
            r#"{"Two":["a",1.0,2.0]}"#,
            r#"{"Named":{"kind":256,"type":"a"}}"#,
            r#"{"Named":{"kind":1}}"#,
            r#"{"Named":[1,"a"]}"#,
            r#"{"Named":{"kind":1,"kind":2,"type":"a"}}"#,
        ] {
            assert_eq!(json(wrong), Err(Invalid), "{wrong}");
        }
        for wrong in ["1", r#""""#, r#""ab""#] {
            assert!(decode::<char>(Codec::JSON, wrong.as_bytes()).is_err());
        }
        for wrong in ["0", "1", r#""true""#] {
            assert!(decode::<bool>(Codec::JSON, wrong.as_bytes()).is_err());
        }
        assert!(decode::<Positive>(Codec::JSON, br#"{"value":0}"#).is_err());
        assert!(decode::<std::net::SocketAddr>(Codec::JSON, br#""1.2.3.4""#).is_err());
    }
    // Variants and fields by number or by place.
    for wrong in [&b"\x00"[..], b"\x81\x01\x01", b"\x92\x01\x01", b"\xc3", b"\x81\xa3One\xc2"] {
        assert_eq!(decode::<Kind>(Codec::MESSAGEPACK, wrong), Err(Invalid));
    }
    assert!(decode::<Quote>(Codec::MESSAGEPACK, b"\x92\xcb\x40\x45\0\0\0\0\0\0\x07").is_err());
    assert!(decode::<Quote>(Codec::MESSAGEPACK, b"\x82\x00\x2a\x01\x07").is_err());
    assert!(decode::<char>(Codec::MESSAGEPACK, b"\xa2ab").is_err());
}

#[test]
fn integers_become_floats_only_if_they_stay_the_same() {
    let float = |body: &[u8]| decode::<Float>(Codec::MESSAGEPACK, body);
    let value = |number: &[u8]| [b"\x81\xa5value", number].concat();
    assert_eq!(float(&value(b"\x07")), Ok(Float { value: 7.0 }));
    assert_eq!(float(&value(&[0xcf, 0, 0x20, 0, 0, 0, 0, 0, 1])), Err(Invalid));
    assert_eq!(
        float(&value(&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        Err(Invalid)
    );
    // What a reader of JSON takes for a float before anybody is asked.
    #[cfg(feature = "json")]
    {
        let float = |body: &[u8]| decode::<Float>(Codec::JSON, body);
        let rounded = Float { value: 18_446_744_073_709_551_616.0 };
        assert_eq!(float(br#"{"value":18446744073709551615}"#), Err(Invalid));
        assert_eq!(float(br#"{"value":18446744073709551617}"#), Ok(rounded));
    }
    let huge = [&[0xcb][..], &1e300_f64.to_be_bytes()].concat();
    assert_eq!(float(&value(&huge)), Ok(Float { value: 1e300 }));
    assert!(decode::<Single>(Codec::MESSAGEPACK, &value(&huge)).is_err());
}

/// Reads a number that was written as an `A` as a `B`: the same number or nothing.
fn assert_the_same_number_or_none<A, B>(numbers: &[A])
where
    A: Message + Copy + Display + TryInto<B>,
    B: Message + Copy + Display + PartialEq + Debug,
{
    for &codec in CODECS {
        for &number in numbers {
            let body = encode(&number, codec).unwrap();
            let expected = number.try_into().map_err(|_| Invalid);
            assert_eq!(decode::<B>(codec, &body), expected, "{number} in {codec:?}");
        }
    }
}

#[test]
fn integers_of_another_width_are_the_same_or_errors() {
    const EDGES: [i128; 15] = [
        i128::MIN,
        i128::MIN + 1,
        -(1 << 64) - 1,
        -(1 << 64),
        i64::MIN as i128 - 1,
        i64::MIN as i128,
        -1,
        0,
        1,
        200,
        i64::MAX as i128,
        u64::MAX as i128,
        u64::MAX as i128 + 1,
        i128::MAX - 1,
        i128::MAX,
    ];
    let unsigned: Vec<u128> = EDGES
        .iter()
        .filter_map(|&edge| edge.try_into().ok())
        .chain([1 << 127, u128::MAX])
        .collect();
    assert_the_same_number_or_none::<i128, i128>(&EDGES);
    assert_the_same_number_or_none::<i128, u128>(&EDGES);
    assert_the_same_number_or_none::<i128, i64>(&EDGES);
    assert_the_same_number_or_none::<i128, u64>(&EDGES);
    assert_the_same_number_or_none::<i128, i8>(&EDGES);
    assert_the_same_number_or_none::<u128, u128>(&unsigned);
    assert_the_same_number_or_none::<u128, i128>(&unsigned);
    assert_the_same_number_or_none::<u128, u64>(&unsigned);
    assert_the_same_number_or_none::<u128, i64>(&unsigned);
    assert_the_same_number_or_none::<u128, u8>(&unsigned);
    assert_the_same_number_or_none::<i64, u128>(&[i64::MIN, -1, 0, 1, i64::MAX]);
    assert_the_same_number_or_none::<i64, i128>(&[i64::MIN, -1, 0, 1, i64::MAX]);
    assert_the_same_number_or_none::<u64, u128>(&[0, 1, u64::MAX]);
    assert_the_same_number_or_none::<u64, i128>(&[0, 1, u64::MAX]);
}

#[test]
fn arrays_have_any_length_however_their_type_was_written() {
    let digits = Digits { value: std::array::from_fn(|n| n as u8) };
    for &codec in CODECS {
        assert_eq!(decode::<Digits>(codec, &encode(&digits, codec).unwrap()), Ok(digits.clone()));
    }
}

/// What MessagePack has no integer for, as `docs/PROTOCOL.md` says it.
#[test]
fn integers_of_more_than_64_bits_are_17_bytes() {
    let large = [&b"\xc4\x11\x00\x80"[..], &[0; 15]].concat();
    let small = [&b"\xc4\x11\xff\x80"[..], &[0; 15]].concat();
    assert_eq!(encode(&(1_u128 << 127), Codec::MESSAGEPACK).as_ref(), Ok(&large));
    assert_eq!(encode(&i128::MIN, Codec::MESSAGEPACK).as_ref(), Ok(&small));
    assert_eq!(encode(&7_u128, Codec::MESSAGEPACK).as_deref(), Ok(&b"\x07"[..]));
    assert_eq!(encode(&-1_i128, Codec::MESSAGEPACK).as_deref(), Ok(&b"\xff"[..]));
    // Sixteen bytes, as bytes or as an array, say no sign; a sign that is none, and one that does not fit.
    for wrong in [
        [&b"\xc4\x10"[..], &[1; 16]].concat(),
        [&b"\xdc\x00\x10"[..], &[1; 16]].concat(),
        [&b"\x9f"[..], &[1; 15]].concat(),
        [&b"\xc4\x11\x01"[..], &[1; 16]].concat(),
        [&b"\xc4\x11\xff\x01"[..], &[1; 15]].concat(),
        [&b"\xc4\x12\x00"[..], &[1; 17]].concat(),
        b"\xc4\x00".to_vec(),
        b"\xcb\x3f\xf0\0\0\0\0\0\0".to_vec(),
    ] {
        assert_eq!(decode::<u128>(Codec::MESSAGEPACK, &wrong), Err(Invalid), "{wrong:x?}");
        assert_eq!(decode::<i128>(Codec::MESSAGEPACK, &wrong), Err(Invalid), "{wrong:x?}");
    }
}

#[test]
fn bytes_of_other_languages_are_bytes() {
    assert_eq!(decode::<Vec<u8>>(Codec::MESSAGEPACK, b"\xc4\x03abc"), Ok(b"abc".to_vec()));
    assert_eq!(
        decode::<Vec<u8>>(Codec::MESSAGEPACK, b"\x93\x61\x62\xcc\xff"),
        Ok(b"ab\xff".to_vec())
    );
}

#[test]
fn no_body_is_no_argument() {
    for &codec in CODECS {
        assert_eq!(decode::<()>(codec, b""), Ok(()));
        assert_eq!(decode::<Option<u8>>(codec, b""), Ok(None));
        assert!(decode::<u8>(codec, b"").is_err());
    }
}

#[test]
fn codecs_that_nobody_has_are_errors() {
    for codec in [Codec(0), Codec(4), Codec(31), Codec::user(0), Codec(63), Codec(64), Codec(255)] {
        assert_eq!(decode::<u8>(codec, b"\x01"), Err(Invalid));
        assert!(matches!(encode(&1_u8, codec), Err(EncodeError::Codec(_))));
    }
}

thread_local! {
    static MADE: Cell<u32> = const { Cell::new(0) };
}

fn made() -> [u64; 16] {
    MADE.set(MADE.get() + 1);
    [0; 16]
}

/// A byte of MessagePack may stand for it.
#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Wide {
    #[serde(default = "made")]
    words: [u64; 16],
}

#[message(crate = self::ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Wides {
    list: Vec<Wide>,
}

/// Taking of it what there is room for takes milliseconds.
#[test]
fn a_list_that_says_it_is_too_long_is_refused_before_its_first_element() {
    let list = |count: u32| {
        let elements = b"\x80".repeat(count as usize);
        [&b"\x81\xa4list\xdd"[..], &count.to_be_bytes(), &elements].concat()
    };
    assert_eq!(decode::<Wides>(Codec::MESSAGEPACK, &list(1000)).unwrap().list.len(), 1000);
    assert_eq!(MADE.replace(0), 1000);
    assert!(decode::<Wides>(Codec::MESSAGEPACK, &list(1 << 20)).is_err());
    assert_eq!(MADE.get(), 0);
}
