//! What stands for the types that messages are made of.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::num;
use core::time::Duration;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::net::{
    ArchivedIpAddr, ArchivedIpv4Addr, ArchivedIpv6Addr, ArchivedSocketAddr, ArchivedSocketAddrV4,
    ArchivedSocketAddrV6,
};
use rkyv::option::ArchivedOption;
use rkyv::rancor::Failure;
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::time::ArchivedDuration;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Archived, Place, Resolver, Serialize};

use super::{Archiver, As, EncodeAs};

/// A type stands for itself. `#[message]` says so of its types; structs may have parameters.
#[doc(hidden)]
#[macro_export]
macro_rules! impl_encode_as_itself {
    ([$($generics:tt)*] $type:ty $(where [$($bounds:tt)*])?) => {
        impl<$($generics)*> $crate::EncodeAs<$type> for $type
        where
            $type: for<'e> $crate::rkyv::Serialize<$crate::Archiver<'e>>,
            $($($bounds)*)?
        {
            type Resolver = $crate::rkyv::Resolver<$type>;

            #[inline]
            fn encode_parts(
                &self,
                encoder: &mut $crate::Archiver<'_>,
            ) -> ::core::result::Result<Self::Resolver, $crate::rkyv::rancor::Failure> {
                $crate::rkyv::Serialize::serialize(self, encoder)
            }

            #[inline]
            fn resolve_as(
                &self,
                resolver: Self::Resolver,
                out: $crate::rkyv::Place<$crate::rkyv::Archived<$type>>,
            ) {
                $crate::rkyv::Archive::resolve(self, resolver, out);
            }

            #[inline]
            fn encode_list(
                list: &[Self],
                encoder: &mut $crate::Archiver<'_>,
            ) -> ::core::result::Result<
                $crate::rkyv::vec::VecResolver,
                $crate::rkyv::rancor::Failure,
            > {
                $crate::rkyv::vec::ArchivedVec::serialize_from_slice(list, encoder)
            }
        }
    };
}

/// A message in an archive stands for it: of structs with a borrowed form `#[message]` says so field by field, others are made
/// originals once more.
#[doc(hidden)]
#[macro_export]
macro_rules! impl_encode_as_archived {
    ([$($generics:tt)*] $archived:ty, $type:ty where [$($bounds:tt)*]) => {
        impl<$($generics)*> $crate::EncodeAs<$type> for $archived
        where
            $type: $crate::Archivable + $crate::rkyv::Archive<Archived = $archived>,
            $($bounds)*
        {
            type Resolver = ($type, $crate::rkyv::Resolver<$type>);

            fn encode_parts(
                &self,
                encoder: &mut $crate::Archiver<'_>,
            ) -> ::core::result::Result<Self::Resolver, $crate::rkyv::rancor::Failure> {
                let original: $type = $crate::owned(self);
                let resolver = $crate::rkyv::Serialize::serialize(&original, encoder)?;
                ::core::result::Result::Ok((original, resolver))
            }

            fn resolve_as(
                &self,
                (original, resolver): Self::Resolver,
                out: $crate::rkyv::Place<$archived>,
            ) {
                $crate::rkyv::Archive::resolve(&original, resolver, out);
            }
        }
    };
}

macro_rules! themselves {
    ($($type:ty)*) => { $(impl_encode_as_itself!([] $type);)* };
}

themselves! {
    () bool char u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64
    num::NonZeroU8 num::NonZeroU16 num::NonZeroU32 num::NonZeroU64 num::NonZeroU128
    num::NonZeroI8 num::NonZeroI16 num::NonZeroI32 num::NonZeroI64 num::NonZeroI128
    String Duration Ipv4Addr Ipv6Addr IpAddr SocketAddrV4 SocketAddrV6 SocketAddr
}

#[cfg(feature = "bytes")]
themselves! { bytes::Bytes }

#[cfg(feature = "smol_str")]
themselves! { smol_str::SmolStr }

#[cfg(feature = "uuid")]
themselves! { uuid::Uuid }

/// Stands for a type as something does that rkyv archives: a number that is read once more, or a container of [`As`].
macro_rules! rebuilt {
    ([$($generics:tt)*] $from:ty => $type:ty, |$value:ident| $build:expr => $built:ty;) => {
        impl<$($generics)*> EncodeAs<$type> for $from {
            type Resolver = Resolver<$built>;

            #[inline]
            fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure> {
                let $value = self;
                $build.serialize(encoder)
            }

            #[inline]
            fn resolve_as(&self, resolver: Self::Resolver, out: Place<Archived<$type>>) {
                let $value = self;
                $build.resolve(resolver, out);
            }
        }
    };
}

macro_rules! numbers_again {
    ($($archived:ident => $type:ty,)*) => {$(
        rebuilt! { [] rkyv::primitive::$archived => $type, |number| number.to_native() => $type; }
    )*};
}

numbers_again! {
    ArchivedChar => char,
    ArchivedU16 => u16,
    ArchivedU32 => u32,
    ArchivedU64 => u64,
    ArchivedU128 => u128,
    ArchivedI16 => i16,
    ArchivedI32 => i32,
    ArchivedI64 => i64,
    ArchivedI128 => i128,
    ArchivedF32 => f32,
    ArchivedF64 => f64,
    ArchivedNonZeroU16 => num::NonZeroU16,
    ArchivedNonZeroU32 => num::NonZeroU32,
    ArchivedNonZeroU64 => num::NonZeroU64,
    ArchivedNonZeroU128 => num::NonZeroU128,
    ArchivedNonZeroI16 => num::NonZeroI16,
    ArchivedNonZeroI32 => num::NonZeroI32,
    ArchivedNonZeroI64 => num::NonZeroI64,
    ArchivedNonZeroI128 => num::NonZeroI128,
}

rebuilt! { [] ArchivedDuration => Duration, |age| Duration::from(*age) => Duration; }
rebuilt! { [] ArchivedIpv4Addr => Ipv4Addr, |ip| ip.as_ipv4() => Ipv4Addr; }
rebuilt! { [] ArchivedIpv6Addr => Ipv6Addr, |ip| ip.as_ipv6() => Ipv6Addr; }
rebuilt! { [] ArchivedIpAddr => IpAddr, |ip| ip.as_ipaddr() => IpAddr; }
rebuilt! { [] ArchivedSocketAddrV4 => SocketAddrV4, |address| address.as_socket_addr_v4() => SocketAddrV4; }
rebuilt! { [] ArchivedSocketAddrV6 => SocketAddrV6, |address| address.as_socket_addr_v6() => SocketAddrV6; }
rebuilt! { [] ArchivedSocketAddr => SocketAddr, |address| address.as_socket_addr() => SocketAddr; }

/// Stands for a type as something else does that it is read as.
macro_rules! forwarded {
    ([$($generics:tt)*] $from:ty => $type:ty, |$value:ident| $read:expr => $as:ty;) => {
        impl<$($generics)*> EncodeAs<$type> for $from {
            type Resolver = <$as as EncodeAs<$type>>::Resolver;

            #[inline]
            fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure> {
                let $value = self;
                <$as as EncodeAs<$type>>::encode_parts($read, encoder)
            }

            #[inline]
            fn resolve_as(&self, resolver: Self::Resolver, out: Place<Archived<$type>>) {
                let $value = self;
                <$as as EncodeAs<$type>>::resolve_as($read, resolver, out);
            }
        }
    };
}

// ---- texts and bytes ----

macro_rules! texts {
    ($($type:ty)*) => {$(
        impl EncodeAs<$type> for str {
            type Resolver = StringResolver;

            #[inline]
            fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<StringResolver, Failure> {
                ArchivedString::serialize_from_str(self, encoder)
            }

            #[inline]
            fn resolve_as(&self, resolver: StringResolver, out: Place<ArchivedString>) {
                ArchivedString::resolve_from_str(self, resolver, out);
            }
        }

        forwarded! { [] ArchivedString => $type, |text| text.as_str() => str; }
        forwarded! { [] Box<str> => $type, |text| &**text => str; }
        forwarded! { [] Cow<'_, str> => $type, |text| &**text => str; }
    )*};
}

texts! { String }

#[cfg(feature = "smol_str")]
texts! { smol_str::SmolStr }

#[cfg(feature = "bytes")]
impl EncodeAs<bytes::Bytes> for [u8] {
    type Resolver = VecResolver;

    #[inline]
    fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<VecResolver, Failure> {
        ArchivedVec::serialize_from_slice(self, encoder)
    }

    #[inline]
    fn resolve_as(&self, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        ArchivedVec::resolve_from_len(self.len(), resolver, out);
    }
}

#[cfg(feature = "bytes")]
forwarded! { [] Vec<u8> => bytes::Bytes, |bytes| bytes.as_slice() => [u8]; }
#[cfg(feature = "bytes")]
forwarded! { [] ArchivedVec<u8> => bytes::Bytes, |bytes| bytes.as_slice() => [u8]; }
#[cfg(feature = "bytes")]
forwarded! { [const N: usize] [u8; N] => bytes::Bytes, |bytes| bytes.as_slice() => [u8]; }

// ---- lists ----

impl<T: Archive, U: EncodeAs<T>> EncodeAs<Vec<T>> for [U] {
    type Resolver = VecResolver;

    #[inline]
    fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<VecResolver, Failure> {
        U::encode_list(self, encoder)
    }

    #[inline]
    fn resolve_as(&self, resolver: VecResolver, out: Place<Archived<Vec<T>>>) {
        ArchivedVec::resolve_from_len(self.len(), resolver, out);
    }
}

forwarded! { [T: Archive, U: EncodeAs<T>] Box<[U]> => Vec<T>, |list| &**list => [U]; }
forwarded! { [T: Archive, U: EncodeAs<T>] Vec<U> => Vec<T>, |list| list.as_slice() => [U]; }
forwarded! { [T: Archive, U: EncodeAs<T>] ArchivedVec<U> => Vec<T>, |list| list.as_slice() => [U]; }
forwarded! { [T: Archive, U: EncodeAs<T>, const N: usize] [U; N] => Vec<T>, |list| list.as_slice() => [U]; }

// ---- around other types ----

macro_rules! options {
    ($($from:ident)*) => {$(
        impl<T: Archive, U: EncodeAs<T>> EncodeAs<Option<T>> for $from<U> {
            type Resolver = Option<U::Resolver>;

            #[inline]
            fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure> {
                self.as_ref().map(|value| value.encode_parts(encoder)).transpose()
            }

            #[inline]
            fn resolve_as(&self, resolver: Self::Resolver, out: Place<Archived<Option<T>>>) {
                // rkyv trusts that both are there or neither. Who has written a source of their own may be mistaken.
                let both = self.as_ref().map(As::<T, U>::new).zip(resolver);
                let (value, resolver) = both.unzip();
                value.resolve(resolver, out);
            }
        }
    )*};
}

options! { Option ArchivedOption }

rebuilt! {
    [T: Archive, U: EncodeAs<T>, const N: usize] [U; N] => [T; N],
    |array| array.each_ref().map(As::<T, U>::new) => [As<'static, T, U>; N];
}

macro_rules! tuples {
    ($($archived:ident: $($type:ident $value:ident $index:tt)*;)*) => {$(
        rebuilt! {
            [$($type: Archive, $value: EncodeAs<$type>),*] ($($value,)*) => ($($type,)*),
            |tuple| ($(As::<$type, $value>::new(&tuple.$index),)*) => ($(As<'static, $type, $value>,)*);
        }

        rebuilt! {
            [$($type: Archive, $value: EncodeAs<$type>),*] rkyv::tuple::$archived<$($value),*> => ($($type,)*),
            |tuple| ($(As::<$type, $value>::new(&tuple.$index),)*) => ($(As<'static, $type, $value>,)*);
        }
    )*};
}

tuples! {
    ArchivedTuple1: A A1 0;
    ArchivedTuple2: A A1 0 B B1 1;
    ArchivedTuple3: A A1 0 B B1 1 C C1 2;
    ArchivedTuple4: A A1 0 B B1 1 C C1 2 D D1 3;
    ArchivedTuple5: A A1 0 B B1 1 C C1 2 D D1 3 E E1 4;
    ArchivedTuple6: A A1 0 B B1 1 C C1 2 D D1 3 E E1 4 F F1 5;
    ArchivedTuple7: A A1 0 B B1 1 C C1 2 D D1 3 E E1 4 F F1 5 G G1 6;
    ArchivedTuple8: A A1 0 B B1 1 C C1 2 D D1 3 E E1 4 F F1 5 G G1 6 H H1 7;
}

macro_rules! boxes {
    ($($from:ident)*) => {$(
        impl<T: Archive, U: EncodeAs<T>> EncodeAs<Box<T>> for $from<U> {
            type Resolver = BoxResolver;

            fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<BoxResolver, Failure> {
                ArchivedBox::serialize_from_ref(&As::<T, U>::new(self), encoder)
            }

            fn resolve_as(&self, resolver: BoxResolver, out: Place<Archived<Box<T>>>) {
                ArchivedBox::resolve_from_ref(&As::<T, U>::new(self), resolver, out);
            }
        }
    )*};
}

boxes! { Box ArchivedBox }

forwarded! { [T: Archive, U: EncodeAs<T> + ?Sized] &U => T, |value| &**value => U; }
forwarded! { [T: Archive, U: EncodeAs<T> + ?Sized] Rc<U> => T, |value| &**value => U; }
forwarded! { [T: Archive, U: EncodeAs<T> + ?Sized] Arc<U> => T, |value| &**value => U; }
// Not of all that can be borrowed, since that is somebody's code, which might give something else each time.
forwarded! { [T: Archive, U: EncodeAs<T> + Clone] Cow<'_, U> => T, |value| &**value => U; }
forwarded! { [T: Archive, U: EncodeAs<T> + Clone] Cow<'_, [U]> => Vec<T>, |value| &**value => [U]; }
