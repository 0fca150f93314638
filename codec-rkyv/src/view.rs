//! A received body, read in place.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use bytes::Bytes;
use ringcall_buf::{Chunk, Frozen, Pool, SharedChunk};
use ringcall_core::REFERENCE_BYTES_MIN;
use rkyv::rancor::{Failure, Strategy};
use rkyv::{Archived, Deserialize};

use crate::archive::{Archivable, Invalid, check, deserialize};

/// A received message: its bytes, checked once, and read where they landed.
///
/// Derefs to the archived type: `view.price` is an archived number (`.to_native()` makes it an ordinary
/// one), `view.name` an archived string that derefs to `str`. [`to_owned`](View::to_owned) makes the
/// original type of it, [`owned`] that of a part. Fields compare with originals: `view.kind == Kind::Limit`, if `Kind`
/// derives `PartialEq` below `#[message]`. `docs/MESSAGES.md` has a table of how each type of field is read.
///
/// A view of a [`Chunk`] stays on its thread and is counted without atomics; [`share`](View::share)
/// makes one that may go anywhere. Either keeps the memory that it landed in from being used again,
/// up to 64 KiB for a small message, and 256 KiB where much comes at a time: to keep one for long,
/// [`detach`](View::detach) it.
pub struct View<T: Archivable, B: Frozen = Chunk> {
    body: B,
    message: PhantomData<fn() -> T>,
}

/// A view that may go to other threads.
pub type SharedView<T> = View<T, SharedChunk>;

impl<T: Archivable, B: Frozen> View<T, B> {
    /// The body that it reads.
    pub(crate) fn into_body(self) -> B {
        self.body
    }

    /// Checks a body.
    ///
    /// # Errors
    /// [`Invalid`] when it is not an archive of `T`: out of bounds, misaligned, nested too deeply, or
    /// with values that the type does not have.
    #[inline]
    pub fn new(body: B) -> Result<View<T, B>, Invalid> {
        check::<T>(body.as_ref())?;
        Ok(View { body, message: PhantomData })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// The original type, deserialized.
    #[must_use]
    pub fn to_owned(&self) -> T {
        deserialize(&**self).expect("a checked archive deserializes")
    }
}

impl<T: Archivable> View<T, Chunk> {
    /// The same message for other threads. Counts, does not copy.
    #[must_use]
    pub fn share(&self) -> SharedView<T> {
        // The bytes are the ones that were checked.
        View { body: self.body.share(), message: PhantomData }
    }

    /// The same message in memory of its own and of its size, so that keeping it keeps nothing else.
    #[must_use]
    pub fn detach(&self, pool: &Pool) -> View<T, Chunk> {
        // What lies where in an archive is right for the address at which it was checked, modulo 16, which
        // is the largest alignment of what is archived. Blocks begin at multiples of 16.
        let phase = self.body.as_ptr().addr() & 15;
        let mut copy = pool.take(phase + self.body.len());
        copy.extend_from_slice(&[0; 16][..phase]);
        copy.extend_from_slice(&self.body);
        let mut body = copy.freeze();
        body.advance(phase);
        View { body, message: PhantomData }
    }
}

impl<T: Archivable, B: Frozen + Clone + Into<SharedChunk>> View<T, B> {
    /// Bytes of the message, as in `view.slice_ref(&view.picture)`, to keep, to send on in another message, or to give
    /// to whoever takes [`Bytes`]. From 16 KiB on they are not copied, and keep the whole message where it landed;
    /// fewer are copied, since they would keep more memory than they are worth. A message with a field of such `Bytes`
    /// is sent without a copy of them, too.
    ///
    /// # Panics
    /// When a part of 16 KiB or more does not lie within the message.
    #[must_use]
    pub fn slice_ref(&self, part: &[u8]) -> Bytes {
        if part.len() < REFERENCE_BYTES_MIN {
            return Bytes::copy_from_slice(part);
        }
        let whole: SharedChunk = self.body.clone().into();
        Bytes::from(whole).slice_ref(part)
    }
}

impl<T: Archivable, B: Frozen + Clone> Clone for View<T, B> {
    fn clone(&self) -> View<T, B> {
        View { body: self.body.clone(), message: PhantomData }
    }
}

impl<T: Archivable, B: Frozen> Deref for View<T, B> {
    type Target = Archived<T>;

    #[inline]
    fn deref(&self) -> &Archived<T> {
        // SAFETY: `new` checked these bytes, and `Frozen` promises that they are still the same at the
        // same place; the siblings that make views copy or share checked bytes. (test: `views_read_what_was_written`)
        unsafe { rkyv::access_unchecked::<Archived<T>>(self.body.as_ref()) }
    }
}

impl<T: Archivable<Archived: fmt::Debug>, B: Frozen> fmt::Debug for View<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Archivable<Archived: fmt::Display>, B: Frozen> fmt::Display for View<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Archivable<Archived: PartialEq<T>>, B: Frozen> PartialEq<T> for View<T, B> {
    fn eq(&self, other: &T) -> bool {
        **self == *other
    }
}

impl<T: Archivable<Archived: PartialEq<str>>, B: Frozen> PartialEq<str> for View<T, B> {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl<T: Archivable<Archived: PartialEq<str>>, B: Frozen> PartialEq<&str> for View<T, B> {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

/// The original of a part of a message, deserialized, as [`View::to_owned`] makes that of the whole:
/// `let lines: Vec<Line> = ringcall::owned(&view.lines);`
///
/// A field with a wrapper of its own is read by what that archives it as.
///
/// # Panics
/// With a part of no checked message, whose type has an invariant that its archive does not have.
#[must_use]
pub fn owned<T, A>(part: &A) -> T
where
    T: Archivable<Archived = A>,
    A: Deserialize<T, Strategy<(), Failure>>,
{
    deserialize(part).expect("a checked archive deserializes")
}
