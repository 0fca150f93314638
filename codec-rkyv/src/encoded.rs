//! Messages that are encoded already.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use ringcall_buf::{Arena, Chunk, Frozen, Pool, Segment, SharedChunk};
use ringcall_core::{Codec, EncodeError, REFERENCE_BYTES_MIN, Writer};

use crate::archive::write;
use crate::encode_as::As;
use crate::{Archivable, EncodeAs, Form, Invalid, Layout, Message, Shape, View};

/// A message that is encoded already: a reply that a handler makes of what it need not own, or one that is encoded
/// once and sent many times.
///
/// A handler returns it in place of the message, and callers notice no difference. It is a handle: cloning counts. Handles of
/// a [`Chunk`] stay on their thread; [`share`](Encoded::share) makes one for others. From 16 KiB on it is sent from where it is,
/// below that it is copied once more, which costs less than one allocation does.
///
/// ```
/// use ringcall_codec_rkyv::{Encoded, each};
///
/// let words: Encoded<Vec<String>> = Encoded::of(&["one", "two"]);
/// let same: Encoded<Vec<String>> = Encoded::of(&each("one two".as_bytes().chunks(4).map(|word| {
///     std::str::from_utf8(word).unwrap_or_default().trim()
/// })));
/// assert_eq!(format!("{words:?}"), format!("{same:?}"));
/// ```
///
/// Of a message that has fields `#[message(borrowed)]` makes a form to fill in: `docs/MESSAGES.md` shows it.
pub struct Encoded<T: Archivable, B: Frozen = Chunk>(EncodedMessage<T, B>);

/// One that may go to other threads.
pub type SharedEncoded<T> = Encoded<T, SharedChunk>;

impl<T: Archivable + Message> Encoded<T, Chunk> {
    /// Encodes a value that [stands for](EncodeAs) a `T`, into memory of this thread, which is used again. Short ones that are
    /// encoded one after the other share a block of 16 KiB, and long ones have blocks of up to four times their length: to keep
    /// one for long, [`detach`](Encoded::detach) it.
    ///
    /// If it cannot be encoded whoever sends it is told so, as of a message.
    #[must_use]
    pub fn of(value: &(impl EncodeAs<T> + ?Sized)) -> Encoded<T> {
        let body = in_arena(|out| write::<T, _>(&As::<T, _>::new(value), out));
        Encoded(EncodedMessage::of(body))
    }

    /// The same message in memory of its own, of less than twice its size, so that keeping it keeps nothing else.
    #[must_use]
    pub fn detach(&self) -> Encoded<T> {
        let body = self.0.body.as_ref().map(|body| Pool::new(0).copy(body));
        Encoded(EncodedMessage::of(body.map_err(|error| *error)))
    }

    /// The same message for other threads. Counts, does not copy.
    #[must_use]
    pub fn share(&self) -> SharedEncoded<T> {
        let body = self.0.body.as_ref().map(Chunk::share);
        Encoded(EncodedMessage::of(body.map_err(|error| *error)))
    }
}

impl<T: Archivable, B: Frozen> Encoded<T, B> {
    #[doc(hidden)]
    pub fn as_message(&self) -> &EncodedMessage<T, B> {
        &self.0
    }

    pub(crate) fn into_message(self) -> EncodedMessage<T, B> {
        self.0
    }
}

impl<T: Archivable, B: Frozen + Clone> Clone for Encoded<T, B> {
    fn clone(&self) -> Encoded<T, B> {
        Encoded(EncodedMessage::of(self.0.body.clone()))
    }
}

impl<T: Archivable, B: Frozen> fmt::Debug for Encoded<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.body {
            Ok(body) => write!(f, "Encoded({} bytes)", body.as_ref().len()),
            Err(error) => write!(f, "Encoded({error})"),
        }
    }
}

/// A message that was received, to be sent on.
impl<T: Archivable, B: Frozen> From<View<T, B>> for Encoded<T, B> {
    fn from(view: View<T, B>) -> Encoded<T, B> {
        Encoded(view.into())
    }
}

/// Of short ones, which share them.
const BLOCK_BYTES: usize = 16 * 1024;
/// Free blocks of a thread's, for larger ones.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// More than any message that is sent.
const BYTES_MAX: usize = 1 << 30;

/// A body in memory of this thread's.
pub(crate) fn in_arena(
    encode: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<Chunk, EncodeError> {
    thread_local! {
        static ARENA: Cell<Option<Arena>> = const { Cell::new(None) };
    }

    let new = || Arena::new(&Pool::new(KEPT_BYTES_MAX), BLOCK_BYTES);
    // Not borrowed: what is being encoded may encode something itself. A thread that ends has none any more.
    let mut arena = ARENA.try_with(Cell::take).ok().flatten().unwrap_or_else(new);
    let encoded = arena.begin(0, BYTES_MAX).in_one_part(encode).map(|()| arena.finish());
    // What was written of one that failed is not kept, however long it was.
    if encoded.is_ok() {
        let _ = ARENA.try_with(|kept| kept.set(Some(arena)));
    }
    encoded
}

/// An archive as a message to send: it goes out as it is. Whoever receives it gets an ordinary view.
#[doc(hidden)]
pub struct EncodedMessage<T: Archivable, B: Frozen> {
    /// Or why there is none.
    body: Result<B, EncodeError>,
    message: PhantomData<fn() -> T>,
}

impl<T: Archivable, B: Frozen> EncodedMessage<T, B> {
    #[inline]
    fn of(body: Result<B, EncodeError>) -> EncodedMessage<T, B> {
        EncodedMessage { body, message: PhantomData }
    }
}

impl<T: Archivable, B: Frozen> From<View<T, B>> for EncodedMessage<T, B> {
    #[inline]
    fn from(view: View<T, B>) -> EncodedMessage<T, B> {
        EncodedMessage::of(Ok(view.into_body()))
    }
}

impl<T: Archivable, B: Frozen> fmt::Debug for EncodedMessage<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedMessage").finish_non_exhaustive()
    }
}

impl<T, B> Message for EncodedMessage<T, B>
where
    T: Archivable + Message,
    B: Frozen + Clone + Into<Segment> + From<Chunk> + From<SharedChunk>,
{
    type Received<R: Frozen> = View<T, R>;

    const CODEC: Codec = {
        assert!(
            T::CODEC.0 == Codec::RKYV.0,
            "`Bytes` are sent as they are: return them, and take them, without `Encoded`"
        );
        Codec::RKYV
    };

    fn describe(shape: &mut Shape) {
        <T as Message>::describe(shape);
    }

    fn layouts() -> Vec<Layout> {
        T::layouts()
    }

    #[inline]
    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        let body = self.body.as_ref().map_err(|error| *error)?;
        match body.as_ref().len() >= REFERENCE_BYTES_MIN {
            true => Ok(out.attach(body.clone().into())?),
            false => Ok(out.put(body.as_ref())?),
        }
    }

    fn encode_as(&self, form: Form, out: &mut Writer) -> Result<(), EncodeError> {
        let body = self.body.as_ref().map_err(|error| *error)?;
        let view = View::<T, B>::new(body.clone()).map_err(|Invalid| EncodeError::Failed)?;
        view.to_owned().encode_as(form, out)
    }

    fn receive<R: Frozen>(body: R) -> Result<View<T, R>, Invalid> {
        View::new(body)
    }

    fn into_owned(received: View<T, Chunk>) -> EncodedMessage<T, B> {
        EncodedMessage::of(Ok(B::from(received.into_body())))
    }

    fn into_owned_shared(received: View<T, SharedChunk>) -> EncodedMessage<T, B> {
        EncodedMessage::of(Ok(B::from(received.into_body())))
    }
}
