//! Layouts that a type had before, also of a message with something beside it.

use std::convert::Infallible;

use ringcall_buf::{Chunk, SharedPool};
use ringcall_codec_rkyv::{
    Attachment, Form, FromBody, Message, Previously, ReceivedAttachment, Signatures, View,
    WithAttachment,
};
use ringcall_core::Attached;
use ringcall_macros::message;

/// Where the macro looks.
mod ringcall {
    pub(crate) mod __private {
        pub(crate) use ringcall_codec_rkyv as codec;
    }
}

mod v1 {
    use super::{message, ringcall};

    #[message(crate = self::ringcall)]
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Range {
        pub(crate) offset: u32,
    }
}

#[message(crate = self::ringcall, also_written = v1::Range)]
#[derive(Clone, Debug, PartialEq)]
struct Range {
    offset: u64,
    note: Option<String>,
}

impl From<v1::Range> for Range {
    fn from(old: v1::Range) -> Range {
        Range { offset: old.offset.into(), note: None }
    }
}

impl From<&Range> for v1::Range {
    fn from(new: &Range) -> v1::Range {
        v1::Range { offset: new.offset as u32 }
    }
}

type Beside = WithAttachment<Range>;

/// The layouts of before of an argument and of a reply, and those of the items of either.
fn previously<M: Message>() -> [Vec<Previously>; 4] {
    let plain = Signatures::of::<M, M, Infallible>();
    let items = Some(ringcall_codec_rkyv::ItemShape::of::<M>());
    let streams = Signatures::with_items::<(), (), Infallible>(items, items);
    [plain.previously_in, plain.previously_out, streams.previously_in, streams.previously_out]
}

fn encode<M: Message>(message: &M, form: Form) -> (Chunk, Option<Vec<u8>>) {
    let pool = SharedPool::new(4096);
    let mut writer = pool.writer(1 << 20);
    match form == Form::PLAIN {
        true => message.encode(&mut writer).unwrap(),
        false => message.encode_as(form, &mut writer).unwrap(),
    }
    let (body, beside) = pool.finish(writer);
    let beside = beside.map(|beside| match ringcall_buf::Segment::from(beside).as_slice() {
        Some(bytes) => bytes.to_vec(),
        None => Vec::new(),
    });
    (body.into(), beside)
}

#[test]
fn a_message_has_the_same_layouts_with_something_beside_it() {
    let alone = previously::<Range>();
    assert_eq!(alone.each_ref().map(Vec::len), [1, 1, 1, 1]);
    let old = Signatures::of::<v1::Range, v1::Range, Infallible>();
    assert_eq!(alone[0][0].signature, old.in_signature);
    assert_eq!(alone[1][0].signature, old.out_signature);
    assert_eq!(previously::<Beside>(), alone);
}

#[test]
fn a_message_of_before_is_read_with_what_is_beside_it() {
    let form = previously::<Beside>()[0][0].forms[0];
    let (old, _) = encode(&v1::Range { offset: 7 }, Form::PLAIN);
    let body = || ringcall_buf::Pool::new(0).copy(&[&old[..], b"beside"].concat());
    let attached = Attached::InBody(6);
    let new = Range { offset: 7, note: None };

    let owned = Beside::from_other(form, body(), attached).unwrap();
    assert_eq!(owned.attachment.bytes(), Some(&b"beside"[..]));
    assert_eq!(owned.message, new);
    type Viewed = WithAttachment<View<Range>, ReceivedAttachment>;
    let viewed = Viewed::from_other(form, body(), attached).unwrap();
    assert_eq!(viewed.attachment.bytes(), b"beside");
    assert_eq!(viewed.message.to_owned(), new);
}

#[test]
fn a_message_is_written_as_before_with_what_is_beside_it() {
    let form = previously::<Beside>()[1][0].forms[0];
    let new = Range { offset: 7, note: Some("lost".to_owned()) };
    let beside = Attachment::from(bytes::Bytes::from_static(b"beside"));
    let (body, attached) = encode(&WithAttachment::new(new, beside), form);
    assert_eq!(attached.as_deref(), Some(&b"beside"[..]));
    assert_eq!(View::<v1::Range>::new(body).unwrap().to_owned(), v1::Range { offset: 7 });
}
