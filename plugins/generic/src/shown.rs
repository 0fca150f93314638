//! Types as Rust has them, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ringcall::shapes::{Described, Type, UserType, Variant};

use crate::Method;
use crate::integer::integer;

/// `async fn last(Symbol) -> Result<Quote, NoSuch>`, and what these types are.
pub(crate) fn signature(method: &Method) -> String {
    let (input, output) = (method.input(), method.output());
    let mut text = String::new();
    let argument = match method.argument().is_leaf("unit") {
        true => String::new(),
        false => ty(input, method.argument()),
    };
    let items_in =
        input.items.as_ref().map(|items| format!("impl Stream<Item = {}>", ty(input, items)));
    let arguments: Vec<_> =
        [argument, items_in.unwrap_or_default()].into_iter().filter(|it| !it.is_empty()).collect();
    let _ = write!(text, "async fn {}({})", method.name(), arguments.join(", "));
    let reply = match &output.items {
        Some(items) => format!("impl Stream<Item = {}>", ty(output, items)),
        None => ty(output, method.reply()),
    };
    let _ = match method.error().is_leaf("never") {
        true if reply == "()" => Ok(()),
        true => write!(text, " -> {reply}"),
        false => write!(text, " -> Result<{reply}, {}>", ty(output, method.error())),
    };
    text.push(';');
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (types, root) in [
        (input, Some(method.argument())),
        (input, input.items.as_ref()),
        (output, Some(method.reply())),
        (output, Some(method.error())),
        (output, output.items.as_ref()),
    ] {
        for user in root.map(|root| users(types, root)).unwrap_or_default() {
            if seen.insert(&user.name) {
                let _ = write!(text, "\n\n{}", definition(types, user));
            }
        }
    }
    text
}

/// The user types in a type, each once.
fn users<'a>(types: &'a Described, root: &'a Type) -> Vec<&'a UserType> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    // Types refer to each other in chains that may be longer than a stack is deep.
    let mut left = vec![root];
    while let Some(ty) = left.pop() {
        match ty {
            Type::Leaf(_) => {}
            Type::Container(_, inside) => left.extend(inside.iter().rev()),
            Type::User(number) if !seen.insert(*number) => {}
            Type::User(number) => {
                let user = types.user(*number);
                found.push(user);
                let fields = user.variants.iter().flat_map(|variant| &variant.fields);
                left.extend(fields.rev().map(|field| &field.ty));
            }
        }
    }
    found
}

/// User types only by their names, so that it goes as deep as types are written.
fn ty(types: &Described, shown: &Type) -> String {
    let all = |inside: &[Type]| {
        let inside: Vec<_> = inside.iter().map(|inside| ty(types, inside)).collect();
        inside.join(", ")
    };
    match shown {
        Type::Leaf(name) => leaf(name),
        Type::Container(name, inside) => match name.as_str() {
            "vec" => format!("Vec<{}>", all(inside)),
            "option" => format!("Option<{}>", all(inside)),
            "box" => format!("Box<{}>", all(inside)),
            "tuple" if inside.len() == 1 => format!("({},)", all(inside)),
            "tuple" => format!("({})", all(inside)),
            name => match name.strip_prefix("array-") {
                Some(len) => format!("[{}; {len}]", all(inside)),
                None => format!("{name}<{}>", all(inside)),
            },
        },
        Type::User(number) => types.user(*number).name.clone(),
    }
}

fn leaf(name: &str) -> String {
    let name = match name {
        "unit" => "()",
        "never" => "!",
        "string" => "String",
        "duration" => "Duration",
        "unix-time" => "SystemTime",
        "ipv4" => "Ipv4Addr",
        "ipv6" => "Ipv6Addr",
        "ip" => "IpAddr",
        "socket-v4" => "SocketAddrV4",
        "socket-v6" => "SocketAddrV6",
        "socket" => "SocketAddr",
        "uuid" => "Uuid",
        "bytes" | "raw" => "Bytes",
        name => match integer(name) {
            Some((number, true)) => return format!("NonZero<{number}>"),
            _ => name,
        },
    };
    name.to_owned()
}

fn definition(types: &Described, user: &UserType) -> String {
    if user.is_enum {
        let mut text = format!("enum {} {{\n", user.name);
        for variant in &user.variants {
            let _ = writeln!(text, "    {}{},", variant.name, fields(types, variant, false));
        }
        return text + "}";
    }
    let fields = fields(types, &user.variants[0], true);
    let end = if user.variants[0].has_places() || fields.is_empty() { ";" } else { "" };
    format!("struct {}{fields}{end}", user.name)
}

fn fields(types: &Described, variant: &Variant, is_long: bool) -> String {
    if variant.fields.is_empty() {
        return String::new();
    }
    let of = |field: &ringcall::shapes::Field| match variant.has_places() {
        true => ty(types, &field.ty),
        false => format!("{}: {}", field.name, ty(types, &field.ty)),
    };
    let fields: Vec<_> = variant.fields.iter().map(of).collect();
    match (variant.has_places(), is_long) {
        (true, _) => format!("({})", fields.join(", ")),
        (false, true) => format!(" {{\n    {},\n}}", fields.join(",\n    ")),
        (false, false) => format!(" {{ {} }}", fields.join(", ")),
    }
}
