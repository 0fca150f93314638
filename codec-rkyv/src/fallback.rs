//! The codecs with names, MessagePack and JSON, for whoever does not share a layout.
//!
//! Both write and read serde's data model, within rules of our own that turn what would be misread into
//! errors: see `write` and `read`.

mod read;
mod wide;
mod write;

use std::io;
use std::marker::PhantomData;

use ringcall_buf::Full;
use ringcall_core::{Codec, EncodeError, Writer};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

use crate::{Invalid, unreadable};

/// How deep a body in MessagePack or JSON may nest.
pub(crate) const NAMED_DEPTH_MAX: u32 = 128;

/// The codecs that this build reads and writes for every typed message, as bits of HELLO.
pub const FALLBACK_CODECS: u64 =
    1 << Codec::MESSAGEPACK.0 | if cfg!(feature = "json") { 1 << Codec::JSON.0 } else { 0 };

/// A value that serde writes and reads; a name for the bounds.
pub trait Named: Serialize + DeserializeOwned {}

impl<T: Serialize + DeserializeOwned> Named for T {}

#[doc(hidden)]
pub fn encode_named<T: Named>(
    value: &T,
    codec: Codec,
    out: &mut Writer,
) -> Result<(), EncodeError> {
    encode(value, codec, out)
}

#[doc(hidden)]
pub fn decode_named<T: Named>(codec: Codec, body: &[u8]) -> Result<T, Invalid> {
    decode(codec, body, PhantomData::<T>)
}

#[doc(hidden)]
pub fn encode_array<T: Named, const N: usize>(
    value: &[T; N],
    codec: Codec,
    out: &mut Writer,
) -> Result<(), EncodeError> {
    encode(&WriteArray(value), codec, out)
}

#[doc(hidden)]
pub fn decode_array<T: Named, const N: usize>(
    codec: Codec,
    body: &[u8],
) -> Result<[T; N], Invalid> {
    decode(codec, body, ReadArray(PhantomData))
}

/// Appends a value in a codec with names.
fn encode(value: &impl Serialize, codec: Codec, out: &mut Writer) -> Result<(), EncodeError> {
    let mut body = Body { out, full: None };
    let is_written = match codec {
        Codec::MESSAGEPACK => {
            let mut packed =
                rmp_serde::Serializer::new(&mut body).with_struct_map().with_human_readable();
            value.serialize(write::Checked::new(&mut packed, write::Rules::MESSAGEPACK)).is_ok()
        }
        #[cfg(feature = "json")]
        Codec::JSON => {
            let mut json = serde_json::Serializer::new(&mut body);
            value.serialize(write::Checked::new(&mut json, write::Rules::JSON)).is_ok()
        }
        _ => return Err(EncodeError::Codec(codec)),
    };
    match (is_written, body.full) {
        (_, Some(full)) => Err(EncodeError::Full(full)),
        (true, None) => Ok(()),
        (false, None) => Err(EncodeError::Failed),
    }
}

/// Reads the value that `seed` asks for in a codec with names. Nothing may follow it.
fn decode<'de, S: DeserializeSeed<'de>>(
    codec: Codec,
    body: &'de [u8],
    seed: S,
) -> Result<S::Value, Invalid> {
    let limits = read::Limits::of(body, codec == Codec::JSON);
    unreadable::begin();
    match codec {
        Codec::MESSAGEPACK => {
            // No body at all is no argument.
            let body = if body.is_empty() { &[0xc0][..] } else { body };
            let mut packed = rmp_serde::Deserializer::from_read_ref(body).with_human_readable();
            // Its own limit counts more than ours does; this one is for what it might do by itself.
            packed.set_max_depth(4 * NAMED_DEPTH_MAX as usize);
            let value = seed.deserialize(read::Checked::new::<S::Value>(&mut packed, &limits));
            let value = value.map_err(|error| {
                unreadable::because_of(&error, "it is no MessagePack of the type")
            })?;
            // Asked for nothing, it goes into no array and no map, so that the only marker which can be
            // missing is the first one. Inside, a missing element would look like the end of the body.
            match <()>::deserialize(&mut packed) {
                Err(rmp_serde::decode::Error::InvalidMarkerRead(error))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    Ok(value)
                }
                _ => Err(unreadable::because("something follows the value")),
            }
        }
        #[cfg(feature = "json")]
        Codec::JSON => {
            let body = if body.is_empty() { &b"null"[..] } else { body };
            let mut json = serde_json::Deserializer::from_slice(body);
            let value = seed.deserialize(read::Checked::new::<S::Value>(&mut json, &limits));
            let value = value.map_err(|error| {
                let otherwise = match error.classify() {
                    serde_json::error::Category::Eof => "it ends too early",
                    serde_json::error::Category::Data => "it is not of the type",
                    _ => "it is no JSON",
                };
                unreadable::because_of(&error, otherwise)
            })?;
            json.end().map_err(|_| unreadable::because("something follows the value"))?;
            Ok(value)
        }
        _ => Err(unreadable::because("this build does not read it")),
    }
}

/// Reads an array, also one that is longer than serde knows.
struct ReadArray<T, const N: usize>(PhantomData<T>);

impl<'de, T: DeserializeOwned, const N: usize> DeserializeSeed<'de> for ReadArray<T, N> {
    type Value = [T; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<[T; N], D::Error> {
        array::deserialize(deserializer)
    }
}

/// Writes such an array.
struct WriteArray<'a, T, const N: usize>(&'a [T; N]);

impl<T: Serialize, const N: usize> Serialize for WriteArray<'_, T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        array::serialize(self.0, serializer)
    }
}

/// The body of a frame under construction, as an encoder sees it.
struct Body<'a> {
    out: &'a mut Writer,
    /// Why it stopped.
    full: Option<Full>,
}

impl io::Write for Body<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.put(bytes).map_err(|full| {
            self.full = Some(full);
            io::ErrorKind::StorageFull.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Arrays of every length in serde's model; `#[message]` puts `#[serde(with = …)]` on fields that are arrays.
#[doc(hidden)]
pub mod array {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Error, SeqAccess, Visitor};
    use serde::ser::SerializeTuple;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer, const N: usize>(
        array: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        array.iter().try_for_each(|element| tuple.serialize_element(element))?;
        tuple.end()
    }

    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[T; N], D::Error> {
        struct Elements<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = [T; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[T; N], A::Error> {
                // Not reserved at once: an array is as large as its author wants, but its sender must
                // have sent it.
                let mut elements = Vec::new();
                while elements.len() < N {
                    let element = seq.next_element()?;
                    elements.push(
                        element.ok_or_else(|| A::Error::invalid_length(elements.len(), &self))?,
                    );
                }
                elements.try_into().map_err(|_| A::Error::custom("an array of another length"))
            }
        }

        deserializer.deserialize_tuple(N, Elements(PhantomData))
    }
}
