//! Points in time as fields.

use std::time::{SystemTime, UNIX_EPOCH};

use rkyv::bytecheck::{CheckBytes, Verify};
use rkyv::rancor::{Fallible, Source, fail};
use rkyv::time::ArchivedDuration;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Place, Portable};

use crate::unencodable::because;
use crate::{Invalid, Shape, WireWith};

/// Archives a [`SystemTime`] as the time since 1970: `#[rkyv(with = UnixTime)]` on the field. A time
/// before that cannot be encoded: the call fails with [`Cause::Encode`](ringcall_core::Cause::Encode), and the log says so.
///
/// rkyv's own `AsUnixTime` is left out: it accepts times that no clock can hold, and panics when such a
/// one is made a [`SystemTime`].
#[derive(Clone, Copy, Debug)]
pub struct UnixTime;

/// The time since 1970, not later than a [`SystemTime`] can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck, verify)]
#[rkyv(crate = rkyv)]
#[repr(transparent)]
pub struct ArchivedUnixTime(ArchivedDuration);

impl ArchivedUnixTime {
    /// The original.
    #[must_use]
    pub fn to_system_time(&self) -> SystemTime {
        UNIX_EPOCH + self.0.into()
    }
}

impl PartialEq<SystemTime> for ArchivedUnixTime {
    fn eq(&self, other: &SystemTime) -> bool {
        self.to_system_time() == *other
    }
}

// SAFETY: refuses what is not a valid value; the bytes themselves are the duration's to check.
// (test: `times_that_no_clock_can_hold_are_refused`)
unsafe impl<C: Fallible<Error: Source> + ?Sized> Verify<C> for ArchivedUnixTime {
    fn verify(&self, _: &mut C) -> Result<(), C::Error> {
        match UNIX_EPOCH.checked_add(self.0.into()) {
            Some(_) => Ok(()),
            None => fail!(Invalid),
        }
    }
}

impl ArchiveWith<SystemTime> for UnixTime {
    type Archived = ArchivedUnixTime;
    type Resolver = ();

    fn resolve_with(time: &SystemTime, (): (), out: Place<ArchivedUnixTime>) {
        // It was seen to be later by `serialize_with`.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        rkyv::munge::munge!(let ArchivedUnixTime(out) = out);
        since.resolve((), out);
    }
}

impl<S: Fallible<Error: Source> + ?Sized> SerializeWith<SystemTime, S> for UnixTime {
    fn serialize_with(time: &SystemTime, _: &mut S) -> Result<(), S::Error> {
        match time.duration_since(UNIX_EPOCH) {
            Ok(_) => Ok(()),
            Err(error) => {
                because("a point in time in it is before 1970");
                fail!(error)
            }
        }
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedUnixTime, SystemTime, D> for UnixTime {
    fn deserialize_with(time: &ArchivedUnixTime, _: &mut D) -> Result<SystemTime, D::Error> {
        Ok(time.to_system_time())
    }
}

impl WireWith<SystemTime> for UnixTime {
    fn describe(shape: &mut Shape) {
        shape.opaque::<ArchivedUnixTime>("unix-time");
    }
}
