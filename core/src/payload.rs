//! What a call sends, as core sees it: something that can be encoded, again if need be.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

use bytes::Bytes;
use ringcall_buf::{Chunk, External, Full, Segment, SharedChunk, SharedSegment, Writer};

/// The number of a codec on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Codec(pub u8);

impl Codec {
    /// Bytes as they are; their signature is 0.
    pub const RAW: Codec = Codec(0);
    /// rkyv archives.
    pub const RKYV: Codec = Codec(1);
    /// MessagePack with field names.
    pub const MESSAGEPACK: Codec = Codec(2);
    /// JSON.
    pub const JSON: Codec = Codec(3);

    /// One of the 32 codecs that are left for users to number.
    ///
    /// # Panics
    /// When `number` is not below 32.
    #[must_use]
    pub const fn user(number: u8) -> Codec {
        assert!(number < 32, "there are 32 codecs for users");
        Codec(32 + number)
    }

    /// Whether bodies in it go by names, so that it does not take the same types to read them.
    #[inline]
    #[must_use]
    pub const fn has_names(self) -> bool {
        self.0 == Codec::MESSAGEPACK.0 || self.0 == Codec::JSON.0
    }
}

/// A message that can be encoded, as often as needed: another attempt, another codec or another host
/// encodes it again.
pub trait Payload {
    /// Appends the body to `out`, in the given codec and shape.
    ///
    /// # Errors
    /// [`EncodeError`] when the body does not fit or the payload does not know the codec or shape;
    /// what was written is discarded.
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError>;

    /// How to encode again, in another codec, what this payload has encoded: for who only has the bytes by
    /// then.
    fn transcode(&self) -> Option<Transcode> {
        None
    }

    /// What goes with the message in the header of the REQUEST, the REPLY or the END that carries it: TLVs
    /// as an [`ExtensionWriter`](crate::frame::ExtensionWriter) finishes them, a multiple of 16 bytes, and no
    /// more than [`Config::extension_bytes_max`](crate::Config::extension_bytes_max). Every attempt sends
    /// them again. Not
    /// [`TOTAL_LEN`](crate::frame::tag::TOTAL_LEN) and [`ATTACHMENT_LEN`](crate::frame::tag::ATTACHMENT_LEN),
    /// which the connection adds. Items have none.
    #[inline]
    fn extensions(&self) -> &[u8] {
        &[]
    }

    /// Where the attachment of the call's reply is to be written instead of being kept in memory.
    #[inline]
    fn landing(&self) -> Option<External> {
        None
    }

    /// The message as its caller has it, for whoever decides by its fields before it is encoded. None if only its
    /// bytes are left.
    #[inline]
    fn argument(&self) -> Option<&dyn Any> {
        None
    }
}

/// What of a body lies beside its message, see [`Writer::attach_beside`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attached {
    /// Nothing.
    #[default]
    Nothing,
    /// So many bytes at the body's end.
    InBody(usize),
    /// So many bytes, which were written to where the caller wanted them and are not in the body.
    Landed(u64),
}

impl Attached {
    /// Parts a body from what is attached to it, if that is in it.
    #[must_use]
    pub fn split<B: ringcall_buf::Frozen>(self, body: &mut B) -> Option<B> {
        let Attached::InBody(len) = self else { return None };
        let at = body.as_ref().len().saturating_sub(len);
        Some(body.split_off(at))
    }
}

/// From a body as its [`Payload`] encodes it to the same in another codec.
pub type Transcode = fn(&[u8], Codec, &mut Writer) -> Result<(), EncodeError>;

/// Whatever points to a payload is one.
macro_rules! points_to_payload {
    ($($pointer:ty),*) => {
        $(impl<P: Payload + ?Sized> Payload for $pointer {
            #[inline]
            fn encode(
                &self,
                codec: Codec,
                signature: u64,
                out: &mut Writer,
            ) -> Result<(), EncodeError> {
                (**self).encode(codec, signature, out)
            }

            fn transcode(&self) -> Option<Transcode> {
                (**self).transcode()
            }

            #[inline]
            fn landing(&self) -> Option<External> {
                (**self).landing()
            }

            fn extensions(&self) -> &[u8] {
                (**self).extensions()
            }

            #[inline]
            fn argument(&self) -> Option<&dyn Any> {
                (**self).argument()
            }
        })*
    };
}
points_to_payload!(&P, Arc<P>);

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Which codec.
    pub codec: Codec,
    /// How the encoded bytes are compressed: 0 not at all. The number is the sender's word; the payload
    /// does it.
    pub compression: u8,
    /// Shapes of what is in it.
    pub signature: u64,
}

impl Encoding {
    /// Without compression.
    #[inline]
    #[must_use]
    pub const fn plain(codec: Codec, signature: u64) -> Encoding {
        Encoding { codec, compression: 0, signature }
    }
}

/// A message with extensions, which are a vector unless somebody shares them.
#[derive(Clone, Debug, Default)]
pub struct Extended<P, E = Vec<u8>> {
    /// The message.
    pub payload: P,
    /// Its [extensions](Payload::extensions), instead of those of the payload; if there are none, the
    /// payload's.
    pub extensions: E,
}

impl<P: Payload, E: AsRef<[u8]>> Payload for Extended<P, E> {
    #[inline]
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        self.payload.encode(codec, signature, out)
    }

    fn transcode(&self) -> Option<Transcode> {
        self.payload.transcode()
    }

    #[inline]
    fn landing(&self) -> Option<External> {
        self.payload.landing()
    }

    #[inline]
    fn extensions(&self) -> &[u8] {
        let own = self.extensions.as_ref();
        if own.is_empty() { self.payload.extensions() } else { own }
    }

    #[inline]
    fn argument(&self) -> Option<&dyn Any> {
        self.payload.argument()
    }
}

/// Why a message could not be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// It is larger than it may be.
    Full(Full),
    /// Its extensions are longer than they may be, or no multiple of 16 bytes.
    Extensions(Full),
    /// It cannot be encoded with this codec or in this shape.
    Codec(Codec),
    /// Its own encoding failed.
    Failed,
}

impl EncodeError {
    /// It as two numbers.
    pub(crate) const fn to_numbers(self) -> (u8, usize) {
        match self {
            EncodeError::Failed => (0, 0),
            EncodeError::Full(Full { limit }) => (1, limit),
            EncodeError::Extensions(Full { limit }) => (2, limit),
            EncodeError::Codec(codec) => (3, codec.0 as usize),
        }
    }

    /// Unknown ones have failed.
    pub(crate) const fn from_numbers(number: u8, n: usize) -> EncodeError {
        match number {
            1 => EncodeError::Full(Full { limit: n }),
            2 => EncodeError::Extensions(Full { limit: n }),
            3 => EncodeError::Codec(Codec(n as u8)),
            _ => EncodeError::Failed,
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::Full(full) => write!(f, "{full}"),
            EncodeError::Extensions(Full { limit }) => write!(
                f,
                "the message's metadata and other extensions are not within {limit} bytes, in steps of 16"
            ),
            EncodeError::Codec(codec) => {
                write!(f, "the message has no encoding in codec {}", codec.0)
            }
            EncodeError::Failed => f.write_str("the message could not be encoded"),
        }
    }
}

impl core::error::Error for EncodeError {}

impl From<Full> for EncodeError {
    fn from(full: Full) -> EncodeError {
        EncodeError::Full(full)
    }
}

/// From this length on, bytes are sent from where they are instead of being copied into the outgoing
/// arena. Measured: copying wins by 11 to 20 % up to 1 KiB and loses by as much at 1 MiB.
pub const REFERENCE_BYTES_MIN: usize = 16 * 1024;

fn put_raw<T>(bytes: &T, codec: Codec, out: &mut Writer) -> Result<(), EncodeError>
where
    T: AsRef<[u8]> + Clone + Into<Segment>,
{
    if codec != Codec::RAW {
        return Err(EncodeError::Codec(codec));
    }
    if bytes.as_ref().len() >= REFERENCE_BYTES_MIN {
        return Ok(out.attach(bytes.clone().into())?);
    }
    Ok(out.put(bytes.as_ref())?)
}

macro_rules! raw_payloads {
    ($($bytes:ty)*) => {
        $(impl Payload for $bytes {
            #[inline]
            fn encode(&self, codec: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
                put_raw(self, codec, out)
            }
        })*
    };
}

raw_payloads! { Bytes Chunk SharedChunk }

/// No body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Empty;

impl Payload for Empty {
    #[inline]
    fn encode(&self, _: Codec, _: u64, _: &mut Writer) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// A body that was encoded already, on another thread.
#[derive(Debug)]
pub struct Encoded {
    /// The body, or its front.
    pub body: SharedChunk,
    /// What lies in the middle of that, and behind how many bytes, see [`Writer::attach_within`].
    pub within: Option<(usize, SharedSegment)>,
    /// The rest of it.
    pub attached: Option<SharedSegment>,
    /// What it was encoded in.
    pub codec: Codec,
    /// How to say the same in another codec.
    pub transcode: Option<Transcode>,
    /// Whether that is beside the message.
    pub is_beside: bool,
    /// See [`Payload::landing`].
    pub landing: Option<External>,
    /// Its extensions.
    pub extensions: Box<[u8]>,
}

impl Encoded {
    /// No body.
    #[must_use]
    pub fn empty(codec: Codec) -> Encoded {
        Encoded {
            body: SharedChunk::empty(),
            within: None,
            attached: None,
            codec,
            transcode: None,
            is_beside: false,
            landing: None,
            extensions: Box::default(),
        }
    }

    /// What a writer of a pool holds, encoded in that codec.
    #[must_use]
    pub fn take(pool: &ringcall_buf::SharedPool, mut writer: Writer, codec: Codec) -> Encoded {
        let is_beside = writer.beside_len() > 0;
        let within = writer.take_within().map(|(at, segment)| (at, segment.share()));
        let (body, attached) = pool.finish(writer);
        Encoded { body, within, attached, is_beside, ..Encoded::empty(codec) }
    }

    /// How long it is.
    #[must_use]
    pub fn len(&self) -> usize {
        let within = self.within.as_ref().map_or(0, |(_, segment)| segment.len());
        self.body.len() + within + self.attached.as_ref().map_or(0, SharedSegment::len)
    }

    /// The bytes of the message, without what is beside it, in their order; `None` if a part of it is not in memory.
    #[must_use]
    pub fn slices(&self) -> Option<[&[u8]; 4]> {
        let (at, within) = match &self.within {
            Some((at, segment)) => (*at, segment.as_slice()?),
            None => (self.body.len(), &[][..]),
        };
        let (front, back) = self.body.split_at_checked(at)?;
        let rest = match &self.attached {
            Some(rest) if !self.is_beside => rest.as_slice()?,
            _ => &[],
        };
        Some([front, within, back, rest])
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cold]
    fn encode_as(&self, codec: Codec, out: &mut Writer) -> Result<(), EncodeError> {
        let transcode = self.transcode.ok_or(EncodeError::Codec(codec))?;
        match self.slices().ok_or(EncodeError::Codec(codec))? {
            [message, [], [], []] => transcode(message, codec, out)?,
            parts => transcode(&parts.concat(), codec, out)?,
        }
        match &self.attached {
            Some(rest) if self.is_beside => Ok(out.attach_beside(rest.clone().into())?),
            _ => Ok(()),
        }
    }

    /// What is not attached at the end.
    fn put_body(&self, out: &mut Writer) -> Result<(), EncodeError> {
        let Some((at, segment)) = &self.within else { return Ok(out.put(&self.body)?) };
        let (front, back) = self.body.split_at_checked(*at).ok_or(EncodeError::Failed)?;
        out.put(front)?;
        match out.can_attach_within() {
            true => out.attach_within(segment.clone().into())?,
            false => out.put(segment.as_slice().ok_or(EncodeError::Failed)?)?,
        }
        Ok(out.put(back)?)
    }
}

impl Payload for Encoded {
    fn encode(&self, codec: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        if codec != self.codec {
            return self.encode_as(codec, out);
        }
        match &self.attached {
            None if self.body.len() >= REFERENCE_BYTES_MIN && self.within.is_none() => {
                out.attach(self.body.clone().into())?
            }
            None => self.put_body(out)?,
            Some(rest) => {
                self.put_body(out)?;
                match self.is_beside {
                    true => out.attach_beside(rest.clone().into())?,
                    false => out.attach(rest.clone().into())?,
                }
            }
        }
        Ok(())
    }

    fn transcode(&self) -> Option<Transcode> {
        self.transcode
    }

    fn landing(&self) -> Option<External> {
        self.landing.clone()
    }

    fn extensions(&self) -> &[u8] {
        &self.extensions
    }
}

#[cfg(test)]
mod tests {
    use ringcall_buf::SharedPool;

    use super::*;

    /// Says a body in another codec: how long it was, and its first and last byte.
    fn measure(body: &[u8], _: Codec, out: &mut Writer) -> Result<(), EncodeError> {
        let (first, last) = (body.first(), body.last());
        out.put(&[(body.len() / 1000) as u8, *first.unwrap_or(&0), *last.unwrap_or(&0)])?;
        Ok(())
    }

    #[test]
    fn a_message_in_two_parts_is_said_whole_in_another_codec() {
        let pool = SharedPool::new(1 << 16);
        for is_beside in [false, true] {
            let mut writer = pool.writer(1 << 20);
            writer.put(&[1; 1000]).unwrap();
            let rest = Segment::from(Bytes::from(alloc::vec![2; 40_000]));
            match is_beside {
                true => writer.attach_beside(rest).unwrap(),
                false => writer.attach(rest).unwrap(),
            }
            let encoded = Encoded::take(&pool, writer, Codec::RKYV);
            let encoded = Encoded { transcode: Some(measure), ..encoded };
            let mut out = pool.writer(1 << 20);
            encoded.encode(Codec::MESSAGEPACK, 0, &mut out).unwrap();
            let (said, beside) = pool.finish(out);
            let expected = if is_beside { [1, 1, 1] } else { [41, 1, 2] };
            assert_eq!((&said[..3], beside.is_some()), (&expected[..], is_beside));
        }
    }
}
