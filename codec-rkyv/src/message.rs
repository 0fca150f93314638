//! What a method takes, returns and fails with.

use core::convert::Infallible;
use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use ringcall_buf::{Chunk, Frozen, SharedChunk};
use ringcall_core::{Attached, Codec, EncodeError, Failure, Payload, Refusal, Transcode, Writer};

use crate::archive::{Archivable, IS_BIG_ENDIAN, Invalid, encode};
use crate::encoded::EncodedMessage;
use crate::form;
use crate::{Encoded, Form, Layout, Named, Previous, Shape, View, WireType};

/// Something that a body can hold: the argument, the reply or the error of a method.
///
/// `#[message]` types are; so are primitives, strings, vectors, options and tuples of them, and `()`.
/// [`Bytes`] is the raw body: bytes as they are, without a codec.
///
/// # Codecs of your own
///
/// Implement it for a type that another library encodes: its [`CODEC`](Message::CODEC) is one of the numbers
/// that are left for users ([`Codec::user`]), what its receiver gets
/// ([`Received`](Message::Received)) usually the type itself, and what it
/// [describes](Message::describe) a name that changes only when the two sides cannot understand each other any
/// more. `examples/prost_codec.rs` does it for all messages of `prost`, in 40 lines. Such bodies
/// are not translated into other codecs, and whoever speaks none of these is refused.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "cannot be an argument, a reply or an error of a method",
    note = "put `#[ringcall::message]` on the type",
    note = "what is about the call rather than in it is taken by reference: `&Context`"
)]
pub trait Message: Sized + 'static {
    /// What a receiver gets: a [`View`], or for raw bodies the bytes.
    type Received<B: Frozen>;

    /// How it is encoded.
    const CODEC: Codec;
    /// Whether it is bytes as they are.
    #[doc(hidden)]
    const IS_RAW: bool = false;
    /// Whether there is no value of it.
    #[doc(hidden)]
    const IS_NEVER: bool = false;

    /// Appends the description of the type to the text that signatures are made of, see [`Shape::opaque`].
    fn describe(shape: &mut Shape);

    /// Layouts that this type had before, see `#[message(also = V1)]`.
    #[doc(hidden)]
    fn previous() -> &'static [Previous<Self>] {
        &[]
    }

    /// Its layout, and those that it had before.
    #[doc(hidden)]
    fn layouts() -> Vec<Layout> {
        Layout::all_of::<Self>()
    }

    /// Appends the body to a frame.
    ///
    /// # Errors
    /// When it does not fit.
    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError>;

    /// Checks a received body.
    ///
    /// # Errors
    /// [`Invalid`] when it is not of this type.
    fn receive<B: Frozen>(body: B) -> Result<Self::Received<B>, Invalid>;

    /// Appends the body in another form than its own.
    ///
    /// # Errors
    /// When it does not fit, or the type has no such form.
    #[doc(hidden)]
    fn encode_as(&self, form: Form, _: &mut Writer) -> Result<(), EncodeError> {
        Err(EncodeError::Codec(form.codec().unwrap_or(Self::CODEC)))
    }

    /// Reads a body in another form than its own.
    ///
    /// # Errors
    /// [`Invalid`] when it is not that, or the type has no such form.
    #[doc(hidden)]
    fn decode_as(_: Form, _: &[u8]) -> Result<Self, Invalid> {
        Err(Invalid)
    }

    /// The same of a body, of which a part may lie beside the message.
    ///
    /// # Errors
    /// As for [`decode_as`](Message::decode_as).
    #[doc(hidden)]
    fn decode_as_with(form: Form, mut body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        drop(attached.split(&mut body));
        Self::decode_as(form, &body)
    }

    /// Reads a body in another form than its own, and makes of it what a receiver gets.
    ///
    /// # Errors
    /// As for [`decode_as`](Message::decode_as).
    #[doc(hidden)]
    fn receive_as<B: Frozen + From<SharedChunk>>(
        _: Form,
        _: &[u8],
    ) -> Result<Self::Received<B>, Invalid> {
        Err(Invalid)
    }

    /// The same of a body, of which a part may lie beside the message.
    ///
    /// # Errors
    /// As for [`decode_as`](Message::decode_as).
    #[doc(hidden)]
    fn receive_as_with<B: Frozen + From<SharedChunk>>(
        form: Form,
        mut body: B,
        attached: Attached,
    ) -> Result<Self::Received<B>, Invalid> {
        drop(attached.split(&mut body));
        Self::receive_as(form, body.as_ref())
    }

    /// Checks a body, of which a part may lie beside the message: that is let go, unless the type is
    /// [`WithAttachment`](crate::WithAttachment).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[inline(always)]
    fn receive_with<B: Frozen>(
        mut body: B,
        attached: Attached,
    ) -> Result<Self::Received<B>, Invalid> {
        drop(attached.split(&mut body));
        Self::receive(body)
    }

    /// Makes an owned value of a received one.
    fn into_owned(received: Self::Received<Chunk>) -> Self;

    /// The same for a body that has left its thread.
    fn into_owned_shared(received: Self::Received<SharedChunk>) -> Self;
}

/// Implements [`Message`] for types that are archived.
#[doc(hidden)]
#[macro_export]
macro_rules! impl_message {
    ([$($generics:tt)*] $type:ty $(where [$($bounds:tt)*])? $([also $previous:expr])?) => {
        $crate::impl_message! {
            @[$($generics)*] $type where [$type: $crate::Named, $($($bounds)*)?]
            $crate::__private::encode_named, $crate::__private::decode_named
            $(, $previous)?
        }
    };
    // Names of generic parameters are not hygienic: whoever has a type `B` must not meet another one here.
    (
        @[$($generics:tt)*] $type:ty where [$($bounds:tt)*]
        $encode:path, $decode:path $(, $previous:expr)?
    ) => {
        $crate::impl_message! {
            @[$($generics)*] $type where [$($bounds)*]
            $encode, $decode => $crate::__private::encode $(, $previous)?
        }
    };
    (
        @[$($generics:tt)*] $type:ty where [$($bounds:tt)*]
        $encode:path, $decode:path => $write:expr $(, $previous:expr)?
    ) => {
        impl<$($generics)*> $crate::Message for $type
        where
            $type: $crate::Archivable,
            $($bounds)*
        {
            type Received<__Body: $crate::__private::Frozen> = $crate::View<$type, __Body>;

            const CODEC: $crate::__private::Codec = $crate::__private::Codec::RKYV;

            fn describe(shape: &mut $crate::Shape) {
                <$type as $crate::WireType>::describe(shape);
            }

            #[inline(always)]
            fn encode(
                &self,
                out: &mut $crate::__private::Writer,
            ) -> ::core::result::Result<(), $crate::__private::EncodeError> {
                ::core::result::Result::map_err(($write)(self, out), ::core::convert::Into::into)
            }

            #[inline]
            fn receive<__Body: $crate::__private::Frozen>(
                body: __Body,
            ) -> ::core::result::Result<$crate::View<$type, __Body>, $crate::Invalid> {
                $crate::View::new(body)
            }

            $(fn previous() -> &'static [$crate::Previous<$type>] {
                $previous
            })?

            fn encode_as(
                &self,
                form: $crate::Form,
                out: &mut $crate::__private::Writer,
            ) -> ::core::result::Result<(), $crate::__private::EncodeError> {
                $crate::__private::encode_as(self, form, out, $encode)
            }

            fn decode_as(
                form: $crate::Form,
                body: &[u8],
            ) -> ::core::result::Result<$type, $crate::Invalid> {
                $crate::__private::decode_as(form, body, $decode)
            }

            fn receive_as<__Body>(
                form: $crate::Form,
                body: &[u8],
            ) -> ::core::result::Result<$crate::View<$type, __Body>, $crate::Invalid>
            where
                __Body: $crate::__private::Frozen
                    + ::core::convert::From<$crate::__private::SharedChunk>,
            {
                $crate::__private::receive_as(form, body)
            }

            fn into_owned(
                received: $crate::View<$type, $crate::__private::Chunk>,
            ) -> $type {
                received.to_owned()
            }

            fn into_owned_shared(
                received: $crate::View<$type, $crate::__private::SharedChunk>,
            ) -> $type {
                received.to_owned()
            }
        }

        impl<$($generics)*> $crate::Inhabited for $type where $($bounds)* {}
    };
}

macro_rules! messages {
    ($($type:ty)*) => { $(impl_message!([] $type);)* };
}

messages! {
    () bool char u128 i128 String
    core::time::Duration core::net::IpAddr core::net::SocketAddr
}

/// Numbers that are all of a message: an encoder would do the same in three times as many steps.
macro_rules! numbers {
    ($($type:ty)*) => {$(
        impl_message! {
            @[] $type where [$type: $crate::Named,]
            $crate::__private::encode_named, $crate::__private::decode_named => |number: &$type, out: &mut Writer| out.put(&match IS_BIG_ENDIAN {
                true => number.to_be_bytes(),
                false => number.to_le_bytes(),
            })
        }
    )*};
}

numbers! { u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 }

#[cfg(feature = "smol_str")]
messages! { smol_str::SmolStr }

#[cfg(feature = "uuid")]
messages! { uuid::Uuid }

impl_message!([T: WireType] Vec<T>);
impl_message!([T: WireType] Option<T>);
impl_message!([T: WireType] Box<T>);
// serde knows arrays of up to 32 elements.
impl_message! {
    @[T: WireType, const N: usize] [T; N] where [T: Named,]
    crate::__private::encode_array, crate::__private::decode_array
}
impl_message!([A: WireType] (A,));
impl_message!([A: WireType, B: WireType] (A, B));
impl_message!([A: WireType, B: WireType, C: WireType] (A, B, C));
impl_message!([A: WireType, B: WireType, C: WireType, D: WireType] (A, B, C, D));

impl Message for Bytes {
    type Received<B: Frozen> = B;

    const CODEC: Codec = Codec::RAW;
    const IS_RAW: bool = true;

    fn describe(shape: &mut Shape) {
        shape.raw("raw");
    }

    #[inline]
    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        Payload::encode(self, Codec::RAW, 0, out)
    }

    #[inline]
    fn receive<B: Frozen>(body: B) -> Result<B, Invalid> {
        Ok(body)
    }

    fn into_owned(received: Chunk) -> Bytes {
        received.share().into()
    }

    fn into_owned_shared(received: SharedChunk) -> Bytes {
        received.into()
    }
}

impl Inhabited for Bytes {}

/// The error of a method that has none.
impl Message for Infallible {
    type Received<B: Frozen> = Infallible;

    const CODEC: Codec = Codec::RAW;
    const IS_NEVER: bool = true;

    fn describe(shape: &mut Shape) {
        shape.raw("never");
    }

    fn encode(&self, _: &mut Writer) -> Result<(), EncodeError> {
        match *self {}
    }

    fn receive<B: Frozen>(_: B) -> Result<Infallible, Invalid> {
        Err(Invalid)
    }

    fn into_owned(received: Infallible) -> Infallible {
        received
    }

    fn into_owned_shared(received: Infallible) -> Infallible {
        received
    }
}

/// How a handler gets its argument: [`View`] reads it where it landed, a message itself is decoded,
/// [`Chunk`], [`SharedChunk`] and [`Bytes`] are raw bodies.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the argument of a method",
    label = "neither a message nor a view of one",
    note = "a message is a type with `#[ringcall::message]`: take `View<Message>` to read it where it landed, \
            `Message` to own it, or `Bytes` for a raw body"
)]
pub trait FromBody: Sized {
    /// The message that travels.
    type Message: Message;

    /// Checks and takes a body.
    ///
    /// # Errors
    /// [`Invalid`] when it is not of the message's type.
    fn from_body(body: Chunk) -> Result<Self, Invalid>;

    /// The same of a body, of which a part may lie beside the message.
    ///
    /// # Errors
    /// As [`from_body`](Self::from_body).
    #[inline]
    fn from_body_with(mut body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        drop(attached.split(&mut body));
        Self::from_body(body)
    }

    /// Takes a body in another form than the message's own.
    ///
    /// # Errors
    /// [`Invalid`] when it is not that, or the message has no such form.
    #[doc(hidden)]
    fn from_other(form: Form, body: Chunk, attached: Attached) -> Result<Self, Invalid>;
}

impl<M: Message> FromBody for M {
    type Message = M;

    fn from_body(body: Chunk) -> Result<M, Invalid> {
        M::receive(body).map(M::into_owned)
    }

    #[inline]
    fn from_body_with(body: Chunk, attached: Attached) -> Result<M, Invalid> {
        M::receive_with(body, attached).map(M::into_owned)
    }

    fn from_other(form: Form, body: Chunk, attached: Attached) -> Result<M, Invalid> {
        M::decode_as_with(form, body, attached)
    }
}

impl<T: Archivable + Message> FromBody for View<T, Chunk> {
    type Message = T;

    #[inline]
    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        View::new(body)
    }

    fn from_other(form: Form, body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        form::view_of(&T::decode_as_with(form, body, attached)?)
    }
}

impl<T: Archivable + Message> FromBody for View<T, SharedChunk> {
    type Message = T;

    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        View::new(body.share())
    }

    fn from_other(form: Form, body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        form::view_of(&T::decode_as_with(form, body, attached)?)
    }
}

impl FromBody for Chunk {
    type Message = Bytes;

    #[inline]
    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        Ok(body)
    }

    fn from_other(_: Form, _: Chunk, _: Attached) -> Result<Self, Invalid> {
        Err(Invalid)
    }
}

impl FromBody for SharedChunk {
    type Message = Bytes;

    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        Ok(body.share())
    }

    fn from_other(_: Form, _: Chunk, _: Attached) -> Result<Self, Invalid> {
        Err(Invalid)
    }
}

/// An argument that the future of a handler may take to another thread.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument in a service with `send`",
    label = "stays on the thread where it arrived",
    note = "take `SharedView<Message>` instead of `View<Message>`, and `SharedBody` instead of `Body`"
)]
pub trait SendArgument {}

impl<M: Message> SendArgument for M {}

impl<T: Archivable + Message> SendArgument for View<T, SharedChunk> {}

impl SendArgument for SharedChunk {}

/// What a handler may fail with: a message, which its caller gets as it is, a [`Refusal`], an [`InternalError`], or any of
/// them, a [`HandlerError`].
#[diagnostic::on_unimplemented(
    message = "a method cannot fail with `{Self}`",
    label = "neither a message nor a refusal",
    note = "an error is a type with `#[ringcall::message]`, `Refusal`, or `HandlerError` of a message"
)]
pub trait IntoError {
    /// What callers know it as.
    type Error: Message;

    /// The message, or how the handler has ended without.
    ///
    /// # Errors
    /// If it has.
    fn into_error(self) -> Result<Self::Error, Unanswered>;
}

/// A message that there are values of, unlike [`Infallible`]: all `#[message]` types are. One with a codec of its own has to say
/// so if it is an error that handlers pass on, see [`BecomesError`].
pub trait Inhabited {}

/// What the error of a call may be that a handler makes, so that `?` makes it the handler's own `E`: the same, or none at all.
#[diagnostic::on_unimplemented(
    message = "the error `{Self}` of a call does not become the error `{E}` of this handler by itself",
    label = "another error than the handler's",
    note = "say what becomes of it: `.map_err(|error| error.map_app(…))?`"
)]
pub trait BecomesError<E> {
    #[doc(hidden)]
    fn become_error(self) -> E;
}

impl<E: Inhabited> BecomesError<E> for E {
    fn become_error(self) -> E {
        self
    }
}

impl<E> BecomesError<E> for Infallible {
    fn become_error(self) -> E {
        match self {}
    }
}

/// How a handler ends without an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It has not done anything.
    Refused(Refusal),
    /// It may have done anything.
    Internal(InternalError),
}

/// How a handler fails that did not expect to: a database that is gone, a disk that is full.
///
/// Its caller gets [`Status::INTERNAL`](ringcall_core::Status::INTERNAL), which says that the call may have run, and no text: that is for
/// the log of the server, which has it with the method and where the call came from, one line a second of a shard. Texts
/// of databases and files are nobody else's business; what a caller is to read goes into a message, or into the
/// metadata of the answer.
#[derive(Clone, PartialEq, Eq)]
pub struct InternalError(Box<str>);

impl InternalError {
    /// With this in the log. It should not hold what is secret.
    pub fn new(reason: impl fmt::Display) -> InternalError {
        InternalError(reason.to_string().into())
    }
}

impl fmt::Debug for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InternalError").field(&self.0).finish()
    }
}

impl fmt::Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InternalError {}

impl<E: Message> IntoError for E {
    type Error = E;

    #[inline]
    fn into_error(self) -> Result<E, Unanswered> {
        Ok(self)
    }
}

impl IntoError for Refusal {
    type Error = Infallible;

    fn into_error(self) -> Result<Infallible, Unanswered> {
        Err(Unanswered::Refused(self))
    }
}

impl IntoError for InternalError {
    type Error = Infallible;

    fn into_error(self) -> Result<Infallible, Unanswered> {
        Err(Unanswered::Internal(self))
    }
}

/// How a handler fails that has an error of its own, and may also refuse a call, or fail without an answer. Callers see
/// the error, or an ordinary failure. All sorts become one with `?` or `into`:
///
/// | | what callers get | may it have run? |
/// |---|---|---|
/// | a message `E` | it, as their `CallError::App` | it ran |
/// | a [`Refusal`] | its status | no: they may try again, here or at another server |
/// | an [`InternalError`] | [`INTERNAL`](ringcall_core::Status::INTERNAL) | yes |
/// | a [`Failure`] of a call that the handler made | `INTERNAL` | yes |
/// | a `CallError<E>` of such a call | the error of the other handler, or as of its failure | it ran, or as above |
/// | a `CallError` of a method without error | as of its failure | yes |
///
/// Another error of another handler is first made one of this handler's, with `CallError::map_app`.
///
/// That a call of the handler's did not run says nothing of what the handler had done before it, so `?` does not
/// pass that on. A handler that has done nothing else may say so: [`pass_on`](HandlerError::pass_on).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandlerError<E = Infallible> {
    /// The call was done, and this came of it.
    App(E),
    /// It was not.
    Refused(Refusal),
    /// It failed in between.
    Internal(InternalError),
}

impl<E> HandlerError<E> {
    /// The handler has failed unexpectedly, with this for the log of the server, see [`InternalError`]:
    /// `.map_err(HandlerError::internal)?`.
    pub fn internal(reason: impl fmt::Display) -> HandlerError<E> {
        HandlerError::Internal(InternalError::new(reason))
    }

    /// For a handler that has done nothing but make a call, which has failed: if that certainly did not run, neither
    /// did its own, and it is refused, see [`Refusal::passing_on`]; if it may have run, so may its own.
    #[must_use]
    pub fn pass_on(failure: Failure) -> HandlerError<E> {
        match Refusal::passing_on(&failure) {
            Some(refusal) => HandlerError::Refused(refusal),
            None => failure.into(),
        }
    }
}

impl<E: Message> From<E> for HandlerError<E> {
    fn from(error: E) -> HandlerError<E> {
        HandlerError::App(error)
    }
}

impl<E> From<Refusal> for HandlerError<E> {
    fn from(refusal: Refusal) -> HandlerError<E> {
        HandlerError::Refused(refusal)
    }
}

impl<E> From<InternalError> for HandlerError<E> {
    fn from(error: InternalError) -> HandlerError<E> {
        HandlerError::Internal(error)
    }
}

/// A call that the handler made has failed. Whatever that was, the handler may have run, see
/// [`HandlerError::pass_on`].
impl<E> From<Failure> for HandlerError<E> {
    fn from(failure: Failure) -> HandlerError<E> {
        HandlerError::internal(format_args!("a call that it made failed: {failure}"))
    }
}

impl<E: fmt::Display> fmt::Display for HandlerError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandlerError::App(error) => write!(f, "{error}"),
            HandlerError::Refused(refusal) => write!(f, "refused: {refusal}"),
            HandlerError::Internal(error) => write!(f, "{error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for HandlerError<E> {}

impl<E: Message> IntoError for HandlerError<E> {
    type Error = E;

    fn into_error(self) -> Result<E, Unanswered> {
        match self {
            HandlerError::App(error) => Ok(error),
            HandlerError::Refused(refusal) => Err(Unanswered::Refused(refusal)),
            HandlerError::Internal(error) => Err(Unanswered::Internal(error)),
        }
    }
}

/// What a handler may return: a message, or a `Result` of one and [an error](IntoError). A message that was received may
/// be returned as the [`View`] that it is, and one that is encoded as [`Encoded`].
#[diagnostic::on_unimplemented(
    message = "a method cannot return `{Self}`",
    label = "neither a message nor a `Result` of messages",
    note = "a message is a type with `#[ringcall::message]`: return one, or a `Result` of two, or `Bytes` for a \
            raw body"
)]
pub trait IntoReply {
    /// What it returns if all is well.
    type Value: Message;
    /// What its caller gets otherwise.
    type Error: Message;
    /// What it returns otherwise.
    #[doc(hidden)]
    type Failure: IntoError<Error = Self::Error>;
    /// How the value is sent.
    #[doc(hidden)]
    type Sent: Message;

    /// The same as a result.
    fn into_reply(self) -> Result<Self::Sent, Self::Failure>;
}

impl<M: Message> IntoReply for M {
    type Value = M;
    type Error = Infallible;
    type Failure = Infallible;
    type Sent = M;

    #[inline]
    fn into_reply(self) -> Result<M, Infallible> {
        Ok(self)
    }
}

impl<M: Message, E: IntoError> IntoReply for Result<M, E> {
    type Value = M;
    type Error = E::Error;
    type Failure = E;
    type Sent = M;

    #[inline]
    fn into_reply(self) -> Result<M, E> {
        self
    }
}

/// What the stream that a handler returns may give: a message, one that was received, as the [`View`] that it is, or one that is
/// [`Encoded`] already.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an item of a stream",
    label = "not a message",
    note = "an item is a type with `#[ringcall::message]`, or `Encoded` of one"
)]
pub trait IntoItem {
    /// What its caller gets.
    type Message: Message;
    /// How it is sent.
    #[doc(hidden)]
    type Sent: Message;

    /// The same as it is sent.
    #[doc(hidden)]
    fn into_item(self) -> Self::Sent;
}

impl<M: Message> IntoItem for M {
    type Message = M;
    type Sent = M;

    #[inline]
    fn into_item(self) -> M {
        self
    }
}

/// A handler that has received a message may return it as it is, and one that has encoded it already may return that: it
/// is sent from where it lies.
macro_rules! archives {
    ($($made:ident<T, $body:ty>, |$value:ident| $message:expr;)*) => {$(
        impl<T: Archivable + Message> IntoReply for $made<T, $body> {
            type Value = T;
            type Error = Infallible;
            type Failure = Infallible;
            type Sent = EncodedMessage<T, $body>;

            #[inline]
            fn into_reply(self) -> Result<EncodedMessage<T, $body>, Infallible> {
                let $value = self;
                Ok($message)
            }
        }

        impl<T: Archivable + Message, E: IntoError> IntoReply for Result<$made<T, $body>, E> {
            type Value = T;
            type Error = E::Error;
            type Failure = E;
            type Sent = EncodedMessage<T, $body>;

            #[inline]
            fn into_reply(self) -> Result<EncodedMessage<T, $body>, E> {
                self.map(|$value| $message)
            }
        }

        impl<T: Archivable + Message> IntoItem for $made<T, $body> {
            type Message = T;
            type Sent = EncodedMessage<T, $body>;

            #[inline]
            fn into_item(self) -> EncodedMessage<T, $body> {
                let $value = self;
                $message
            }
        }
    )*};
}

archives! {
    View<T, Chunk>, |view| view.into();
    View<T, SharedChunk>, |view| view.into();
    Encoded<T, Chunk>, |encoded| encoded.into_message();
    Encoded<T, SharedChunk>, |encoded| encoded.into_message();
}

/// Encoding may run somebody's code: a codec of theirs, or what a field is archived with. Should that panic, the call
/// fails, and not whoever encodes it among others, half of a frame in their hands.
#[inline]
pub(crate) fn guarded(encode: impl FnOnce() -> Result<(), EncodeError>) -> Result<(), EncodeError> {
    catch_unwind(AssertUnwindSafe(encode)).unwrap_or(Err(EncodeError::Failed))
}

/// A message as core's payload.
pub struct Typed<'a, M>(pub &'a M);

impl<M> Clone for Typed<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Typed<'_, M> {}

impl<M> fmt::Debug for Typed<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}

impl<M: Message> Payload for Typed<'_, M> {
    #[inline(always)]
    fn encode(&self, codec: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        if codec != M::CODEC {
            let encoded = guarded(|| self.0.encode_as(Form::of_codec(codec), out));
            return encoded.map_err(|error| match error {
                EncodeError::Codec(_) => EncodeError::Codec(codec),
                error => error,
            });
        }
        guarded(|| self.0.encode(out))
    }

    fn transcode(&self) -> Option<Transcode> {
        Some(|body, codec, out| {
            // The body is one that this side has encoded itself.
            let message = form::decode_own::<M>(body).map_err(|_| EncodeError::Failed)?;
            message.encode_as(Form::of_codec(codec), out)
        })
    }

    #[inline]
    fn argument(&self) -> Option<&dyn core::any::Any> {
        Some(self.0)
    }
}

/// What [`impl_message`] needs of this crate and of core.
#[doc(hidden)]
pub mod __private {
    pub use ringcall_buf::{Chunk, Frozen, SharedChunk};
    pub use ringcall_core::{Codec, EncodeError, Writer};

    pub use crate::both::{AsArchived, AsOriginal, Both, Owner};
    pub use crate::fallback::{decode_array, decode_named, encode_array, encode_named};
    pub use crate::field::{FieldOf, NoField};
    pub use crate::form::{decode_as, decode_previous, encode_as, encode_previous, receive_as};
    pub use crate::in_place::InPlace;

    #[inline]
    pub fn encode<T: crate::Archivable>(value: &T, out: &mut Writer) -> Result<(), EncodeError> {
        super::encode(value, out)
    }
}
