//! Encoding into outgoing memory and checking received memory, with rkyv's low-level API.

use core::fmt;
use core::num::NonZeroUsize;

use ringcall_buf::Full;
use ringcall_core::frame::ArchiveFormat;
use ringcall_core::{EncodeError, REFERENCE_BYTES_MIN, Status, Writer};
use rkyv::api::{access_with_context, serialize_using};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::{Positional, Serializer};
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Archived, Deserialize, Portable, Serialize};

use crate::scratch::Scratch;
use crate::unencodable::failed;
use crate::{Archiver, Shape, WireType, in_place};

/// How many pointers deep an archive may nest. rkyv's own default has no limit, and a linked list of a
/// megabyte would overflow the stack of whoever checks it.
pub const DEPTH_MAX: usize = 64;

/// Archives with these can be written and checked; a name for their bounds.
///
/// Neither sharing (`Rc`, `Arc`) nor pooling is supported, on purpose.
pub trait Archivable:
    Sized
    + WireType
    + Archive<Archived: Portable + Checkable + Deserialize<Self, Strategy<(), Failure>>>
    + for<'a> Serialize<Archiver<'a>>
{
}

impl<T> Archivable for T where
    T: WireType
        + Archive<Archived: Portable + Checkable + Deserialize<T, Strategy<(), Failure>>>
        + for<'a> Serialize<Archiver<'a>>
{
}

/// Archived types that can be checked within a depth limit; a name for their bounds.
pub trait Checkable: for<'a> CheckBytes<Strategy<ArchiveValidator<'a>, Failure>> {}

impl<T> Checkable for T where T: for<'a> CheckBytes<Strategy<ArchiveValidator<'a>, Failure>> {}

/// What archives are written with: into outgoing memory, with scratch memory of the thread's.
pub type Encoder<'a> = Serializer<BodyWriter<'a>, Scratch, ()>;

/// The body of a frame under construction, as rkyv sees it.
#[derive(Debug)]
pub struct BodyWriter<'a> {
    out: &'a mut Writer,
    /// Where the body starts, a multiple of 16, less what lies within it elsewhere: then positions are found without
    /// looking whether there is any.
    start: usize,
    /// Why it stopped.
    full: Option<Full>,
}

impl Positional for BodyWriter<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.out.len().wrapping_sub(self.start)
    }
}

impl rkyv::ser::Writer<Failure> for BodyWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        // Most padding is none, which would be a call of `memset` all the same.
        if bytes.is_empty() {
            return Ok(());
        }
        let written = match bytes.len() >= REFERENCE_BYTES_MIN {
            true => self.write_much(bytes),
            false => self.out.put(bytes),
        };
        written.map_err(|full| {
            self.full = Some(full);
            Failure
        })
    }
}

impl BodyWriter<'_> {
    /// Bytes that somebody [counts](crate::in_place) are sent from where they are, if that can be.
    #[cold]
    fn write_much(&mut self, bytes: &[u8]) -> Result<(), Full> {
        match in_place::take(bytes).filter(|_| self.out.can_attach_within()) {
            Some(counted) => {
                self.out.attach_within(counted.into())?;
                self.start = self.start.wrapping_sub(bytes.len());
                Ok(())
            }
            None => self.out.put(bytes),
        }
    }
}

/// Appends the archive of `value` to `out`, its root at the end.
#[inline(always)]
pub(crate) fn encode<T: Archivable>(value: &T, out: &mut Writer) -> Result<(), EncodeError> {
    write::<T, T>(value, out)
}

/// Appends the archive of a `T`, of something that stands for one.
#[inline(always)]
pub(crate) fn write<T, V>(value: &V, out: &mut Writer) -> Result<(), EncodeError>
where
    V: for<'a> Serialize<Archiver<'a>>,
{
    let start = out.len();
    debug_assert_eq!(start % 16, 0);
    let writer = BodyWriter { out, start, full: None };
    let mut encoder = Serializer::new(writer, Scratch::new(), ());
    match serialize_using::<_, Failure>(value, &mut encoder) {
        Ok(_) => Ok(()),
        // If it was not for want of room, a type's own archiving failed.
        Err(Failure) => Err(encoder.writer.full.map_or_else(failed::<T>, EncodeError::Full)),
    }
}

/// Checks that `bytes` are an archive of `T`, and finds its root.
#[inline]
pub(crate) fn check<T: Archivable>(bytes: &[u8]) -> Result<&Archived<T>, Invalid> {
    // Refuses to compile for types that cannot be checked, also if nobody asks for their shape.
    let _: fn(&mut Shape) = T::describe;
    // The validator counts the way to the root, and wants something to be left at the end.
    let depth = const { NonZeroUsize::new(DEPTH_MAX + 2) };
    let mut validator = ArchiveValidator::with_max_depth(bytes, depth);
    access_with_context::<Archived<T>, _, Failure>(bytes, &mut validator).map_err(|_| Invalid)
}

/// The original type of an archive that was checked.
///
/// # Errors
/// Without sharing and with checked bytes there is nothing that could fail, except a type's own invariant
/// that its archive does not have.
pub(crate) fn deserialize<T: Archivable>(archived: &Archived<T>) -> Result<T, Invalid> {
    archived.deserialize(Strategy::wrap(&mut ())).map_err(|Failure| Invalid)
}

/// The body is not a valid archive of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are not a valid archive of this type")
    }
}

impl core::error::Error for Invalid {}

impl From<Invalid> for Status {
    /// What a caller is told who has sent it.
    #[inline]
    fn from(_: Invalid) -> Status {
        Status::BAD_BODY
    }
}

/// The global layout options of rkyv in this program. Any dependency may flip them by a feature, so
/// they are measured, not assumed, and they are a part of every shape.
#[must_use]
pub const fn archive_format() -> ArchiveFormat {
    ArchiveFormat::new(
        IS_BIG_ENDIAN,
        size_of::<Archived<usize>>() as u8 * 8,
        align_of::<Archived<u64>>() == align_of::<u64>(),
    )
}

/// Whether archived numbers have their highest byte first.
pub(crate) const IS_BIG_ENDIAN: bool = {
    let one = Archived::<u16>::from_native(1);
    // SAFETY: `u16_le` and its siblings are two plain bytes. (test: `the_format_is_measured`)
    let bytes: [u8; 2] = unsafe { core::mem::transmute(one) };
    bytes[0] == 0
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_measured() {
        assert_eq!(archive_format(), ArchiveFormat::STANDARD);
    }

    /// The first release without RUSTSEC-2026-0233, -0234 and -0235, which are reachable through safe
    /// access, is 0.8.17. `cargo deny` checks advisories where it can reach them; this holds always.
    #[test]
    fn rkyv_is_new_enough() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
        let Ok(lock) = lock else { return };
        let (_, rest) = lock.split_once("name = \"rkyv\"\nversion = \"").expect("rkyv is locked");
        let (version, _) = rest.split_once('"').expect("a version ends");
        let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        assert!(parts >= vec![0, 8, 18], "rkyv {version}");
    }
}
