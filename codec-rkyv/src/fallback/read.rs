//! What is read: only what its sender wrote by name, within limits.
//!
//! * Fields and variants go by name. serde would also take them by position, which is a misreading as soon as
//!   somebody moves one.
//! * Integers become floating-point numbers only if they stay the same.
//! * Nesting is limited, and so is memory: elements of a list, and what is behind a pointer, are charged with
//!   the size that they have here, since a byte can stand for a struct of which all fields are missing.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::NAMED_DEPTH_MAX;
use super::wide::Wide;

/// Elements and what is behind pointers may take this much memory, in bytes, and so many more for each byte
/// of the body.
const MEMORY_BYTES: usize = 1 << 20;
const MEMORY_A_BYTE: usize = 16;
/// For how many elements room is made because the sender says that they follow.
const RESERVED_MAX: usize = 16;

pub(super) struct Limits {
    /// The codec has integers of 128 bits.
    has_wide: bool,
    depth: Cell<u32>,
    memory: Cell<usize>,
}

impl Limits {
    pub(super) fn of(body: &[u8], has_wide: bool) -> Limits {
        Limits {
            has_wide,
            depth: Cell::new(NAMED_DEPTH_MAX),
            memory: Cell::new(
                MEMORY_BYTES.saturating_add(body.len().saturating_mul(MEMORY_A_BYTE)),
            ),
        }
    }

    fn go_inside<T, E: Error>(&self, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let depth = self.depth.get();
        self.depth.set(depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?);
        let value = read();
        self.depth.set(depth);
        value
    }

    /// Whether so many things of this size can be taken at all: those that cannot are refused before the first of them
    /// is, and not when memory is used up, which takes milliseconds.
    #[inline]
    fn expect<E: Error>(&self, count: Option<usize>, bytes: usize) -> Result<(), E> {
        match count {
            // A tuple says how many it has, too, which need not be of one size; none has more.
            Some(count)
                if count > RESERVED_MAX && count.saturating_mul(bytes) > self.memory.get() =>
            {
                Err(E::custom("takes too much memory"))
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn charge<E: Error>(&self, bytes: usize) -> Result<(), E> {
        let left = self.memory.get().checked_sub(bytes);
        self.memory.set(left.ok_or_else(|| E::custom("takes too much memory"))?);
        Ok(())
    }
}

/// A deserializer, or what one hands out, that holds to the rules.
pub(super) struct Checked<'a, D> {
    inner: D,
    limits: &'a Limits,
    /// How much memory whoever holds the value has for it. What it takes beyond that is somewhere else.
    paid: usize,
}

impl<'a, D> Checked<'a, D> {
    /// For a value of type `T`, whose place is its holder's.
    pub(super) fn new<T>(inner: D, limits: &'a Limits) -> Checked<'a, D> {
        Checked { inner, limits, paid: size_of::<T>() }
    }
}

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Anything,
    /// A struct with names.
    Struct,
    /// The name of a field or variant.
    Name,
    Float,
    Single,
    /// An integer of 128 bits.
    Wide,
}

struct CheckedVisitor<'a, V> {
    inner: V,
    limits: &'a Limits,
    asked: Asked,
}

impl<'a, D> Checked<'a, D> {
    /// A visitor that makes the value. A value that is larger than its place, which a `Box` has, lies
    /// elsewhere.
    #[inline]
    fn visitor<'de, V: Visitor<'de>, E: Error>(
        &self,
        inner: V,
        asked: Asked,
    ) -> Result<CheckedVisitor<'a, V>, E> {
        self.limits.charge(size_of::<V::Value>().saturating_sub(self.paid))?;
        Ok(CheckedVisitor { inner, limits: self.limits, asked })
    }

    /// A part of what is read here: it is charged unless its place is in what has been paid for.
    #[inline]
    fn part<'de, T: DeserializeSeed<'de>, E: Error>(&self, seed: T) -> Result<Checked<'a, T>, E> {
        self.limits.charge(size_of::<T::Value>().saturating_sub(self.paid))?;
        Ok(Checked { inner: seed, limits: self.limits, paid: size_of::<T::Value>() })
    }
}

macro_rules! asks {
    ($($method:ident($($name:ident: $type:ty),*) $asked:ident,)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.visitor(visitor, Asked::$asked)?;
            self.inner.$method($($name,)* visitor)
        })*
    };
}

macro_rules! asks_wide {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.visitor(visitor, Asked::Wide)?;
            match self.limits.has_wide {
                true => self.inner.$method(visitor),
                // What `rmp_serde` takes for one has no sign.
                false => self.inner.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Checked<'_, D> {
    type Error = D::Error;

    asks! {
        deserialize_any() Anything,
        deserialize_bool() Anything,
        deserialize_i8() Anything, deserialize_i16() Anything, deserialize_i32() Anything,
        deserialize_i64() Anything,
        deserialize_u8() Anything, deserialize_u16() Anything, deserialize_u32() Anything,
        deserialize_u64() Anything,
        deserialize_f32() Single, deserialize_f64() Float,
        deserialize_char() Anything, deserialize_str() Anything, deserialize_string() Anything,
        deserialize_bytes() Anything, deserialize_byte_buf() Anything,
        deserialize_option() Anything,
        deserialize_unit() Anything,
        deserialize_unit_struct(name: &'static str) Anything,
        deserialize_newtype_struct(name: &'static str) Anything,
        deserialize_seq() Anything,
        deserialize_tuple(len: usize) Anything,
        deserialize_tuple_struct(name: &'static str, len: usize) Anything,
        deserialize_map() Anything,
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) Struct,
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) Anything,
        deserialize_identifier() Name,
        deserialize_ignored_any() Anything,
    }

    asks_wide! { deserialize_i128 deserialize_u128 }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visits {
    ($($method:ident $type:ty,)*) => {
        $(#[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

macro_rules! visits_bytes {
    ($($method:ident $type:ty,)*) => {
        $(#[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            match self.asked {
                Asked::Wide => self.visit_wide(&value),
                _ => self.inner.$method(value),
            }
        })*
    };
}

macro_rules! widens {
    ($($method:ident $type:ty as $wide:ident,)*) => {
        $(#[inline]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.$wide(value.into())
        })*
    };
}

impl<'de, V: Visitor<'de>> CheckedVisitor<'_, V> {
    /// Whether an integer of 64 bits is the same as what was asked for.
    #[inline]
    fn stays(&self, value: i128) -> bool {
        match self.asked {
            Asked::Name => false,
            Asked::Float => (value as f64) as i128 == value,
            Asked::Single => (value as f32) as i128 == value,
            _ => true,
        }
    }

    fn visit_wide<E: Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        match Wide::from_bytes(bytes) {
            Some(Wide::Unsigned(value)) => self.inner.visit_u128(value),
            Some(Wide::Negative(value)) => self.inner.visit_i128(value),
            None => Err(E::invalid_value(Unexpected::Bytes(bytes), &self)),
        }
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for CheckedVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        visit_bool bool, visit_char char,
        visit_i128 i128, visit_u128 u128,
        visit_f32 f32,
        visit_str &str, visit_borrowed_str &'de str, visit_string String,
    }

    visits_bytes! {
        visit_bytes &[u8], visit_borrowed_bytes &'de [u8], visit_byte_buf Vec<u8>,
    }

    widens! {
        visit_i8 i8 as visit_i64, visit_i16 i16 as visit_i64, visit_i32 i32 as visit_i64,
        visit_u8 u8 as visit_u64, visit_u16 u16 as visit_u64, visit_u32 u32 as visit_u64,
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        match self.stays(value.into()) {
            true => self.inner.visit_i64(value),
            false => Err(E::invalid_type(Unexpected::Signed(value), &self)),
        }
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        match self.stays(value.into()) {
            true => self.inner.visit_u64(value),
            false => Err(E::invalid_type(Unexpected::Unsigned(value), &self)),
        }
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        // Rounding is what whoever asks for single precision asks for; becoming infinite is not.
        if self.asked == Asked::Single && value.is_finite() && !(value as f32).is_finite() {
            return Err(E::invalid_value(Unexpected::Float(value), &self));
        }
        self.inner.visit_f64(value)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    // An option and a newtype take nothing of the body: a type that is an option of itself would go on
    // for ever.
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let limits = self.limits;
        limits.go_inside(|| self.inner.visit_some(Checked::new::<V::Value>(inner, limits)))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let limits = self.limits;
        limits
            .go_inside(|| self.inner.visit_newtype_struct(Checked::new::<V::Value>(inner, limits)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        if self.asked == Asked::Struct {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let limits = self.limits;
        // Elements are elsewhere, as far as anybody knows.
        limits.go_inside(|| self.inner.visit_seq(Checked { inner, limits, paid: 0 }))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        // The fields of a struct are in it; the entries of a map are elsewhere.
        let paid = if self.asked == Asked::Struct { size_of::<V::Value>() } else { 0 };
        let limits = self.limits;
        limits.go_inside(|| self.inner.visit_map(Checked { inner, limits, paid }))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let limits = self.limits;
        limits.go_inside(|| self.inner.visit_enum(Checked::new::<V::Value>(inner, limits)))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Checked<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Checked { inner, limits: self.limits, paid: self.paid })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let count = self.inner.size_hint();
        self.limits.expect(count, size_of::<T::Value>().saturating_sub(self.paid))?;
        let seed = self.part(seed)?;
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(RESERVED_MAX))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let count = self.inner.size_hint();
        self.limits.expect(count, size_of::<K::Value>().saturating_sub(self.paid))?;
        let seed = self.part(seed)?;
        self.inner.next_key_seed(seed)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.part(seed)?;
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(RESERVED_MAX))
    }
}

impl<'de, 'a, A: EnumAccess<'de>> EnumAccess<'de> for Checked<'a, A> {
    type Error = A::Error;
    type Variant = Checked<'a, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Checked<'a, A::Variant>), A::Error> {
        let seed = self.part(seed)?;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, Checked { inner: variant, limits: self.limits, paid: self.paid }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Checked<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.part(seed)?;
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.visitor(visitor, Asked::Anything)?;
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.visitor(visitor, Asked::Struct)?;
        self.inner.struct_variant(fields, visitor)
    }
}
