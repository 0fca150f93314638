//! Bytes beside a message.

use core::fmt;

use bytes::Bytes;
use ringcall_buf::{Chunk, External, Frozen, SharedChunk, SharedSegment};
use ringcall_core::{Attached, Codec, EncodeError, Writer};

use crate::form::view_of;
use crate::{Archivable, Form, FromBody, Invalid, Layout, Message, Shape, View};

/// A message with bytes beside it: an argument, a reply or an item. Its signature is that of the message, so a
/// side that does not know of attachments gets the message alone.
///
/// What is sent is a message and an [`Attachment`]; what is received, a view of the message and a
/// [`ReceivedAttachment`]. A handler takes `WithAttachment<View<M>, ReceivedAttachment>`, or
/// `WithAttachment<M>` to own both.
///
/// The attachment is never copied, whatever its length; together with the message it may be as long as the
/// largest message. The message itself must not be a raw body of 16 KiB or more.
#[derive(Clone, Debug, Default)]
pub struct WithAttachment<M, A = Attachment> {
    /// The message.
    pub message: M,
    /// What is beside it.
    pub attachment: A,
}

impl<M> WithAttachment<M> {
    /// A message with these bytes, or this range of a file, beside it.
    pub fn new(message: M, attachment: impl Into<Attachment>) -> WithAttachment<M> {
        WithAttachment { message, attachment: attachment.into() }
    }
}

/// Bytes to send beside a message: in memory, or a range of a file.
#[derive(Clone)]
pub struct Attachment(SharedSegment);

impl Attachment {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            SharedSegment::Shared(chunk) => Some(chunk),
            SharedSegment::Bytes(bytes) => Some(bytes),
            SharedSegment::External(_) => None,
        }
    }

    fn attach(&self, out: &mut Writer) -> Result<(), EncodeError> {
        match self.is_empty() {
            true => Ok(()),
            false => Ok(out.attach_beside(self.0.clone().into())?),
        }
    }
}

impl Default for Attachment {
    fn default() -> Attachment {
        Bytes::new().into()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({} bytes)", self.len())
    }
}

impl From<Bytes> for Attachment {
    fn from(bytes: Bytes) -> Attachment {
        Attachment(bytes.into())
    }
}

impl From<SharedChunk> for Attachment {
    fn from(chunk: SharedChunk) -> Attachment {
        Attachment(chunk.into())
    }
}

impl From<Chunk> for Attachment {
    fn from(chunk: Chunk) -> Attachment {
        chunk.share().into()
    }
}

impl From<External> for Attachment {
    fn from(range: External) -> Attachment {
        Attachment(range.into())
    }
}

/// Bytes that came beside a message.
#[derive(Clone, Debug)]
pub enum ReceivedAttachment<B = Chunk> {
    /// Where they landed.
    InMemory(B),
    /// So many, which were written to the place that the call named.
    Landed(u64),
}

impl<B: Frozen> ReceivedAttachment<B> {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            ReceivedAttachment::InMemory(bytes) => bytes.as_ref().len() as u64,
            ReceivedAttachment::Landed(len) => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; none of them if they were written elsewhere.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            ReceivedAttachment::InMemory(bytes) => bytes.as_ref(),
            ReceivedAttachment::Landed(_) => &[],
        }
    }
}

impl<B: Into<Attachment>> ReceivedAttachment<B> {
    /// The same to send; nothing if it was written elsewhere.
    fn into_sent(self) -> Attachment {
        match self {
            ReceivedAttachment::InMemory(bytes) => bytes.into(),
            ReceivedAttachment::Landed(_) => Attachment::default(),
        }
    }
}

/// Parts a body from what is beside its message.
fn part<B: Frozen>(mut body: B, attached: Attached) -> (B, ReceivedAttachment<B>) {
    let attachment = match attached {
        Attached::Landed(len) => ReceivedAttachment::Landed(len),
        Attached::InBody(_) | Attached::Nothing => {
            let len = body.as_ref().len();
            let bytes = attached.split(&mut body).unwrap_or_else(|| body.split_off(len));
            ReceivedAttachment::InMemory(bytes)
        }
    };
    (body, attachment)
}

impl<M: Message> crate::Inhabited for WithAttachment<M> {}

impl<M: Message> Message for WithAttachment<M> {
    type Received<B: Frozen> = WithAttachment<M::Received<B>, ReceivedAttachment<B>>;

    const CODEC: Codec = M::CODEC;
    const IS_RAW: bool = M::IS_RAW;

    fn describe(shape: &mut Shape) {
        M::describe(shape);
    }

    // A body in a layout of before is the message's, whatever is beside it.
    fn layouts() -> Vec<Layout> {
        M::layouts()
    }

    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        self.message.encode(out)?;
        self.attachment.attach(out)
    }

    fn receive<B: Frozen>(body: B) -> Result<Self::Received<B>, Invalid> {
        Self::receive_with(body, Attached::Nothing)
    }

    fn receive_with<B: Frozen>(body: B, attached: Attached) -> Result<Self::Received<B>, Invalid> {
        let (body, attachment) = part(body, attached);
        Ok(WithAttachment { message: M::receive(body)?, attachment })
    }

    fn encode_as(&self, form: Form, out: &mut Writer) -> Result<(), EncodeError> {
        self.message.encode_as(form, out)?;
        self.attachment.attach(out)
    }

    fn decode_as(form: Form, body: &[u8]) -> Result<Self, Invalid> {
        Ok(WithAttachment { message: M::decode_as(form, body)?, attachment: Attachment::default() })
    }

    fn decode_as_with(form: Form, body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        let (body, attachment) = part(body, attached);
        Ok(WithAttachment {
            message: M::decode_as(form, &body)?,
            attachment: attachment.into_sent(),
        })
    }

    fn receive_as_with<B: Frozen + From<SharedChunk>>(
        form: Form,
        body: B,
        attached: Attached,
    ) -> Result<Self::Received<B>, Invalid> {
        let (body, attachment) = part(body, attached);
        Ok(WithAttachment { message: M::receive_as(form, body.as_ref())?, attachment })
    }

    fn into_owned(received: Self::Received<Chunk>) -> WithAttachment<M> {
        WithAttachment {
            message: M::into_owned(received.message),
            attachment: received.attachment.into_sent(),
        }
    }

    fn into_owned_shared(received: Self::Received<SharedChunk>) -> WithAttachment<M> {
        WithAttachment {
            message: M::into_owned_shared(received.message),
            attachment: received.attachment.into_sent(),
        }
    }
}

impl<T, B> FromBody for WithAttachment<View<T, B>, ReceivedAttachment<B>>
where
    T: Archivable + Message,
    B: Frozen + From<Chunk> + From<SharedChunk>,
{
    type Message = WithAttachment<T>;

    fn from_body(body: Chunk) -> Result<Self, Invalid> {
        Self::from_body_with(body, Attached::Nothing)
    }

    fn from_body_with(body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        let (body, attachment) = part(B::from(body), attached);
        Ok(WithAttachment { message: View::new(body)?, attachment })
    }

    fn from_other(form: Form, body: Chunk, attached: Attached) -> Result<Self, Invalid> {
        let (body, attachment) = part(B::from(body), attached);
        Ok(WithAttachment { message: view_of(&T::decode_as(form, body.as_ref())?)?, attachment })
    }
}
