//! MessagePack as values of JSON.

use std::fmt;

use ringcall::shapes::{Described, Type, UserType, Variant};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::integer::integer;
use crate::nesting::{DEPTH_MAX, bare};

/// A body of this type; `None` if it is not one.
pub(crate) fn body(types: &Described, ty: &Type, body: &[u8]) -> Option<Value> {
    if ty.is_leaf("raw") {
        return Some(bytes(body));
    }
    // No body at all is nil.
    let body = if body.is_empty() { &[0xc0][..] } else { body };
    let mut packed = rmp_serde::Deserializer::from_read_ref(body).with_human_readable();
    packed.set_max_depth(DEPTH_MAX);
    let mut value = Any.deserialize(&mut packed).ok()?;
    // Nothing may follow it.
    if <serde::de::IgnoredAny>::deserialize(&mut packed).is_ok() {
        return None;
    }
    restore(types, ty, &mut value)?;
    Some(value)
}

fn bytes(bytes: &[u8]) -> Value {
    bytes.iter().copied().map(Value::from).collect()
}

/// Whatever it is.
struct Any;

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(match value.is_finite() {
            true => value.into(),
            // JSON has no number for it.
            false => value.to_string().into(),
        })
    }

    // A float of 32 bits has the digits that it is written with, not those of its double.
    fn visit_f32<E: serde::de::Error>(self, value: f32) -> Result<Value, E> {
        self.visit_f64(value.to_string().parse().unwrap_or(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(bytes(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<Value, D::Error> {
        inside.deserialize_any(self)
    }

    // Lengths are only claimed: nothing is reserved for them.
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Any)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, value)) = entries.next_entry_seed(Name, Any)? {
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

/// Of a field or a variant.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

/// What only its type tells: numbers of more than 64 bits come as bytes, and become the text of their digits. `None` if the
/// type nests too deep. Each step goes into the value, whose depth is bounded.
fn restore(types: &Described, ty: &Type, value: &mut Value) -> Option<()> {
    match (bare(types, ty, value)?, value) {
        (Type::Leaf(name), value) => {
            if let Some((name @ ("u128" | "i128"), _)) = integer(name)
                && let Some(digits) = wide(value, name == "i128")
            {
                *value = digits.into();
            }
            Some(())
        }
        (Type::Container(name, inside), Value::Array(values)) if name == "tuple" => {
            inside.iter().zip(values).try_for_each(|(ty, value)| restore(types, ty, value))
        }
        (Type::Container(name, inside), Value::Array(values))
            if name != "option" && name != "box" =>
        {
            let Some(ty) = inside.first() else { return Some(()) };
            values.iter_mut().try_for_each(|value| restore(types, ty, value))
        }
        (Type::Container(..), _) => Some(()),
        (Type::User(number), value) => restore_user(types, types.user(*number), value),
    }
}

fn restore_user(types: &Described, user: &UserType, value: &mut Value) -> Option<()> {
    match (user.is_enum, value) {
        (false, value) => restore_fields(types, &user.variants[0], value),
        (true, Value::Object(fields)) => {
            fields.iter_mut().try_for_each(|(name, value)| {
                match user.variants.iter().find(|variant| variant.name == *name) {
                    Some(variant) => restore_fields(types, variant, value),
                    None => Some(()),
                }
            })
        }
        (true, _) => Some(()),
    }
}

fn restore_fields(types: &Described, variant: &Variant, value: &mut Value) -> Option<()> {
    match (variant.fields.as_slice(), value) {
        // Of an enum: a struct would have been bared.
        ([field], value) if variant.has_places() => restore(types, &field.ty, value),
        (fields, Value::Array(values)) => {
            let mut fields = fields.iter().zip(values);
            fields.try_for_each(|(field, value)| restore(types, &field.ty, value))
        }
        (fields, Value::Object(values)) => fields.iter().try_for_each(|field| {
            values.get_mut(&field.name).map_or(Some(()), |value| restore(types, &field.ty, value))
        }),
        _ => Some(()),
    }
}

/// The digits of a number of 17 bytes, the first of which is its sign.
fn wide(value: &Value, is_signed: bool) -> Option<String> {
    let bytes =
        value.as_array()?.iter().map(|byte| byte.as_u64().and_then(|it| it.try_into().ok()));
    let bytes: [u8; 17] = bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()?;
    let number: [u8; 16] = bytes[1..].try_into().ok()?;
    Some(match is_signed {
        true => i128::from_be_bytes(number).to_string(),
        false => u128::from_be_bytes(number).to_string(),
    })
}
