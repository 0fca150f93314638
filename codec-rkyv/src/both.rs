//! Comparing fields of a message in its archive with those of an original, for the code that `#[message]` makes.

use core::marker::PhantomData;

use rkyv::rancor::{Failure, Strategy};
use rkyv::with::{ArchiveWith, DeserializeWith};

/// What archived fields are made originals with.
#[doc(hidden)]
pub type Owner = Strategy<(), Failure>;

/// A field, as the wrapper `W` has archived it, and another that is not archived.
#[doc(hidden)]
#[derive(Debug)]
pub struct Both<'a, W, A, F> {
    archived: &'a A,
    original: &'a F,
    wrapper: PhantomData<fn() -> W>,
}

impl<'a> Both<'a, (), (), ()> {
    #[inline]
    pub fn of<W: ArchiveWith<F>, F>(
        archived: &'a W::Archived,
        original: &'a F,
    ) -> Both<'a, W, W::Archived, F> {
        Both { archived, original, wrapper: PhantomData }
    }
}

/// Compares them as they are. Of two methods of one name the compiler takes the one that needs no further reference, if its
/// bounds hold.
#[doc(hidden)]
pub trait AsArchived {
    fn are_same(&self) -> bool;
}

impl<W, A: PartialEq<F>, F> AsArchived for Both<'_, W, A, F> {
    #[inline]
    fn are_same(&self) -> bool {
        *self.archived == *self.original
    }
}

/// Otherwise makes an original of the archived one.
#[doc(hidden)]
pub trait AsOriginal {
    fn are_same(&self) -> bool;
}

impl<W: DeserializeWith<A, F, Owner>, A, F: PartialEq> AsOriginal for &Both<'_, W, A, F> {
    fn are_same(&self) -> bool {
        let owned = W::deserialize_with(self.archived, Strategy::wrap(&mut ()));
        owned.is_ok_and(|owned| owned == *self.original)
    }
}
