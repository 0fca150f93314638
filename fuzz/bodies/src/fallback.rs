//! Bodies in MessagePack and JSON: an error, or a value that is the same in every codec.

use std::fmt;

use ringcall_buf::{Pool, SharedChunk, SharedPool};
use ringcall_codec_rkyv::{Archivable, Form, Message, View, WithAttachment};
use ringcall_core::{Attached, Codec};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    id: u128,
    side: Side,
    price: Option<i64>,
    symbol: String,
    digits: [u16; 3],
    legs: Vec<Order>,
    #[serde(default)]
    tags: Vec<Label>,
    bytes: Vec<u8>,
    parent: Option<Box<Order>>,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
enum Side {
    Buy,
    Sell(bool),
    Swap { grade: char, with: Option<Label> },
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Label(u8);

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Chain(Option<Box<Chain>>);

/// A label of before.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct OldTag(String, Option<u32>);

#[ringcall::message(also = OldTag)]
#[derive(Clone, Debug, PartialEq)]
struct Tag {
    text: String,
    number: u64,
}

impl From<OldTag> for Tag {
    fn from(OldTag(text, number): OldTag) -> Tag {
        Tag { text, number: number.map_or(0, u64::from) }
    }
}

/// The first byte says which type and which codec.
pub fn fallback(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let codec = if choice & 1 == 0 { Codec::MESSAGEPACK } else { Codec::JSON };
    match choice >> 1 & 3 {
        0 | 1 => read::<Order>(codec, body),
        2 => read::<Chain>(codec, body),
        _ if choice & 8 != 0 => read_previous(body),
        _ => read::<Vec<Label>>(codec, body),
    }
}

/// An archive of the type of before is what the type makes of it, and nothing else is.
fn read_previous(body: &[u8]) {
    let pool = SharedPool::new(0);
    let mut writer = pool.writer(1 << 24);
    writer.put(body).expect("it is short enough");
    let (body, _) = pool.finish(writer);
    let decode = Tag::previous().first().expect("it has one").decode;
    let tag = decode(&body).ok();
    let old = OldTag::receive::<SharedChunk>(body).ok();
    assert_eq!(tag, old.map(|old| OldTag::into_owned_shared(old).into()));
}

fn read<M>(codec: Codec, body: &[u8])
where
    M: Archivable + Message<Received<SharedChunk> = View<M, SharedChunk>> + PartialEq + fmt::Debug,
{
    let form = Form::of_codec(codec);
    read_attached::<M>(form, body);
    let Ok(value) = M::decode_as(form, body) else {
        assert!(M::receive_as::<SharedChunk>(form, body).is_err(), "a view of what is no value");
        return;
    };
    for codec in [Codec::MESSAGEPACK, Codec::JSON] {
        // Refused if a reader would take it for something else.
        let Some(said) = encode(&value, Form::of_codec(codec)) else { continue };
        let again = M::decode_as(Form::of_codec(codec), &said);
        assert_eq!(again.as_ref(), Ok(&value), "what was written is read");
    }
    // Too deep for an archive, perhaps.
    if let Ok(view) = M::receive_as::<SharedChunk>(form, body) {
        assert_eq!(view.to_owned(), value, "a view is of the value");
    }
}

/// Bytes beside the message change nothing about it, whatever their length is said to be.
fn read_attached<M: Message + PartialEq + fmt::Debug>(form: Form, body: &[u8]) {
    const BESIDE: &[u8] = b"beside it";
    let alone = M::decode_as(form, body);
    let both = || Pool::new(0).copy(&[body, BESIDE].concat());
    let attached = Attached::InBody(BESIDE.len());
    assert_eq!(M::decode_as_with(form, both(), attached), alone);
    let with = WithAttachment::<M>::decode_as_with(form, both(), attached);
    assert_eq!(
        with.as_ref().map(|with| with.attachment.bytes()).ok(),
        alone.as_ref().ok().map(|_| Some(BESIDE))
    );
    assert_eq!(with.map(|with| with.message), alone);
    let lie = WithAttachment::<M>::decode_as_with(form, both(), Attached::InBody(usize::MAX));
    assert_eq!(lie.is_ok(), M::decode_as(form, &[]).is_ok());
    let bare = WithAttachment::<M>::decode_as(form, body);
    assert_eq!(bare.map(|with| with.message), alone);
}

fn encode<M: Message>(value: &M, form: Form) -> Option<Vec<u8>> {
    let pool = SharedPool::new(0);
    let mut writer = pool.writer(1 << 24);
    value.encode_as(form, &mut writer).ok()?;
    Some(pool.finish(writer).0.to_vec())
}
