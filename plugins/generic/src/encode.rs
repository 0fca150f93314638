//! Values of JSON in MessagePack, as types want them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;
use std::time::Duration;

use ringcall::shapes::{Described, Type, UserType, Variant};
use rmp::encode as pack;
use serde_json::{Map, Value};

use crate::Mismatch;
use crate::error::{shorten, shown};
use crate::integer::integer;
use crate::nesting::{DEPTH_MAX, bare};

/// A body of this type.
pub(crate) fn body(types: &Described, ty: &Type, value: &Value) -> Result<Vec<u8>, Mismatch> {
    let mut encoder = Encoder { types, out: Vec::new(), path: Vec::new() };
    if ty.is_leaf("raw") {
        return encoder.bytes_of(value);
    }
    encoder.value(ty, value)?;
    Ok(encoder.out)
}

/// The same of whatever type.
pub(crate) fn as_it_is(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    natural(&mut out, value);
    out
}

/// Why nothing here fails: what is written to takes everything.
const TAKES_ALL: &str = "a vector takes all that is written to it";

fn natural(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => pack::write_nil(out).expect(TAKES_ALL),
        Value::Bool(value) => pack::write_bool(out, *value).expect(TAKES_ALL),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => unsigned(out, number),
            (_, Some(number)) => signed(out, number),
            _ => float(out, number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => string(out, text),
        Value::Array(values) => {
            array(out, values.len());
            values.iter().for_each(|value| natural(out, value));
        }
        Value::Object(fields) => {
            map(out, fields.len());
            for (name, value) in fields {
                string(out, name);
                natural(out, value);
            }
        }
    }
}

fn unsigned(out: &mut Vec<u8>, number: u64) {
    pack::write_uint(out, number).expect(TAKES_ALL);
}

fn signed(out: &mut Vec<u8>, number: i64) {
    pack::write_sint(out, number).expect(TAKES_ALL);
}

fn float(out: &mut Vec<u8>, number: f64) {
    pack::write_f64(out, number).expect(TAKES_ALL);
}

fn string(out: &mut Vec<u8>, text: &str) {
    pack::write_str(out, text).expect(TAKES_ALL);
}

/// More than 4 Gi elements do not fit into a message anyway.
fn array(out: &mut Vec<u8>, len: usize) {
    pack::write_array_len(out, u32::try_from(len).unwrap_or(u32::MAX)).expect(TAKES_ALL);
}

fn map(out: &mut Vec<u8>, len: usize) {
    pack::write_map_len(out, u32::try_from(len).unwrap_or(u32::MAX)).expect(TAKES_ALL);
}

struct Encoder<'a> {
    types: &'a Described,
    out: Vec<u8>,
    /// Where the value is that is being written. It has a step for each value that this one is within.
    path: Vec<Step<'a>>,
}

enum Step<'a> {
    Name(&'a str),
    Place(usize),
}

impl<'a> Encoder<'a> {
    fn fail<T>(&self, reason: String) -> Result<T, Mismatch> {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) if path.is_empty() => path.push_str(name),
                Step::Name(name) => path.extend([".", name]),
                Step::Place(place) => path.push_str(&format!("[{place}]")),
            }
        }
        Err(Mismatch { path, reason })
    }

    fn expected<T>(&self, what: &str, value: &Value) -> Result<T, Mismatch> {
        self.fail(format!("{what} is expected, not {}", shown(value)))
    }

    /// Goes into a part of a value.
    fn within(&mut self, step: Step<'a>, ty: &'a Type, value: &'a Value) -> Result<(), Mismatch> {
        self.path.push(step);
        self.value(ty, value)?;
        self.path.pop();
        Ok(())
    }

    fn value(&mut self, ty: &'a Type, value: &'a Value) -> Result<(), Mismatch> {
        let bare = bare(self.types, ty, value).filter(|_| self.path.len() <= DEPTH_MAX);
        let Some(ty) = bare else { return self.too_deep() };
        match ty {
            Type::Leaf(name) => self.leaf(name, value),
            Type::Container(name, inside) => self.container(name, inside, value),
            Type::User(number) => self.user(self.types.user(*number), value),
        }
    }

    // ---- leaves ----

    fn leaf(&mut self, name: &str, value: &Value) -> Result<(), Mismatch> {
        let (name, is_non_zero) = integer(name).unwrap_or((name, false));
        match name {
            "unit" if *value != Value::Null => self.expected("null", value),
            "bool" if !value.is_boolean() => self.expected("true or false", value),
            "u8" => self.integer(value, is_non_zero, 0, u8::MAX.into()),
            "u16" => self.integer(value, is_non_zero, 0, u16::MAX.into()),
            "u32" => self.integer(value, is_non_zero, 0, u32::MAX.into()),
            "u64" => self.integer(value, is_non_zero, 0, u64::MAX.into()),
            "u128" => self.integer(value, is_non_zero, 0, u128::MAX),
            "i8" => self.integer(value, is_non_zero, i8::MIN.into(), i8::MAX as u128),
            "i16" => self.integer(value, is_non_zero, i16::MIN.into(), i16::MAX as u128),
            "i32" => self.integer(value, is_non_zero, i32::MIN.into(), i32::MAX as u128),
            "i64" => self.integer(value, is_non_zero, i64::MIN.into(), i64::MAX as u128),
            "i128" => self.integer(value, is_non_zero, i128::MIN, i128::MAX as u128),
            "f32" | "f64" => match value.as_f64() {
                Some(number) if name == "f32" && (number as f32).is_infinite() => {
                    self.expected("a number that a 32-bit float holds", value)
                }
                Some(number) => {
                    float(&mut self.out, number);
                    Ok(())
                }
                None => self.expected("a number", value),
            },
            "char" => match value.as_str() {
                Some(text) if text.chars().count() == 1 => self.natural(value),
                _ => self.expected("a text of one character", value),
            },
            "string" => self.text::<String>("a text", value),
            "ipv4" => self.text::<Ipv4Addr>("an IPv4 address", value),
            "ipv6" => self.text::<Ipv6Addr>("an IPv6 address", value),
            "ip" => self.text::<IpAddr>("an IP address", value),
            "socket-v4" => self.text::<SocketAddrV4>("an IPv4 address and a port", value),
            "socket-v6" => self.text::<SocketAddrV6>("an IPv6 address and a port", value),
            "socket" => self.text::<SocketAddr>("an IP address and a port", value),
            "uuid" if !value.is_string() => self.expected("a UUID", value),
            "duration" => self.duration(value),
            "bytes" => {
                let bytes = self.bytes_of(value)?;
                pack::write_bin(&mut self.out, &bytes).expect(TAKES_ALL);
                Ok(())
            }
            "never" => self.fail("there is no value of this type".to_owned()),
            // Of what is somebody's own only its name is known.
            _ => self.natural(value),
        }
    }

    fn too_deep(&self) -> Result<(), Mismatch> {
        self.fail(format!(
            "this nests too deep: {DEPTH_MAX} types or values within each other are the most"
        ))
    }

    fn natural(&mut self, value: &Value) -> Result<(), Mismatch> {
        if !is_within(value, DEPTH_MAX.saturating_sub(self.path.len())) {
            return self.too_deep();
        }
        natural(&mut self.out, value);
        Ok(())
    }

    fn text<T: FromStr>(&mut self, what: &str, value: &Value) -> Result<(), Mismatch> {
        match value.as_str() {
            Some(text) if text.parse::<T>().is_ok() => self.natural(value),
            _ => self.expected(what, value),
        }
    }

    fn integer(
        &mut self,
        value: &Value,
        is_non_zero: bool,
        min: i128,
        max: u128,
    ) -> Result<(), Mismatch> {
        // Digits in a text: not every JSON has numbers of more than 53 bits.
        let is_wide = max > u64::MAX.into();
        let (whole, negative): (Option<u128>, Option<i128>) = match value {
            Value::Number(number) => {
                (number.as_u64().map(u128::from), number.as_i64().map(i128::from))
            }
            Value::String(digits) if is_wide => (digits.parse().ok(), digits.parse().ok()),
            _ => (None, None),
        };
        match (whole, negative) {
            (Some(0), _) | (_, Some(0)) if is_non_zero => {
                self.expected("a number other than 0", value)
            }
            (Some(number), _) if number <= max => {
                match u64::try_from(number) {
                    Ok(number) => unsigned(&mut self.out, number),
                    Err(_) => self.wide(0, number.to_be_bytes()),
                }
                Ok(())
            }
            (None, Some(number)) if number >= min => {
                match i64::try_from(number) {
                    Ok(number) => signed(&mut self.out, number),
                    Err(_) => self.wide(0xff, number.to_be_bytes()),
                }
                Ok(())
            }
            _ => self.expected(&format!("a whole number from {min} to {max}"), value),
        }
    }

    /// A number of more than 64 bits: 17 bytes of two's complement.
    fn wide(&mut self, sign: u8, number: [u8; 16]) {
        let mut bytes = [sign; 17];
        bytes[1..].copy_from_slice(&number);
        pack::write_bin(&mut self.out, &bytes).expect(TAKES_ALL);
    }

    fn duration(&mut self, value: &Value) -> Result<(), Mismatch> {
        let time = match value {
            Value::Number(seconds) => {
                seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            }
            Value::Object(parts) if parts.len() == 2 => {
                let part = |name| parts.get(name).and_then(Value::as_u64);
                let nanos = part("nanos").and_then(|nanos| u32::try_from(nanos).ok());
                // A second's worth of them would be a second more than there is room for, perhaps.
                let nanos = nanos.filter(|nanos| *nanos < 1_000_000_000);
                part("secs").zip(nanos).map(|(secs, nanos)| Duration::new(secs, nanos))
            }
            _ => None,
        };
        let Some(time) = time else {
            return self.expected("a number of seconds, or `secs` and `nanos`,", value);
        };
        map(&mut self.out, 2);
        string(&mut self.out, "secs");
        unsigned(&mut self.out, time.as_secs());
        string(&mut self.out, "nanos");
        unsigned(&mut self.out, time.subsec_nanos().into());
        Ok(())
    }

    /// Bytes: a list of them, or a text.
    fn bytes_of(&self, value: &Value) -> Result<Vec<u8>, Mismatch> {
        let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
        let bytes = match value {
            Value::String(text) => Some(text.as_bytes().to_vec()),
            Value::Array(bytes) => bytes.iter().map(byte).collect(),
            _ => None,
        };
        match bytes {
            Some(bytes) => Ok(bytes),
            None => self.expected("a text, or a list of numbers from 0 to 255,", value),
        }
    }

    // ---- what holds others ----

    fn container(
        &mut self,
        name: &str,
        inside: &'a [Type],
        value: &'a Value,
    ) -> Result<(), Mismatch> {
        match (name, inside) {
            ("vec", [inside]) => self.list(std::iter::repeat(inside), None, value),
            ("tuple", inside) => self.list(inside.iter(), Some(inside.len()), value),
            (name, [inside]) if name.starts_with("array-") => {
                let len = name["array-".len()..].parse().ok();
                self.list(std::iter::repeat(inside), len, value)
            }
            // A list that nothing is known of, or an option that is none.
            _ => self.natural(value),
        }
    }

    fn list(
        &mut self,
        types: impl Iterator<Item = &'a Type>,
        len: Option<usize>,
        value: &'a Value,
    ) -> Result<(), Mismatch> {
        let Some(values) = value.as_array() else { return self.expected("a list", value) };
        if let Some(len) = len
            && len != values.len()
        {
            return self.expected(&format!("a list of {len}"), value);
        }
        array(&mut self.out, values.len());
        for (place, (value, ty)) in values.iter().zip(types).enumerate() {
            self.within(Step::Place(place), ty, value)?;
        }
        Ok(())
    }

    fn user(&mut self, user: &'a UserType, value: &'a Value) -> Result<(), Mismatch> {
        if !user.is_enum {
            return self.fields(&user.name, &user.variants[0], value);
        }
        let (name, inside) = match value {
            Value::String(name) => (name.as_str(), None),
            Value::Object(fields) if fields.len() == 1 => {
                let (name, inside) = fields.iter().next().expect("one field");
                (name.as_str(), Some(inside))
            }
            _ => {
                return self.expected(&format!("{}, the name of a variant,", choices(user)), value);
            }
        };
        let variant = user.variants.iter().find(|variant| variant.name == name);
        match (variant, inside) {
            (Some(variant), None) if variant.fields.is_empty() => self.natural(value),
            (Some(variant), Some(inside)) if !variant.fields.is_empty() => {
                map(&mut self.out, 1);
                string(&mut self.out, name);
                self.path.push(Step::Name(&variant.name));
                self.fields(&variant.name, variant, inside)?;
                self.path.pop();
                Ok(())
            }
            (Some(_), None) => self.fail(format!("{name} has fields: {{\"{name}\": …}}")),
            (Some(_), Some(_)) => self.fail(format!("{name} has no fields: \"{name}\"")),
            (None, _) => self.fail(format!("{} is expected, not {}", choices(user), shorten(name))),
        }
    }

    fn fields(&mut self, of: &str, variant: &'a Variant, value: &'a Value) -> Result<(), Mismatch> {
        match variant.fields.as_slice() {
            // The text does not say which of the two it is.
            [] => match value {
                Value::Null => self.natural(value),
                Value::Object(fields) if fields.is_empty() => self.natural(value),
                _ => self.expected(&format!("null, since {of} has no fields,"), value),
            },
            [field] if variant.has_places() => self.value(&field.ty, value),
            fields if variant.has_places() => {
                self.list(fields.iter().map(|field| &field.ty), Some(fields.len()), value)
            }
            _ => match value.as_object() {
                Some(values) => self.named(of, variant, values),
                None => self.expected(&format!("an object with the fields of {of}"), value),
            },
        }
    }

    fn named(
        &mut self,
        of: &str,
        variant: &'a Variant,
        values: &'a Map<String, Value>,
    ) -> Result<(), Mismatch> {
        let names = || {
            let names: Vec<_> = variant.fields.iter().map(|field| field.name.as_str()).collect();
            names.join(", ")
        };
        let is_known = |name: &&String| variant.fields.iter().any(|field| field.name == **name);
        if let Some(name) = values.keys().find(|name| !is_known(name)) {
            let name = shorten(name);
            return self.fail(format!("{of} has no field {name}; it has {}", names()));
        }
        let is_there = |name: &str| values.contains_key(name);
        let is_missing =
            |ty: &Type, name: &str| !is_there(name) && ty.inside_of("option").is_none();
        let mut fields = variant.fields.iter();
        if let Some(field) = fields.find(|field| is_missing(&field.ty, &field.name)) {
            return self.fail(format!("the field {} of {of} is missing", field.name));
        }
        map(&mut self.out, values.len());
        for field in &variant.fields {
            // What is left out is an option, and none.
            if let Some(value) = values.get(&field.name) {
                string(&mut self.out, &field.name);
                self.within(Step::Name(&field.name), &field.ty, value)?;
            }
        }
        Ok(())
    }
}

/// Whether this many lists and objects within each other are enough for a value.
fn is_within(value: &Value, depth: usize) -> bool {
    match (value, depth.checked_sub(1)) {
        (Value::Array(values), Some(left)) => values.iter().all(|value| is_within(value, left)),
        (Value::Object(fields), Some(left)) => fields.values().all(|value| is_within(value, left)),
        (Value::Array(_) | Value::Object(_), None) => false,
        _ => true,
    }
}

/// The variants of an enum, for people.
fn choices(user: &UserType) -> String {
    let names: Vec<_> = user.variants.iter().map(|variant| variant.name.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}
