//! JSON Schema (2020-12) of types.

use std::collections::{BTreeMap, BTreeSet};

use ringcall::shapes::{Described, Type, Variant};
use serde_json::{Map, Value, json};

use crate::integer::integer;

/// The schema of a type, with those of the user types in it under `$defs`.
pub(crate) fn schema(types: &Described, ty: &Type) -> Value {
    let mut schemas =
        Schemas { types, names: BTreeMap::new(), taken: BTreeSet::new(), new: Vec::new() };
    let of_type = schemas.of(ty);
    let mut definitions = Map::new();
    // Each may bring others.
    while let Some((number, name)) = schemas.new.pop() {
        definitions.insert(name, schemas.user(number));
    }
    let Value::Object(mut whole) = of_type else { return of_type };
    if !definitions.is_empty() {
        whole.insert("$defs".to_owned(), definitions.into());
    }
    whole.into()
}

struct Schemas<'a> {
    types: &'a Described,
    /// What user types are called here, by their number.
    names: BTreeMap<usize, String>,
    taken: BTreeSet<String>,
    /// Those that were named and are not described yet.
    new: Vec<(usize, String)>,
}

impl Schemas<'_> {
    /// User types are only named, so that it goes as deep as types are written.
    fn of(&mut self, ty: &Type) -> Value {
        match ty {
            Type::Leaf(name) => leaf(name),
            Type::Container(name, inside) => match (name.as_str(), inside.as_slice()) {
                ("option", [inside]) => json!({ "anyOf": [self.of(inside), { "type": "null" }] }),
                ("box", [inside]) => self.of(inside),
                ("vec", [inside]) => json!({ "type": "array", "items": self.of(inside) }),
                (name, [inside]) if name.starts_with("array-") => {
                    let len: u64 = name["array-".len()..].parse().unwrap_or(0);
                    let items = self.of(inside);
                    json!({ "type": "array", "items": items, "minItems": len, "maxItems": len })
                }
                (_, inside) => self.places(inside.iter()),
            },
            Type::User(number) => json!({ "$ref": format!("#/$defs/{}", self.name(*number)) }),
        }
    }

    /// Two types may have one name: the second one has a number behind it.
    fn name(&mut self, number: usize) -> String {
        if let Some(name) = self.names.get(&number) {
            return name.clone();
        }
        let own = &self.types.user(number).name;
        let name = match self.taken.contains(own) {
            true => format!("{own}-{number}"),
            false => own.clone(),
        };
        self.taken.insert(name.clone());
        self.names.insert(number, name.clone());
        self.new.push((number, name.clone()));
        name
    }

    fn user(&mut self, number: usize) -> Value {
        let user = self.types.user(number);
        if !user.is_enum {
            return self.fields(&user.variants[0]);
        }
        let variants: Vec<_> = user.variants.iter().map(|variant| self.variant(variant)).collect();
        json!({ "oneOf": variants })
    }

    fn variant(&mut self, variant: &Variant) -> Value {
        let name = &variant.name;
        if variant.fields.is_empty() {
            return json!({ "const": name });
        }
        json!({
            "type": "object",
            "properties": { name: self.fields(variant) },
            "required": [name],
            "additionalProperties": false,
        })
    }

    fn fields(&mut self, variant: &Variant) -> Value {
        match variant.fields.as_slice() {
            [] => json!({ "type": ["null", "object"] }),
            [field] if variant.has_places() => self.of(&field.ty),
            fields if variant.has_places() => self.places(fields.iter().map(|field| &field.ty)),
            fields => {
                let mut properties = Map::new();
                let mut required = Vec::new();
                for field in fields {
                    if field.ty.inside_of("option").is_none() {
                        required.push(field.name.as_str());
                    }
                    properties.insert(field.name.clone(), self.of(&field.ty));
                }
                json!({
                    "type": "object",
                    "properties": properties,
                    "required": required,
                    "additionalProperties": false,
                })
            }
        }
    }

    fn places<'a>(&mut self, types: impl ExactSizeIterator<Item = &'a Type>) -> Value {
        let len = types.len();
        let items: Vec<_> = types.map(|ty| self.of(ty)).collect();
        json!({ "type": "array", "prefixItems": items, "minItems": len, "maxItems": len })
    }
}

fn leaf(name: &str) -> Value {
    let text = |format: &str| json!({ "type": "string", "format": format });
    let (name, is_non_zero) = integer(name).unwrap_or((name, false));
    if let Some((min, max)) = bounds(name) {
        let mut number = json!({ "type": "integer", "minimum": min, "maximum": max });
        if is_non_zero {
            number["not"] = json!({ "const": 0 });
        }
        return number;
    }
    match name {
        "unit" => json!({ "type": "null" }),
        "bool" => json!({ "type": "boolean" }),
        "u128" | "i128" => json!({ "type": ["integer", "string"], "pattern": "^-?[0-9]+$" }),
        "f32" | "f64" => json!({ "type": "number" }),
        "char" => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        "string" => json!({ "type": "string" }),
        "ipv4" => text("ipv4"),
        "ipv6" => text("ipv6"),
        "uuid" => text("uuid"),
        "ip" | "socket-v4" | "socket-v6" | "socket" => json!({ "type": "string" }),
        "duration" => json!({
            "anyOf": [
                { "type": "number", "minimum": 0 },
                {
                    "type": "object",
                    "properties": { "secs": bounded("u64"), "nanos": bounded("u32") },
                    "required": ["secs", "nanos"],
                    "additionalProperties": false,
                },
            ],
        }),
        "bytes" | "raw" => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": bounded("u8") }] })
        }
        "never" => json!({ "not": {} }),
        // Of what is somebody's own only its name is known.
        name => json!({ "title": name }),
    }
}

fn bounded(name: &str) -> Value {
    leaf(name)
}

fn bounds(name: &str) -> Option<(i64, u64)> {
    Some(match name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" => (0, u64::MAX),
        "i8" => (i8::MIN.into(), i8::MAX as u64),
        "i16" => (i16::MIN.into(), i16::MAX as u64),
        "i32" => (i32::MIN.into(), i32::MAX as u64),
        "i64" => (i64::MIN, i64::MAX as u64),
        _ => return None,
    })
}
