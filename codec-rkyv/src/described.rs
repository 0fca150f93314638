//! Types as the texts of signatures describe them: for whoever has the text and not the type. `docs/SHAPES.md` has the
//! grammar.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One direction of a method: what goes in, or what comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// The format of archives: `rkyv-0.8/` and a number.
    pub format: String,
    /// The argument; or the reply and the error, if there is one.
    pub parts: Vec<Type>,
    /// What the stream consists of, if there is one.
    pub items: Option<Type>,
    users: Vec<UserType>,
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A primitive, or what says nothing of its inside: `u8`, `string`, `raw`, `never`, what a wrapper is called.
    Leaf(String),
    /// A container and what is in it: `vec`, `option`, `box`, `array-N`, `tuple`.
    Container(String, Vec<Type>),
    /// One with `#[message]`, see [`Described::user`].
    User(usize),
}

/// A type with `#[message]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserType {
    /// Without a path.
    pub name: String,
    /// Whether it is an enum; otherwise it is a struct.
    pub is_enum: bool,
    /// In the order of the source. A struct has one, without a name.
    pub variants: Vec<Variant>,
}

/// A variant of an enum, or what is in a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// In the order of the source.
    pub fields: Vec<Field>,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its name, or its place if it has none: `0`, `1` and so on.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

impl Type {
    /// What is in a container of this name that holds one thing.
    #[must_use]
    pub fn inside_of(&self, container: &str) -> Option<&Type> {
        match self {
            Type::Container(name, inside) if name == container => inside.first(),
            _ => None,
        }
    }

    /// Whether it is a leaf of this name.
    #[must_use]
    pub fn is_leaf(&self, name: &str) -> bool {
        matches!(self, Type::Leaf(leaf) if leaf == name)
    }
}

impl Variant {
    /// Whether its fields have no names and go by their places.
    #[must_use]
    pub fn has_places(&self) -> bool {
        self.fields.iter().any(|field| field.name.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl Described {
    /// A user type of this text, by its number.
    ///
    /// # Panics
    /// With a number that is not of this text.
    #[must_use]
    pub fn user(&self, number: usize) -> &UserType {
        &self.users[number]
    }
}

/// Not such a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotDescribed;

impl fmt::Display for NotDescribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no text of a signature")
    }
}

impl std::error::Error for NotDescribed {}

/// Of a text, which may be somebody else's.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Of a name or a number: a reference of a few bytes stands for one where types are shown.
const WORD_BYTES_MAX: usize = 256;
/// Of types within types, as they are written.
const DEPTH_MAX: u32 = 128;

impl FromStr for Described {
    type Err = NotDescribed;

    /// Takes texts of up to 256 KiB, of words of up to 256 bytes, in which types nest up to 128 deep as they are written:
    /// by references they may nest without end. The fields of a variant have different names, and so have the variants of
    /// an enum.
    fn from_str(text: &str) -> Result<Described, NotDescribed> {
        parse(text).ok_or(NotDescribed)
    }
}

fn parse(text: &str) -> Option<Described> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut parser = Parser { rest: text, users: Vec::new(), depth: 0 };
    let format = parser.until(&[';'])?;
    parser.expect(";")?;
    let (mut parts, mut items) = (Vec::new(), None);
    loop {
        let is_items = parser.eat("items ");
        let ty = parser.ty()?;
        match is_items {
            true => items = Some(ty),
            false => parts.push(ty),
        }
        if parser.rest.is_empty() {
            return Some(Described {
                format: format.to_owned(),
                parts,
                items,
                users: parser.users,
            });
        }
        parser.expect(";")?;
    }
}

struct Parser<'a> {
    rest: &'a str,
    users: Vec<UserType>,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.eat(text).then_some(())
    }

    /// Up to one of these characters, which is left.
    fn until(&mut self, ends: &[char]) -> Option<&'a str> {
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        (word.len() <= WORD_BYTES_MAX).then_some(word)
    }

    fn ty(&mut self) -> Option<Type> {
        self.depth += 1;
        let ty = (self.depth <= DEPTH_MAX).then(|| self.ty_within()).flatten();
        self.depth -= 1;
        ty
    }

    fn ty_within(&mut self) -> Option<Type> {
        if self.eat("^") {
            let number = self.until(&[' ', ';', ')', '}'])?.parse().ok()?;
            return (number < self.users.len()).then_some(Type::User(number));
        }
        let is_enum = self.eat("enum ");
        let is_user = is_enum || self.eat("struct ");
        let name = self.until(&[':', ' ', ';', '(', '{', ')', '}'])?;
        if name.is_empty() {
            return None;
        }
        // Size and alignment follow from the rest.
        self.until(&[' ', ';', '(', '{', ')', '}'])?;
        if is_user {
            let number = self.users.len();
            // It is begun, so that it can refer to itself.
            self.users.push(UserType { name: name.to_owned(), is_enum, variants: Vec::new() });
            self.users[number].variants = self.user(is_enum)?;
            return Some(Type::User(number));
        }
        if !self.eat("(") {
            return Some(Type::Leaf(name.to_owned()));
        }
        let mut inside = Vec::new();
        while !self.eat(")") {
            inside.push(self.ty()?);
            self.expect(" ")?;
        }
        Some(Type::Container(name.to_owned(), inside))
    }

    fn user(&mut self, is_enum: bool) -> Option<Vec<Variant>> {
        self.expect("{")?;
        if !is_enum {
            return Some(vec![Variant { name: String::new(), fields: self.fields("}")? }]);
        }
        let (mut variants, mut names) = (Vec::new(), BTreeSet::new());
        while !self.eat("}") {
            let name = self.until(&['#'])?;
            self.until(&['('])?;
            self.expect("(")?;
            names.insert(name).then_some(())?;
            variants.push(Variant { name: name.to_owned(), fields: self.fields(")")? });
        }
        Some(variants)
    }

    fn fields(&mut self, end: &str) -> Option<Vec<Field>> {
        let (mut fields, mut names) = (Vec::new(), BTreeSet::new());
        while !self.eat(end) {
            let name = self.until(&['='])?;
            self.expect("=")?;
            names.insert(name).then_some(())?;
            fields.push(Field { name: name.to_owned(), ty: self.ty()? });
            self.expect(" ")?;
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "rkyv-0.8/2;struct Order:40:8{symbol=string:8:4 side=enum Side:1:1{Buy#1()Sell#2()} \
                         legs=vec:8:4(^0 ) };^1;items raw";

    #[test]
    fn a_text_says_what_types_are_made_of() {
        let described: Described = ORDER.parse().expect("a text");
        assert_eq!(described.format, "rkyv-0.8/2");
        assert_eq!(described.parts, [Type::User(0), Type::User(1)]);
        assert!(described.items.is_some_and(|items| items.is_leaf("raw")));
        let order: Described = ORDER.parse().expect("a text");
        let fields = &order.user(0).variants[0].fields;
        assert_eq!(fields[0].ty, Type::Leaf("string".to_owned()));
        assert_eq!(fields[2].ty.inside_of("vec"), Some(&Type::User(0)));
        assert!(order.user(1).is_enum);
    }

    #[test]
    fn what_is_no_text_is_told() {
        let deep = format!("rkyv-0.8/2;{}u8:1:1{}", "box:4:4(".repeat(500), " )".repeat(500));
        let long = format!("rkyv-0.8/2;{}", "a".repeat(TEXT_BYTES_MAX));
        let others =
            ["", ";", "rkyv-0.8/2", "rkyv-0.8/2;", "rkyv-0.8/2;^0", "rkyv-0.8/2;vec:8:4(^7 )"];
        for text in others.into_iter().chain([deep.as_str(), &long]) {
            assert_eq!(
                text.parse::<Described>(),
                Err(NotDescribed),
                "{}",
                &text[..text.len().min(40)]
            );
        }
        let of_two = |names: [&str; 2]| {
            let [a, b] = names;
            [
                format!("rkyv-0.8/2;struct A:1:1{{{a}=u8:1:1 {b}=u8:1:1 }}"),
                format!("rkyv-0.8/2;enum A:1:1{{{a}#0(){b}#1()}}"),
                format!("rkyv-0.8/2;enum A:1:1{{A#0({a}=u8:1:1 {b}=u8:1:1 )}}"),
            ]
        };
        let word = "a".repeat(WORD_BYTES_MAX);
        for (names, is_text) in [
            (["a", "b"], true),
            (["a", "a"], false),
            (["a", &word], true),
            (["a", &format!("{word}a")], false),
        ] {
            for text in of_two(names) {
                assert_eq!(text.parse::<Described>().is_ok(), is_text, "{text}");
            }
        }
        for before in ["struct ", "u8:", "", "^", "vec("] {
            let text = format!("rkyv-0.8/2;{before}{word}a");
            assert_eq!(text.parse::<Described>(), Err(NotDescribed), "{before}");
        }
        assert!(format!("{word};u8").parse::<Described>().is_ok());
        assert!(format!("{word}a;u8").parse::<Described>().is_err());
        // No prefix of a text makes it panic, or recurse without end.
        for end in 0..ORDER.len() {
            let _ = ORDER[..end].parse::<Described>();
        }
    }
}
