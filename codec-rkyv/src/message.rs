//! What a method takes, returns and fails with.

use core::convert::Infallible;
use core::fmt;

use bytes::Bytes;
use ringcall_buf::{Chunk, Frozen, SharedChunk};
use ringcall_core::{Attached, Codec, EncodeError, Payload, Writer};

use crate::archive::{Archivable, Invalid, encode};
use crate::{Relayed, Shape, View, WireType};

/// Something that a body can hold: the argument, the reply or the error of a method.
///
/// `#[message]` types are; so are primitives, strings, vectors, options and tuples of them, and `()`.
/// [`Bytes`] is the raw body: bytes as they are, without a codec.
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

    /// Appends the description of the type.
    #[doc(hidden)]
    fn describe(shape: &mut Shape);

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

    /// The same of a body, of which a part may lie beside the message: that is let go, unless the type is
    /// [`WithAttachment`](crate::WithAttachment).
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    #[inline]
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
    // Names of generic parameters are not hygienic: whoever has a type `B` must not meet another one here.
    ([$($generics:tt)*] $type:ty $(where [$($bounds:tt)*])?) => {
        impl<$($generics)*> $crate::Message for $type
        where
            $type: $crate::Archivable,
            $($($bounds)*)?
        {
            type Received<__Body: $crate::__private::Frozen> = $crate::View<$type, __Body>;

            const CODEC: $crate::__private::Codec = $crate::__private::Codec::RKYV;

            fn describe(shape: &mut $crate::Shape) {
                <$type as $crate::WireType>::describe(shape);
            }

            #[inline]
            fn encode(
                &self,
                out: &mut $crate::__private::Writer,
            ) -> ::core::result::Result<(), $crate::__private::EncodeError> {
                $crate::__private::encode(self, out)
            }

            #[inline]
            fn receive<__Body: $crate::__private::Frozen>(
                body: __Body,
            ) -> ::core::result::Result<$crate::View<$type, __Body>, $crate::Invalid> {
                $crate::View::new(body)
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
    };
}

macro_rules! messages {
    ($($type:ty)*) => { $(impl_message!([] $type);)* };
}

messages! {
    () bool char u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 String
    core::time::Duration core::net::IpAddr core::net::SocketAddr
}

#[cfg(feature = "uuid")]
messages! { uuid::Uuid }

impl_message!([T: WireType] Vec<T>);
impl_message!([T: WireType] Option<T>);
impl_message!([T: WireType] Box<T>);
impl_message!([T: WireType, const N: usize] [T; N]);
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
}

impl<T: Archivable + Message> FromBody for View<T, Chunk> {
    type Message = T;

    #[inline]
    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        View::new(body)
    }
}

impl<T: Archivable + Message> FromBody for View<T, SharedChunk> {
    type Message = T;

    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        View::new(body.share())
    }
}

impl FromBody for Chunk {
    type Message = Bytes;

    #[inline]
    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        Ok(body)
    }
}

impl FromBody for SharedChunk {
    type Message = Bytes;

    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        Ok(body.share())
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

/// What a handler may return: a message, or a `Result` of two. A message that was received may be returned as
/// the [`View`] that it is.
#[diagnostic::on_unimplemented(
    message = "a method cannot return `{Self}`",
    label = "neither a message nor a `Result` of messages",
    note = "a message is a type with `#[ringcall::message]`: return one, or a `Result` of two, or `Bytes` for a \
            raw body"
)]
pub trait IntoReply {
    /// What it returns if all is well.
    type Value: Message;
    /// What it returns otherwise.
    type Error: Message;
    /// How the value is sent.
    #[doc(hidden)]
    type Sent: Message;

    /// The same as a result.
    fn into_reply(self) -> Result<Self::Sent, Self::Error>;
}

impl<M: Message> IntoReply for M {
    type Value = M;
    type Error = Infallible;
    type Sent = M;

    #[inline]
    fn into_reply(self) -> Result<M, Infallible> {
        Ok(self)
    }
}

impl<M: Message, E: Message> IntoReply for Result<M, E> {
    type Value = M;
    type Error = E;
    type Sent = M;

    #[inline]
    fn into_reply(self) -> Result<M, E> {
        self
    }
}

/// A handler that has received a message may return it as it is: it is sent from where it landed.
impl<T: Archivable + Message> IntoReply for View<T, Chunk> {
    type Value = T;
    type Error = Infallible;
    type Sent = Relayed<T, Chunk>;

    #[inline]
    fn into_reply(self) -> Result<Relayed<T, Chunk>, Infallible> {
        Ok(Relayed(self))
    }
}

impl<T: Archivable + Message> IntoReply for View<T, SharedChunk> {
    type Value = T;
    type Error = Infallible;
    type Sent = Relayed<T, SharedChunk>;

    #[inline]
    fn into_reply(self) -> Result<Relayed<T, SharedChunk>, Infallible> {
        Ok(Relayed(self))
    }
}

impl<T: Archivable + Message, E: Message> IntoReply for Result<View<T, Chunk>, E> {
    type Value = T;
    type Error = E;
    type Sent = Relayed<T, Chunk>;

    #[inline]
    fn into_reply(self) -> Result<Relayed<T, Chunk>, E> {
        self.map(Relayed)
    }
}

impl<T: Archivable + Message, E: Message> IntoReply for Result<View<T, SharedChunk>, E> {
    type Value = T;
    type Error = E;
    type Sent = Relayed<T, SharedChunk>;

    #[inline]
    fn into_reply(self) -> Result<Relayed<T, SharedChunk>, E> {
        self.map(Relayed)
    }
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
    #[inline]
    fn encode(&self, codec: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        if codec != M::CODEC {
            return Err(EncodeError::Codec(codec));
        }
        self.0.encode(out)
    }
}

/// What [`impl_message`] needs of this crate and of core.
#[doc(hidden)]
pub mod __private {
    pub use ringcall_buf::{Chunk, Frozen, SharedChunk};
    pub use ringcall_core::{Codec, EncodeError, Writer};

    #[inline]
    pub fn encode<T: crate::Archivable>(value: &T, out: &mut Writer) -> Result<(), EncodeError> {
        super::encode(value, out)
    }
}
