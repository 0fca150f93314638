//! What a changed type means for callers and servers that were built before and after.
//!
//! Files of shapes hold the texts of methods, see [`render`]; [`compare`] reads two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// What becomes of calls of a method between two builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// They have the same layouts: archives, read in place.
    #[default]
    FastPath,
    /// They talk in MessagePack, by names. What the differences say must hold.
    Fallback,
    /// At least one side cannot read what the other sends, whatever is done about it.
    Incompatible,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::FastPath => "fast path",
            Verdict::Fallback => "fallback",
            Verdict::Incompatible => "incompatible",
        })
    }
}

/// What has changed about a method.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Comparison {
    /// `package.Service/method`.
    pub method: String,
    /// What becomes of its calls.
    pub verdict: Verdict,
    /// What has changed, for people, one thing each.
    pub differences: Vec<String>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12} {}", self.verdict, self.method)?;
        self.differences.iter().try_for_each(|difference| write!(f, "\n    {difference}"))
    }
}

/// A file of shapes: for each method its name, and its two texts on lines of their own.
pub fn render<'a>(methods: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let methods: BTreeSet<_> = methods.into_iter().collect();
    let mut file = String::new();
    for (name, text_in, text_out) in methods {
        let _ = writeln!(file, "{name}\n  in {text_in}\n  out {text_out}");
    }
    file
}

/// Compares two files of shapes, the older one first, method by method.
///
/// # Errors
/// With the line that makes no sense.
pub fn compare(old: &str, new: &str) -> Result<Vec<Comparison>, String> {
    let (old, new) = (methods(old)?, methods(new)?);
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let compared = names.into_iter().map(|name| {
        let changes = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => {
                let mut changes = Changes::default();
                changes.texts("the argument", old[0], new[0])?;
                changes.texts("the answer", old[1], new[1])?;
                changes
            }
            (None, _) => Changes::of(Verdict::FastPath, "new"),
            (_, None) => Changes::of(Verdict::Incompatible, "removed: callers of it are refused"),
        };
        let Changes { verdict, differences, .. } = changes;
        Ok(Comparison { method: name.to_owned(), verdict, differences })
    });
    compared.collect()
}

fn methods(file: &str) -> Result<BTreeMap<&str, [&str; 2]>, String> {
    let mut methods = BTreeMap::new();
    let mut lines = file.lines();
    while let Some(name) = lines.next() {
        let mut text = |prefix| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(prefix).ok_or_else(|| format!("{name}: not `{prefix}…`: {line}"))
        };
        methods.insert(name, [text("  in ")?, text("  out ")?]);
    }
    Ok(methods)
}

// ---- texts ----

/// A direction of a method, parsed.
struct Text<'a> {
    format: &'a str,
    parts: Vec<Type<'a>>,
    items: Option<Type<'a>>,
    /// User types, in the order of their numbers.
    users: Vec<User<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Type<'a> {
    /// Primitives, and what says nothing of its inside.
    Leaf(&'a str),
    Container(&'a str, Vec<Type<'a>>),
    /// By number.
    User(usize),
}

impl<'a> Type<'a> {
    /// What is in a container of this name that holds one thing.
    fn inside_of(&self, container: &str) -> Option<&Type<'a>> {
        match self {
            Type::Container(name, inside) if *name == container => inside.first(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
struct User<'a> {
    name: &'a str,
    /// A struct's is the only one, and has no name.
    variants: Vec<(&'a str, Vec<Field<'a>>)>,
    is_enum: bool,
}

type Field<'a> = (&'a str, Type<'a>);

impl<'a> Text<'a> {
    fn parse(text: &'a str) -> Option<Text<'a>> {
        let (format, mut rest) = text.split_once(';')?;
        let mut parsed = Text { format, parts: Vec::new(), items: None, users: Vec::new() };
        loop {
            let is_items = rest.starts_with("items ");
            let mut parser = Parser { rest: rest.strip_prefix("items ").unwrap_or(rest) };
            let ty = parser.ty(&mut parsed.users)?;
            match is_items {
                true => parsed.items = Some(ty),
                false => parsed.parts.push(ty),
            }
            rest = match parser.rest {
                "" => return Some(parsed),
                more => more.strip_prefix(';')?,
            };
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Up to one of these characters, which is left.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn ty(&mut self, users: &mut Vec<User<'a>>) -> Option<Type<'a>> {
        if self.eat("^") {
            return Some(Type::User(self.until(&[' ', ';', ')', '}']).parse().ok()?));
        }
        let is_enum = self.eat("enum ");
        let is_user = is_enum || self.eat("struct ");
        let name = self.until(&[':', ' ', ';', '(', '{']);
        // Size and alignment follow from the rest.
        self.until(&[' ', ';', '(', '{', ')', '}']);
        if is_user {
            let number = users.len();
            users.push(User { name, variants: Vec::new(), is_enum });
            let variants = self.eat("{").then(|| self.user(is_enum, users)).flatten()?;
            users[number].variants = variants;
            return Some(Type::User(number));
        }
        if !self.eat("(") {
            return Some(Type::Leaf(name));
        }
        let mut inside = Vec::new();
        while !self.eat(")") {
            inside.push(self.ty(users)?);
            self.eat(" ").then_some(())?;
        }
        Some(Type::Container(name, inside))
    }

    fn user(
        &mut self,
        is_enum: bool,
        users: &mut Vec<User<'a>>,
    ) -> Option<Vec<(&'a str, Vec<Field<'a>>)>> {
        if !is_enum {
            return Some(vec![("", self.fields("}", users)?)]);
        }
        let mut variants = Vec::new();
        while !self.eat("}") {
            let name = self.until(&['#']);
            self.until(&['(']);
            self.eat("(").then_some(())?;
            variants.push((name, self.fields(")", users)?));
        }
        Some(variants)
    }

    fn fields(&mut self, end: &str, users: &mut Vec<User<'a>>) -> Option<Vec<Field<'a>>> {
        let mut fields = Vec::new();
        while !self.eat(end) {
            let name = self.until(&['=']);
            self.eat("=").then_some(())?;
            fields.push((name, self.ty(users)?));
            self.eat(" ").then_some(())?;
        }
        Some(fields)
    }
}

// ---- changes ----

#[derive(Default)]
struct Changes {
    verdict: Verdict,
    differences: Vec<String>,
    /// User types that have been compared, by number.
    seen: BTreeSet<(usize, usize)>,
}

impl Changes {
    fn of(verdict: Verdict, what: &str) -> Changes {
        let mut changes = Changes::default();
        changes.add(verdict, what.to_owned());
        changes
    }

    fn add(&mut self, verdict: Verdict, difference: String) {
        self.verdict = self.verdict.max(verdict);
        self.differences.push(difference);
    }

    fn texts(&mut self, direction: &str, old: &str, new: &str) -> Result<(), String> {
        if old == new {
            return Ok(());
        }
        self.verdict = self.verdict.max(Verdict::Fallback);
        let parse = |text| Text::parse(text).ok_or_else(|| format!("not a shape: {text}"));
        let (old, new) = (parse(old)?, parse(new)?);
        self.seen.clear();
        if old.format != new.format {
            self.add(Verdict::Fallback, "the format of archives".to_owned());
        }
        let names = if old.parts.len() == 1 { [direction, ""] } else { [direction, "the error"] };
        for ((old_part, new_part), name) in old.parts.iter().zip(&new.parts).zip(names) {
            self.types(name, (&old, old_part), (&new, new_part));
        }
        match (&old.items, &new.items) {
            (Some(old_items), Some(new_items)) => {
                self.types("items", (&old, old_items), (&new, new_items));
            }
            (None, None) => {}
            _ => self.add(Verdict::Incompatible, format!("{direction}: items were there in one")),
        }
        Ok(())
    }

    fn types(&mut self, at: &str, old: (&Text<'_>, &Type<'_>), new: (&Text<'_>, &Type<'_>)) {
        let ((old_text, old_type), (new_text, new_type)) = (old, new);
        // What is in a box is written in its place.
        match (old_type.inside_of("box"), new_type.inside_of("box")) {
            (Some(inside), None) => return self.types(at, (old_text, inside), new),
            (None, Some(inside)) => return self.types(at, old, (new_text, inside)),
            _ => {}
        }
        match (old_type, new_type) {
            (Type::User(old), Type::User(new)) => {
                if !self.seen.insert((*old, *new)) {
                    return;
                }
                let users = old_text.users.get(*old).zip(new_text.users.get(*new));
                if let Some((old, new)) = users {
                    self.users(at, (old_text, old), (new_text, new));
                }
            }
            (Type::Leaf(old), Type::Leaf(new)) => self.leaves(at, old, new),
            (Type::Container(old, a), Type::Container(new, b))
                if old == new && a.len() == b.len() =>
            {
                for (a, b) in a.iter().zip(b) {
                    self.types(at, (old_text, a), (new_text, b));
                }
            }
            _ => self.others(at, old, new),
        }
    }

    fn leaves(&mut self, at: &str, old: &str, new: &str) {
        if old == new {
            return;
        }
        let what = format!("{at}: {old} became {new}");
        match number(old).is_some() && number(old) == number(new) {
            true => {
                self.add(Verdict::Fallback, format!("{what}; numbers that do not fit are errors"));
            }
            false => self.add(Verdict::Incompatible, what),
        }
    }

    /// Types that are not of the same kind.
    fn others(&mut self, at: &str, old: (&Text<'_>, &Type<'_>), new: (&Text<'_>, &Type<'_>)) {
        if let Some(inside) = old.1.inside_of("option") {
            self.add(Verdict::Fallback, format!("{at}: no longer optional; none is an error"));
            self.types(at, (old.0, inside), new);
        } else if let Some(inside) = new.1.inside_of("option") {
            self.add(Verdict::Fallback, format!("{at}: became optional; none is an error before"));
            self.types(at, old, (new.0, inside));
        } else {
            self.add(Verdict::Incompatible, format!("{at}: is another type"));
        }
    }

    fn users(&mut self, at: &str, old: (&Text<'_>, &User<'_>), new: (&Text<'_>, &User<'_>)) {
        let ((old_text, old), (new_text, new)) = (old, new);
        if old.is_enum != new.is_enum {
            return self.add(Verdict::Incompatible, format!("{at}: is another type"));
        }
        for (name, fields) in &old.variants {
            let inside = if old.is_enum {
                format!("{at}: {}::{name}", new.name)
            } else {
                format!("{at}: {}", new.name)
            };
            match new.variants.iter().find(|(other, _)| other == name) {
                // One is written as its name alone, the other with what is in it.
                Some((_, others)) if old.is_enum && fields.is_empty() != others.is_empty() => {
                    self.add(
                        Verdict::Incompatible,
                        format!("{inside}: has fields in one build only"),
                    );
                }
                Some((_, others)) => self.fields(&inside, (old_text, fields), (new_text, others)),
                None => {
                    self.add(
                        Verdict::Fallback,
                        format!("{inside}: removed; an error where it comes"),
                    );
                }
            }
        }
        for (name, _) in &new.variants {
            if !old.variants.iter().any(|(other, _)| other == name) {
                let what =
                    format!("{at}: {}::{name}: added; an error where it is not known", new.name);
                self.add(Verdict::Fallback, what);
            }
        }
    }

    fn fields(
        &mut self,
        at: &str,
        (old_text, old): (&Text<'_>, &[Field<'_>]),
        (new_text, new): (&Text<'_>, &[Field<'_>]),
    ) {
        let has_places = |fields: &[Field<'_>]| fields.iter().any(|(name, _)| is_place(name));
        let places = (has_places(old), has_places(new));
        if places.0 != places.1 {
            // By name nothing of it is found; as many fields as before do not help.
            let what = format!("{at}: fields have names in one build only");
            return self.add(Verdict::Incompatible, what);
        }
        if places.0 && old.len() != new.len() {
            let what = format!("{at}: another number of fields without names");
            return self.add(Verdict::Incompatible, what);
        }
        for (name, ty) in old {
            match new.iter().find(|(other, _)| other == name) {
                Some((_, other)) => {
                    self.types(&format!("{at}.{name}"), (old_text, ty), (new_text, other));
                }
                None => {
                    self.add(Verdict::Fallback, format!("{at}.{name}: removed{}", needs(ty, "old")))
                }
            }
        }
        for (name, ty) in new {
            if !old.iter().any(|(other, _)| other == name) {
                self.add(Verdict::Fallback, format!("{at}.{name}: added{}", needs(ty, "new")));
            }
        }
    }
}

/// What it takes to read a struct without this field.
fn needs(ty: &Type<'_>, build: &str) -> String {
    match ty {
        Type::Container("option", _) => ", none if it is missing".to_owned(),
        _ => format!(", needs `#[serde(default)]` in the {build} build"),
    }
}

fn is_place(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Integer,
    /// An integer may come in its place, but not the other way round.
    Float,
}

fn number(leaf: &str) -> Option<Number> {
    let leaf = leaf.strip_prefix("nz-").unwrap_or(leaf);
    let bits = leaf.strip_prefix(['u', 'i', 'f'])?;
    if !matches!(bits, "8" | "16" | "32" | "64" | "128") {
        return None;
    }
    Some(if leaf.starts_with('f') { Number::Float } else { Number::Integer })
}
