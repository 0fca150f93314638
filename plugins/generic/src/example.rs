//! A value of a type to begin with.

use ringcall::shapes::{Described, Type, Variant};
use serde_json::{Map, Value, json};

/// A value in which everything that can be there is there, once.
pub(crate) fn example(types: &Described, ty: &Type) -> Value {
    let mut examples = Examples { types, within: Vec::new(), left: VALUES_MAX };
    examples.of(ty).unwrap_or(Value::Null)
}

/// In an example. A few types that each have two of the next make more than there is memory for.
const VALUES_MAX: usize = 10_000;

struct Examples<'a> {
    types: &'a Described,
    /// User types around what is being made.
    within: Vec<usize>,
    /// How many more values there may be.
    left: usize,
}

impl Examples<'_> {
    /// `None` where a type would be within itself, or there is too much already: whatever is around it and can do without it
    /// does.
    fn of(&mut self, ty: &Type) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        match ty {
            Type::Leaf(name) => Some(leaf(name)),
            Type::Container(name, inside) => match (name.as_str(), inside.as_slice()) {
                ("option", [inside]) => Some(self.of(inside).unwrap_or(Value::Null)),
                ("vec", [inside]) => Some(self.of(inside).into_iter().collect()),
                ("box", [inside]) => self.of(inside),
                (name, [inside]) if name.starts_with("array-") => {
                    let len = name["array-".len()..].parse().unwrap_or(0);
                    // Not all of a long one.
                    (0..usize::min(len, 64)).map(|_| self.of(inside)).collect()
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
        user.variants.iter().find_map(|variant| match variant.fields.is_empty() {
            true => Some(variant.name.as_str().into()),
            false => self.fields(variant).map(|fields| json!({ &variant.name: fields })),
        })
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
                    values.insert(field.name.clone(), self.of(&field.ty)?);
                }
                Some(values.into())
            }
        }
    }
}

fn leaf(name: &str) -> Value {
    match name {
        "bool" => false.into(),
        "f32" | "f64" => 0.0.into(),
        "char" => "a".into(),
        "string" => "".into(),
        "ipv4" | "ip" => "127.0.0.1".into(),
        "ipv6" => "::1".into(),
        "socket-v4" | "socket" => "127.0.0.1:80".into(),
        "socket-v6" => "[::1]:80".into(),
        "uuid" => "00000000-0000-0000-0000-000000000000".into(),
        "duration" => json!({ "secs": 0, "nanos": 0 }),
        "unix-time" => json!({ "secs_since_epoch": 0, "nanos_since_epoch": 0 }),
        "bytes" | "raw" => "".into(),
        name if name.starts_with("nz-") => 1.into(),
        name if name.starts_with(['u', 'i']) && name != "unit" => 0.into(),
        _ => Value::Null,
    }
}
