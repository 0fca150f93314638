//! What may stand for a message, or for a part of one, when it is written: texts and lists that are borrowed, what was
//! read in a view, what an iterator gives.

use core::marker::PhantomData;

use rkyv::rancor::{Failure, Strategy};
use rkyv::util::SerVec;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Archived, Place, Serialize};

use crate::Encoder;

mod sources;

/// What archives are written with, as rkyv's traits take it.
pub type Archiver<'a> = Strategy<Encoder<'a>, Failure>;

/// What can be written in place of a `T`: its archive is that of a `T`.
///
/// | for a | may stand |
/// |---|---|
/// | message | itself; its borrowed form, which `#[message(borrowed)]` makes |
/// | `String` | `&str`, `Box<str>`, `Arc<str>`, `Cow<str>` |
/// | `Vec<T>` | a `Vec`, slice or array of what may stand for a `T`; [`each`] of an iterator |
/// | `Bytes` | `&[u8]`, a `Vec<u8>` |
/// | `Option<T>`, `Box<T>`, arrays, tuples | the same of what may stand for a `T`; `None` alone is `None::<&str>` |
/// | a number, `Duration`, an address | itself |
///
/// So may what is read in a view: archived messages, texts, lists and numbers. An archived message without a borrowed form is made an
/// original for the time. And so may a reference to what may stand for something, and an `Rc` or `Arc` of it.
///
/// [`Encoded::of`](crate::Encoded::of) takes it. `#[message(borrowed)]` implements it. Who does so by hand goes by rkyv's rules:
/// both steps are of the same value, which has not changed in between, as rkyv's own [`Archive::resolve`] wants it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written as a `{T}`",
    label = "does not stand for a `{T}`",
    note = "for a text it is `&str`, for a list a slice or `ringcall::each(iterator)`, for a message that, or what \
            `#[message(borrowed)]` makes of it",
    note = "what is read in a view stands for its own type, by reference; numbers are not converted, and `.to_native()` makes an \
            ordinary one of an archived one"
)]
pub trait EncodeAs<T: Archive> {
    /// What is known of it once its parts are written.
    type Resolver;

    /// Writes what lies outside of its own place: texts, lists, boxes.
    ///
    /// # Errors
    /// When that does not fit, or cannot be written.
    fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure>;

    /// Writes its own place, with what [`encode_parts`](Self::encode_parts) gave for this value.
    fn resolve_as(&self, resolver: Self::Resolver, out: Place<Archived<T>>);

    /// Writes a list of it, and says where.
    #[doc(hidden)]
    fn encode_list(list: &[Self], encoder: &mut Archiver<'_>) -> Result<VecResolver, Failure>
    where
        Self: Sized,
    {
        let list = list.iter().map(As::<T, Self>::new);
        ArchivedVec::serialize_from_iter::<As<'_, T, Self>, _, _>(list, encoder)
    }
}

/// It as something that rkyv archives.
#[doc(hidden)]
#[derive(Debug)]
pub struct As<'a, T, U: ?Sized>(&'a U, PhantomData<fn() -> T>);

impl<'a, T, U: ?Sized> As<'a, T, U> {
    #[inline]
    pub(crate) fn new(value: &'a U) -> As<'a, T, U> {
        As(value, PhantomData)
    }
}

impl<T: Archive, U: EncodeAs<T> + ?Sized> Archive for As<'_, T, U> {
    type Archived = Archived<T>;
    type Resolver = U::Resolver;

    #[inline]
    fn resolve(&self, resolver: U::Resolver, out: Place<Archived<T>>) {
        self.0.resolve_as(resolver, out);
    }
}

impl<T: Archive, U: EncodeAs<T> + ?Sized> Serialize<Archiver<'_>> for As<'_, T, U> {
    #[inline]
    fn serialize(&self, encoder: &mut Archiver<'_>) -> Result<U::Resolver, Failure> {
        self.0.encode_parts(encoder)
    }
}

/// A list, of what an iterator gives: see [`each`].
#[derive(Clone, Copy, Debug)]
pub struct Each<I>(I);

/// Writes a list of what an iterator gives, which is asked once: `legs: each(order.legs.iter().map(|leg| LegRef { … }))`.
/// What it gives is kept in scratch memory until all of it is written, and is not collected before.
///
/// One whose length is not known beforehand, as behind a `filter`, is collected into a `Vec`, which stands for a list, too.
pub fn each<I: IntoIterator<IntoIter: ExactSizeIterator + Clone>>(items: I) -> Each<I::IntoIter> {
    Each(items.into_iter())
}

impl<T: Archive, I> EncodeAs<Vec<T>> for Each<I>
where
    I: ExactSizeIterator<Item: EncodeAs<T>> + Clone,
{
    type Resolver = (VecResolver, usize);

    fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure> {
        let items = self.0.clone();
        let count = items.len();
        // Not written from the iterator itself, which would be asked twice, and might give something else then.
        SerVec::with_capacity(encoder, count, |kept, encoder| {
            items.take(count).for_each(|item| kept.push(item));
            let resolver = I::Item::encode_list(kept.as_slice(), encoder)?;
            Ok((resolver, kept.len()))
        })?
    }

    fn resolve_as(&self, (resolver, len): Self::Resolver, out: Place<Archived<Vec<T>>>) {
        ArchivedVec::resolve_from_len(len, resolver, out);
    }
}
