//! Archives that somebody has tampered with, and every way to read what is still one.

mod types;

use std::fmt::{self, Debug, Write};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ringcall_buf::{Pool, SharedPool};
use ringcall_codec_rkyv::{FromBody, Message, ReceivedAttachment, View, WithAttachment};
use ringcall_core::{Attached, SharedChunk};

use types::{Case, Kinds, Leaves, List, Nested, Order, Tree};

/// Takes the bytes as an archive, or makes a value and its archive out of them, and damages that.
///
/// # Panics
/// When a sound archive is not read as what was written, a damaged one can be read in one way and not in
/// another, or more comes of it than was sent.
pub fn views(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let is_archive = which & 0x80 == 0;
    match which & 7 {
        0 | 1 => view::<Order>(is_archive, data),
        2 => view::<Tree>(is_archive, data),
        3 => view::<List>(is_archive, data),
        4 => view::<Nested>(is_archive, data),
        5 => view::<Kinds>(is_archive, data),
        _ => view::<Leaves>(is_archive, data),
    }
}

fn view<T: Case>(is_archive: bool, data: &[u8]) {
    if is_archive {
        touch::<T>(data);
    } else {
        tampered::<T>(data);
    }
}

/// Archives deeper than this may be refused.
const SURELY_READ: usize = 60;

fn tampered<T: Case>(data: &[u8]) {
    let Some((&len, data)) = data.split_first() else { return };
    let (value, damage) = data.split_at(data.len().min(usize::from(len) * 2));
    let Ok(value) = T::arbitrary(&mut Unstructured::new(value)) else { return };
    let mut body = encode(&value);
    let read = touch::<T>(&body);
    assert!(read.is_some() || value.nesting() > SURELY_READ, "a sound archive is refused");
    assert!(read.is_none_or(|read| encode(&read) == body), "something else was read");
    let mut damage = Unstructured::new(damage);
    let mut steps = 0;
    while steps < 8 && !damage.is_empty() && tamper(&mut body, &mut damage).is_ok() {
        touch::<T>(&body);
        steps += 1;
    }
}

/// Lengths and offsets at which something ends.
const EDGES: [u32; 8] =
    [0, 1, u32::MAX, i32::MAX as u32, i32::MIN as u32, 1 << 30, (1 << 30) - 1, 0xd800];

fn tamper(body: &mut Vec<u8>, damage: &mut Unstructured<'_>) -> Result<()> {
    let (how, at) = (damage.arbitrary::<u8>()?, usize::from(damage.arbitrary::<u16>()?));
    let Some(at) = at.checked_rem(body.len()) else { return Ok(()) };
    // Lengths and offsets are at multiples of four.
    let word = at / 4 * 4;
    let last = (body.len() / 4).saturating_sub(1) * 4;
    match how % 6 {
        0 => body[at] ^= 1 << (how >> 5),
        1 => body[at] = damage.arbitrary()?,
        2 => body.truncate(at),
        _ if body.len() < 4 => {}
        3 => put(body, word, *damage.choose(&EDGES)?),
        // A little nearer or farther.
        4 => put(body, word, i32::from(damage.arbitrary::<i8>()?) as u32),
        // What is somewhere else: overlaps and cycles.
        _ => {
            let from = usize::from(damage.arbitrary::<u16>()?) % (last / 4 + 1) * 4;
            body.copy_within(from..from + 4, word.min(last));
        }
    }
    Ok(())
}

fn put(body: &mut [u8], at: usize, word: u32) {
    if let Some(place) = body.get_mut(at..at + 4) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// Reads all there is in every way, if it is something.
fn touch<T: Case>(body: &[u8]) -> Option<T> {
    // In memory of its own and of its size, so that a sanitizer sees who reads behind it.
    let view = View::<T, Bytes>::new(Bytes::from(Box::from(body))).ok();
    let landed = Pool::new(0).copy(body);
    let here = View::<T>::new(landed.clone()).ok();
    let owned = T::from_body(landed.clone()).ok();
    let shared = T::receive(landed.share()).is_ok();
    assert!(view.is_some() == here.is_some() && here.is_some() == owned.is_some());
    assert_eq!(shared, here.is_some());
    touch_attached::<T>(body, here.is_some());
    let (view, here, owned) = (view?, here?, owned?);

    let read = T::read(&view);
    let expected = encode(&read);
    assert_eq!(encode(&owned), expected, "an owned argument");
    assert_eq!(encode(&view.to_owned()), expected, "an owned view");
    assert_eq!(encode(&T::read(&here.share())), expected, "a shared view");
    assert_eq!(encode(&T::read(&here.detach(&Pool::new(0)))), expected, "a detached view");
    assert_eq!(here.clone().as_bytes(), body);
    let length = debug_len(&view);
    assert!(length <= 1000 + 64 * body.len(), "{length} of {} bytes", body.len());
    Some(read)
}

/// The same with bytes beside the message, of whatever length somebody says.
fn touch_attached<T: Case>(body: &[u8], is_sound: bool) {
    const BESIDE: &[u8] = b"beside it";
    let both = [body, BESIDE].concat();
    let all = || Pool::new(0).copy(&both);
    let attached = Attached::InBody(BESIDE.len());
    let view = WithAttachment::<View<T>, ReceivedAttachment>::from_body_with(all(), attached);
    let shared =
        WithAttachment::<View<T, SharedChunk>, ReceivedAttachment<SharedChunk>>::from_body_with(
            all(),
            attached,
        );
    let owned = WithAttachment::<T>::from_body_with(all(), attached);
    assert_eq!((view.is_ok(), shared.is_ok(), owned.is_ok()), (is_sound, is_sound, is_sound));
    assert!(view.is_ok_and(|with| with.attachment.bytes() == BESIDE) || !is_sound);
    assert!(owned.is_ok_and(|with| with.attachment.bytes() == Some(BESIDE)) || !is_sound);
    // More than there is leaves nothing for the message.
    let lie = Attached::InBody(usize::MAX);
    let nothing = T::from_body(Pool::new(0).copy(&[])).is_ok();
    assert_eq!(WithAttachment::<T>::from_body_with(all(), lie).is_ok(), nothing);
}

fn encode<M: Message>(value: &M) -> Vec<u8> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(1 << 24);
    value.encode(&mut out).expect("it fits");
    pool.finish(out).0.to_vec()
}

/// Formats a view, throws the text away, and tells how long it was.
fn debug_len(view: &impl Debug) -> usize {
    struct Length(usize);

    impl Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }

    let mut length = Length(0);
    write!(length, "{view:?}").expect("counting does not fail");
    length.0
}
