//! Fields of [`Bytes`], which are counted and do not change: large ones need not be copied into a message.
//!
//! rkyv hands its writer a slice, of which one cannot see that somebody counts it. So the field says whose bytes come
//! next, and the writer looks when they are many.

use core::any::Any;
use core::cell::Cell;

use bytes::Bytes;
use ringcall_core::REFERENCE_BYTES_MIN;
use rkyv::rancor::Fallible;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Archived, Deserialize, Place, Serialize};

thread_local! {
    /// The large field that is being written.
    static OFFERED: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// What `#[message]` wraps fields in whose type is called `Bytes`. Other types of that name are written as always.
#[doc(hidden)]
#[derive(Debug)]
pub struct InPlace;

impl<F: Archive> ArchiveWith<F> for InPlace {
    type Archived = Archived<F>;
    type Resolver = F::Resolver;

    #[inline]
    fn resolve_with(field: &F, resolver: F::Resolver, out: Place<Archived<F>>) {
        field.resolve(resolver, out);
    }
}

impl<F: Serialize<S> + 'static, S: Fallible + ?Sized> SerializeWith<F, S> for InPlace {
    #[inline]
    fn serialize_with(field: &F, serializer: &mut S) -> Result<F::Resolver, S::Error> {
        if let Some(bytes) = (field as &dyn Any).downcast_ref::<Bytes>()
            && bytes.len() >= REFERENCE_BYTES_MIN
        {
            OFFERED.set(Some(bytes.clone()));
            let written = field.serialize(serializer);
            OFFERED.set(None);
            return written;
        }
        field.serialize(serializer)
    }
}

impl<F: Archive, D: Fallible + ?Sized> DeserializeWith<Archived<F>, F, D> for InPlace
where
    Archived<F>: Deserialize<F, D>,
{
    #[inline]
    fn deserialize_with(field: &Archived<F>, deserializer: &mut D) -> Result<F, D::Error> {
        field.deserialize(deserializer)
    }
}

/// The field that these are the bytes of, if there is one.
pub(crate) fn take(bytes: &[u8]) -> Option<Bytes> {
    OFFERED.take().filter(|offered| core::ptr::eq(&**offered, bytes))
}
