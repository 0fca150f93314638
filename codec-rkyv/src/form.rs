//! Bodies in another form than their type's own: in a codec with names, or in a layout that the type had
//! before.

use core::fmt;

use ringcall_buf::{Frozen, SharedChunk};
use ringcall_core::{Codec, EncodeError, Payload, Writer};

use crate::archive::{Archivable, Invalid, check, deserialize, encode};
use crate::encoded::in_arena;
use crate::message::guarded;
use crate::{Message, Shape, View};

/// The form of a body, seen from the type that its reader has. A byte, since every call carries some.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Form(u8);

/// Numbers from here on are codecs.
const CODECS: u8 = 128;

impl Form {
    /// The type's own codec and layout.
    pub const PLAIN: Form = Form(0);

    /// Another codec. Those that HELLO cannot name are taken for one that nobody has.
    #[must_use]
    pub const fn of_codec(codec: Codec) -> Form {
        Form(CODECS | if codec.0 < 64 { codec.0 } else { 127 })
    }

    /// A layout that the type had before, by its place in [`Message::previous`].
    #[must_use]
    pub(crate) const fn of_previous(index: usize) -> Form {
        // `#[message]` takes no more than that.
        Form(if index < PREVIOUS_MAX { index as u8 + 1 } else { CODECS | 127 })
    }

    /// The codec, if it is not the type's own.
    #[must_use]
    pub const fn codec(self) -> Option<Codec> {
        if self.0 < CODECS { None } else { Some(Codec(self.0 & 127)) }
    }

    fn previous<M: Message>(self) -> Option<&'static Previous<M>> {
        if self.0 >= CODECS { None } else { M::previous().get(usize::from(self.0).checked_sub(1)?) }
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.codec()) {
            (_, Some(codec)) => fmt::Debug::fmt(&codec, f),
            (0, None) => f.write_str("Plain"),
            (number, None) => write!(f, "Previous({})", number - 1),
        }
    }
}

/// How many layouts of before a type may have.
pub(crate) const PREVIOUS_MAX: usize = 8;

/// A layout that a type had before.
#[doc(hidden)]
pub struct Previous<M> {
    pub describe: fn(&mut Shape),
    /// Reads it, and makes of it what the type is now.
    pub decode: fn(&[u8]) -> Result<M, Invalid>,
    /// Writes it, if there is a way back.
    pub encode: Option<EncodePrevious<M>>,
}

/// Writes a message in a layout of before.
type EncodePrevious<M> = fn(&M, &mut Writer) -> Result<(), EncodeError>;

impl<M> fmt::Debug for Previous<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous").field("has_encode", &self.encode.is_some()).finish()
    }
}

#[doc(hidden)]
pub fn decode_previous<V: Archivable, M: From<V>>(body: &[u8]) -> Result<M, Invalid> {
    decode_archive::<V>(body).map(M::from)
}

#[doc(hidden)]
pub fn encode_previous<M, V: Archivable + for<'a> From<&'a M>>(
    message: &M,
    out: &mut Writer,
) -> Result<(), EncodeError> {
    encode(&V::from(message), out)
}

fn decode_archive<T: Archivable>(body: &[u8]) -> Result<T, Invalid> {
    deserialize(check::<T>(body)?)
}

#[doc(hidden)]
pub fn encode_as<M: Message>(
    message: &M,
    form: Form,
    out: &mut Writer,
    named: fn(&M, Codec, &mut Writer) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    match (form.codec(), form.previous::<M>().and_then(|previous| previous.encode)) {
        (Some(codec), _) => named(message, codec, out),
        (None, Some(encode)) => encode(message, out),
        (None, None) => Err(EncodeError::Codec(M::CODEC)),
    }
}

#[doc(hidden)]
pub fn decode_as<M: Message>(
    form: Form,
    body: &[u8],
    named: fn(Codec, &[u8]) -> Result<M, Invalid>,
) -> Result<M, Invalid> {
    match (form.codec(), form.previous::<M>()) {
        (Some(codec), _) => named(codec, body),
        (None, Some(previous)) => (previous.decode)(body),
        (None, None) => Err(Invalid),
    }
}

/// One way for whoever reads: what came in another form is archived, and then read in place like the rest.
#[doc(hidden)]
pub fn receive_as<T, B>(form: Form, body: &[u8]) -> Result<View<T, B>, Invalid>
where
    T: Archivable + Message,
    B: Frozen + From<SharedChunk>,
{
    view_of(&T::decode_as(form, body)?)
}

pub(crate) fn view_of<T, B>(message: &T) -> Result<View<T, B>, Invalid>
where
    T: Archivable,
    B: Frozen + From<SharedChunk>,
{
    View::new(written(|out| encode(message, out))?.into())
}

/// Reads a body that this side has encoded itself, in the type's own form.
pub(crate) fn decode_own<M: Message>(body: &[u8]) -> Result<M, Invalid> {
    let body = written(|out| Ok(out.put(body)?))?;
    M::receive::<SharedChunk>(body).map(M::into_owned_shared)
}

/// A body that this side writes for itself.
fn written(
    write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
) -> Result<SharedChunk, Invalid> {
    in_arena(write).map(|body| body.share()).map_err(|_| Invalid)
}

/// A message as core's payload, in any form.
pub struct Formed<'a, M>(pub &'a M, pub Form);

impl<M> fmt::Debug for Formed<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Formed").field(&self.1).finish_non_exhaustive()
    }
}

impl<M: Message> Payload for Formed<'_, M> {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        // Raw bodies and codecs of users have no other form.
        guarded(|| match self.1 == Form::PLAIN {
            true => self.0.encode(out),
            false => self.0.encode_as(self.1, out),
        })
    }
}
