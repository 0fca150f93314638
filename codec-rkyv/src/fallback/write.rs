//! What may be written: values that are the same when they are read again.
//!
//! serde writes some values so that a reader takes them for others, and these are refused here: `Some(None)`
//! and `Some(())` look like `None`; JSON has neither NaN nor infinities, and writes `null` for them. What
//! nests deeper than a reader would follow is refused, too. MessagePack has no integers of 128 bits: see `wide`.

use std::fmt::Display;

use serde::ser::{self, Error, Serialize, Serializer};

use super::NAMED_DEPTH_MAX;
use super::wide::Wide;

#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// How much deeper it may go.
    depth: u32,
    has_only_finite: bool,
    /// It has integers of 128 bits.
    has_wide: bool,
    /// What is written is inside of a `Some`.
    is_some: bool,
}

impl Rules {
    pub(super) const MESSAGEPACK: Rules =
        Rules { depth: NAMED_DEPTH_MAX, has_only_finite: false, has_wide: false, is_some: false };
    #[cfg(feature = "json")]
    pub(super) const JSON: Rules =
        Rules { has_only_finite: true, has_wide: true, ..Rules::MESSAGEPACK };

    fn inside<E: Error>(self) -> Result<Rules, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Rules { depth, is_some: false, ..self }),
            None => Err(E::custom("nested too deeply")),
        }
    }

    fn in_some<E: Error>(self) -> Result<Rules, E> {
        self.not_nothing()?;
        Ok(Rules { is_some: true, ..self.inside()? })
    }

    fn not_nothing<E: Error>(self) -> Result<(), E> {
        match self.is_some {
            false => Ok(()),
            true => Err(E::custom("a reader would take it for `None`")),
        }
    }

    fn finite<E: Error>(self, is_finite: bool) -> Result<(), E> {
        match self.has_only_finite && !is_finite {
            false => Ok(()),
            true => Err(E::custom("JSON has no such number")),
        }
    }
}

/// A serializer, or a part of one, that holds to the rules.
pub(super) struct Checked<S> {
    inner: S,
    rules: Rules,
}

impl<S> Checked<S> {
    pub(super) fn new(inner: S, rules: Rules) -> Checked<S> {
        Checked { inner, rules }
    }
}

struct Inside<'a, T: ?Sized>(&'a T, Rules);

impl<T: Serialize + ?Sized> Serialize for Inside<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Checked::new(serializer, self.1))
    }
}

macro_rules! scalars {
    ($($method:ident $type:ty,)*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

macro_rules! compounds {
    ($($method:ident($($name:ident: $type:ty),*) -> $part:ident,)*) => {
        $(#[inline]
        fn $method(self, $($name: $type),*) -> Result<Checked<S::$part>, S::Error> {
            let rules = self.rules.inside()?;
            Ok(Checked::new(self.inner.$method($($name),*)?, rules))
        })*
    };
}

impl<S: Serializer> Serializer for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Checked<S::SerializeSeq>;
    type SerializeTuple = Checked<S::SerializeTuple>;
    type SerializeTupleStruct = Checked<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Checked<S::SerializeTupleVariant>;
    type SerializeMap = Checked<S::SerializeMap>;
    type SerializeStruct = Checked<S::SerializeStruct>;
    type SerializeStructVariant = Checked<S::SerializeStructVariant>;

    scalars! {
        serialize_bool bool, serialize_char char, serialize_str &str, serialize_bytes &[u8],
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
    }

    compounds! {
        serialize_seq(len: Option<usize>) -> SerializeSeq,
        serialize_tuple(len: usize) -> SerializeTuple,
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct,
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeTupleVariant,
        serialize_map(len: Option<usize>) -> SerializeMap,
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct,
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> SerializeStructVariant,
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        match u64::try_from(value) {
            Ok(value) => self.inner.serialize_u64(value),
            Err(_) if self.rules.has_wide => self.inner.serialize_u128(value),
            Err(_) => self.inner.serialize_bytes(&Wide::Unsigned(value).to_bytes()),
        }
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        match (i64::try_from(value), u128::try_from(value)) {
            (Ok(value), _) => self.inner.serialize_i64(value),
            (Err(_), Ok(value)) => self.serialize_u128(value),
            (Err(_), Err(_)) if self.rules.has_wide => self.inner.serialize_i128(value),
            (Err(_), Err(_)) => self.inner.serialize_bytes(&Wide::Negative(value).to_bytes()),
        }
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        self.rules.finite(value.is_finite())?;
        self.inner.serialize_f32(value)
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        self.rules.finite(value.is_finite())?;
        self.inner.serialize_f64(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.rules.not_nothing()?;
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let rules = self.rules.in_some()?;
        self.inner.serialize_some(&Inside(value, rules))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.rules.not_nothing()?;
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<S::Ok, S::Error> {
        self.rules.not_nothing()?;
        // Nil, as for `()`: MessagePack's own crate writes an empty array, which other languages do not take for nothing.
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        // What is inside is written in its place.
        let rules = Rules { is_some: self.rules.is_some, ..self.rules.inside()? };
        self.inner.serialize_newtype_struct(name, &Inside(value, rules))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let rules = self.rules.inside()?;
        self.inner.serialize_newtype_variant(name, index, variant, &Inside(value, rules))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! parts {
    ($($part:ident $method:ident($($key:ident: $type:ty)?);)*) => {
        $(impl<S: ser::$part> ser::$part for Checked<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: $type,)?
                value: &T,
            ) -> Result<(), S::Error> {
                self.inner.$method($($key,)? &Inside(value, self.rules))
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

parts! {
    SerializeSeq serialize_element();
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(key: &'static str);
    SerializeStructVariant serialize_field(key: &'static str);
}

impl<S: ser::SerializeMap> ser::SerializeMap for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.inner.serialize_key(&Inside(key, self.rules))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&Inside(value, self.rules))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}
