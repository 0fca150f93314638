//! The types that a message may be made of.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::num;
use core::time::Duration;

use rkyv::with::{ArchiveWith, Map};
use rkyv::{Archive, Archived};

use crate::Shape;

/// A type that may be part of a message.
///
/// `#[message]` implements it for your types; primitives, strings, vectors, arrays, options, boxes and
/// tuples have it. rkyv can archive more, and these are left out on purpose, because somebody who
/// sends crafted bytes could do harm with them:
///
/// * `HashMap`, `HashSet` and their relatives: the checker of rkyv 0.8 does not look at all control
///   bytes of a table, so a lookup in a crafted one may loop for ever or read out of bounds. Send a
///   sorted `Vec` of pairs.
/// * `Rc`, `Arc` and their weak kin: what is shared in an archive is found by address, and a million
///   pointers to one thing are a million checks.
/// * vectors of types without size, such as `Vec<()>`: eight bytes can say that they have four billion
///   elements.
/// * borrowed types: a received message owns its bytes. Send `String` and `Vec<u8>`.
///
/// Types of other crates go through a wrapper, `#[rkyv(with = …)]` on the field; see [`WireWith`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a message",
    label = "not a wire type",
    note = "a type of your own: put `#[ringcall::message]` on it",
    note = "a type of another crate: say how to archive the field, `#[rkyv(with = …)]`, and unless serde knows it how to name it, `#[serde(with = …)]`",
    note = "for `Decimal`, `DateTime` and their like docs/MESSAGES.md has a whole one",
    note = "instead of a map or a set send a sorted `Vec`, instead of `Rc` and `Arc` the value or a `Box`, \
            instead of `usize` a `u64`, instead of borrowed data `String` and `Vec`"
)]
pub trait WireType: Archive + 'static {
    /// Fails to compile for types that can be named but not sent.
    #[doc(hidden)]
    const CHECK: () = ();

    /// Appends the type's description, see `docs/SHAPES.md`.
    #[doc(hidden)]
    fn describe(shape: &mut Shape);
}

/// How a field of a foreign type is archived: for the `W` of `#[rkyv(with = W)]`.
///
/// Whoever implements it for a wrapper of their own promises that its archived form is one that can be
/// checked: none of what [`WireType`] leaves out, and all that passes its check can be deserialized.
/// [`View::to_owned`](crate::View::to_owned) panics if not, with bytes that somebody else chose.
///
/// What is a wrapper for a type is also one for an [`Option`], a [`Vec`] or an array of it:
/// `#[rkyv(with = Map<W>)]`, with rkyv's [`Map`]. `docs/MESSAGES.md` shows a whole one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not known to archive `{F}` as something that can be checked",
    label = "not a wire wrapper",
    note = "implement `ringcall::WireWith<{F}>` for a wrapper of your own; in an `Option`, a `Vec` or an array it is `Map<Wrapper>`"
)]
pub trait WireWith<F>: ArchiveWith<F> {
    /// Appends the description of the archived form, see [`Shape::opaque`].
    fn describe(shape: &mut Shape);
}

impl<T, W: WireWith<T>> WireWith<Option<T>> for Map<W> {
    fn describe(shape: &mut Shape) {
        shape.container_with::<<Map<W> as ArchiveWith<Option<T>>>::Archived, T, W>("option");
    }
}

impl<T, W: WireWith<T>> WireWith<Vec<T>> for Map<W> {
    fn describe(shape: &mut Shape) {
        const { assert_size::<W::Archived>() }
        shape.container_with::<<Map<W> as ArchiveWith<Vec<T>>>::Archived, T, W>("vec");
    }
}

impl<T, W: WireWith<T>, const N: usize> WireWith<[T; N]> for Map<W> {
    fn describe(shape: &mut Shape) {
        let name = format!("array-{N}");
        shape.container_with::<<Map<W> as ArchiveWith<[T; N]>>::Archived, T, W>(&name);
    }
}

/// Of what is in a vector.
const fn assert_size<A>() {
    assert!(
        size_of::<A>() != 0,
        "a vector of a type without size cannot be sent, its length would be the sender's to choose: send a number"
    );
}

/// Evaluates checks.
const fn all(_: &[()]) {}

macro_rules! leaves {
    ($($type:ty = $name:literal,)*) => {
        $(impl WireType for $type {
            fn describe(shape: &mut Shape) {
                shape.leaf::<$type>($name);
            }
        })*
    };
}

leaves! {
    () = "unit",
    bool = "bool",
    char = "char",
    u8 = "u8", u16 = "u16", u32 = "u32", u64 = "u64", u128 = "u128",
    i8 = "i8", i16 = "i16", i32 = "i32", i64 = "i64", i128 = "i128",
    f32 = "f32", f64 = "f64",
    num::NonZeroU8 = "nz-u8", num::NonZeroU16 = "nz-u16", num::NonZeroU32 = "nz-u32",
    num::NonZeroU64 = "nz-u64", num::NonZeroU128 = "nz-u128",
    num::NonZeroI8 = "nz-i8", num::NonZeroI16 = "nz-i16", num::NonZeroI32 = "nz-i32",
    num::NonZeroI64 = "nz-i64", num::NonZeroI128 = "nz-i128",
    String = "string",
    Duration = "duration",
    Ipv4Addr = "ipv4", Ipv6Addr = "ipv6", IpAddr = "ip",
    SocketAddrV4 = "socket-v4", SocketAddrV6 = "socket-v6", SocketAddr = "socket",
}

#[cfg(feature = "bytes")]
leaves! { bytes::Bytes = "bytes", }

#[cfg(feature = "smol_str")]
leaves! { smol_str::SmolStr = "string", }

#[cfg(feature = "uuid")]
leaves! { uuid::Uuid = "uuid", }

impl<T: WireType> WireType for Vec<T>
where
    Vec<T>: Archive,
{
    const CHECK: () = {
        all(&[T::CHECK]);
        assert_size::<Archived<T>>();
    };

    fn describe(shape: &mut Shape) {
        const { Self::CHECK }
        shape.container::<Self>("vec", |shape| shape.add::<T>());
    }
}

impl<T: WireType, const N: usize> WireType for [T; N]
where
    [T; N]: Archive,
{
    const CHECK: () = T::CHECK;

    fn describe(shape: &mut Shape) {
        shape.container::<Self>(&format!("array-{N}"), |shape| shape.add::<T>());
    }
}

impl<T: WireType> WireType for Option<T>
where
    Option<T>: Archive,
{
    const CHECK: () = T::CHECK;

    fn describe(shape: &mut Shape) {
        shape.container::<Self>("option", |shape| shape.add::<T>());
    }
}

impl<T: WireType> WireType for Box<T>
where
    Box<T>: Archive,
{
    const CHECK: () = T::CHECK;

    fn describe(shape: &mut Shape) {
        shape.container::<Self>("box", |shape| shape.add::<T>());
    }
}

macro_rules! tuples {
    ($($($name:ident)*;)*) => {
        $(impl<$($name: WireType),*> WireType for ($($name,)*)
        where
            ($($name,)*): Archive,
        {
            const CHECK: () = all(&[$($name::CHECK),*]);

            fn describe(shape: &mut Shape) {
                shape.container::<Self>("tuple", |shape| { $(shape.add::<$name>();)* });
            }
        })*
    };
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}
