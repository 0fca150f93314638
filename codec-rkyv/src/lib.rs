//! What travels in bodies: rkyv archives, validated once and then read where they landed.
//!
//! * [`Message`] is what a method takes, returns or fails with; `#[message]` makes a type one.
//! * [`View`] holds a body and derefs to the archived type.
//! * [`WireType`] lists the types that a message may be made of. rkyv can archive more; what is missing
//!   here is missing because its archive cannot be checked, see [`WireType`].
//! * [`Shape`] describes types in a text whose digest travels with every message, so that two builds
//!   that disagree notice before anything is decoded.
//! * Two builds that disagree talk in MessagePack or JSON, by names and with serde's rules.

mod archive;
mod attachment;
mod both;
pub mod compare;
pub mod described;
mod encode_as;
mod encoded;
mod fallback;
mod field;
mod form;
mod in_place;
mod message;
mod scratch;
mod shape;
mod unencodable;
mod unix_time;
mod unreadable;
mod view;
mod wire_type;

pub use archive::{Archivable, DEPTH_MAX, Invalid, archive_format};
#[doc(hidden)]
pub use archive::{BodyWriter, Checkable, Encoder};
pub use attachment::{Attachment, ReceivedAttachment, WithAttachment};
#[doc(hidden)]
pub use encode_as::As;
pub use encode_as::{Archiver, Each, EncodeAs, each};
#[doc(hidden)]
pub use encoded::EncodedMessage;
pub use encoded::{Encoded, SharedEncoded};
#[doc(hidden)]
pub use fallback::array;
pub use fallback::{FALLBACK_CODECS, Named};
#[doc(hidden)]
pub use form::Previous;
pub use form::{Form, Formed};
#[doc(hidden)]
pub use message::{__private, SendArgument};
pub use message::{
    BecomesError, FromBody, HandlerError, Inhabited, InternalError, IntoError, IntoItem, IntoReply,
    Message, Typed, Unanswered,
};
#[doc(hidden)]
pub use scratch::Scratch;
#[doc(hidden)]
pub use shape::{ItemShape, Layout};
pub use shape::{Previously, Shape, Signatures};
pub use unix_time::{ArchivedUnixTime, UnixTime};
#[doc(hidden)]
pub use unreadable::take_reason;
pub use view::{SharedView, View, owned};
pub use wire_type::{WireType, WireWith};

#[doc(hidden)]
pub use rkyv;
#[doc(hidden)]
pub use serde;
