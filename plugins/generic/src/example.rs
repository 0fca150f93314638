//! A value of a type to begin with.

use ringcall::shapes::{Described, Type, Variant};
use serde_json::{Map, Value, json};

use crate::integer::integer;
use crate::nesting::DEPTH_MAX;

/// A value in which everything that can be there is there, once.
pub(crate) fn example(types: &Described, ty: &Type) -> Value {
    let mut examples =
        Examples { types, within: Vec::new(), depth: 0, left: VALUES_MAX, bytes_left: BYTES_MAX };
    examples.of(ty).unwrap_or(Value::Null)
}

/// In one example: types within types, each of them twice, would be more than there is memory for, and their text is
/// somebody else's.
const VALUES_MAX: usize = 1 << 14;
/// Of the names and texts in it.
const BYTES_MAX: usize = 1 << 20;

struct Examples<'a> {
    types: &'a Described,
    /// User types around what is being made.
    within: Vec<usize>,
    /// How many types are around what is being made.
    depth: usize,
    /// How many values may still be made.
    left: usize,
    bytes_left: usize,
}

impl Examples<'_> {
    /// `None` where a type would be within itself, or there would be too much, or there is no value of it: whatever is
    /// around it and can do without it does.
    fn of(&mut self, ty: &Type) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let made = self.of_within(ty);
        self.depth -= 1;
        made
    }

    fn of_within(&mut self, ty: &Type) -> Option<Value> {
        match ty {
            Type::Leaf(name) => {
                let value = leaf(name)?;
                self.spend(value.as_str().unwrap_or_default())?;
                Some(value)
            }
            Type::Container(name, inside) => match (name.as_str(), inside.as_slice()) {
                ("option", [inside]) => Some(self.of(inside).unwrap_or(Value::Null)),
                ("vec", [inside]) => Some(self.of(inside).into_iter().collect()),
                ("box", [inside]) => self.of(inside),
                (name, [inside]) if name.starts_with("array-") => {
                    let len = name["array-".len()..].parse().unwrap_or(0_usize);
                    (0..len).map(|_| self.of(inside)).collect()
                }
                (_, inside) => inside.iter().map(|ty| self.of(ty)).collect(),
            },
            Type::User(number) => {
                if self.within.contains(number) {
                    return None;
                }
                self.within.push(*number);
                let made = self.user(*number);
                self.within.pop();
                made
            }
        }
    }

    fn user(&mut self, number: usize) -> Option<Value> {
        let user = self.types.user(number);
        if !user.is_enum {
            return self.fields(&user.variants[0]);
        }
        user.variants.iter().find_map(|variant| {
            self.spend(&variant.name)?;
            match variant.fields.is_empty() {
                true => Some(variant.name.as_str().into()),
                false => self.fields(variant).map(|fields| json!({ &variant.name: fields })),
            }
        })
    }

    fn spend(&mut self, text: &str) -> Option<()> {
        self.bytes_left = self.bytes_left.checked_sub(text.len())?;
        Some(())
    }

    fn fields(&mut self, variant: &Variant) -> Option<Value> {
        match variant.fields.as_slice() {
            [] => Some(Value::Null),
            [field] if variant.has_places() => self.of(&field.ty),
            fields if variant.has_places() => {
                fields.iter().map(|field| self.of(&field.ty)).collect()
            }
            fields => {
                let mut values = Map::new();
                for field in fields {
                    self.spend(&field.name)?;
                    values.insert(field.name.clone(), self.of(&field.ty)?);
                }
                Some(values.into())
            }
        }
    }
}

/// `None` if there is no value of it.
fn leaf(name: &str) -> Option<Value> {
    Some(match name {
        "never" => return None,
        "bool" => false.into(),
        "f32" | "f64" => 0.0.into(),
        "char" => "a".into(),
        "string" | "bytes" | "raw" => "".into(),
        "ipv4" | "ip" => "127.0.0.1".into(),
        "ipv6" => "::1".into(),
        "socket-v4" | "socket" => "127.0.0.1:80".into(),
        "socket-v6" => "[::1]:80".into(),
        "uuid" => "00000000-0000-0000-0000-000000000000".into(),
        "duration" => json!({ "secs": 0, "nanos": 0 }),
        "unix-time" => json!({ "secs_since_epoch": 0, "nanos_since_epoch": 0 }),
        name => match integer(name) {
            Some((_, is_non_zero)) => u8::from(is_non_zero).into(),
            // `unit` is null. Of what is somebody's own only its name is known.
            None => Value::Null,
        },
    })
}
