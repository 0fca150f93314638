//! What a changed type means for callers and servers that were built before and after.
//!
//! Files of shapes hold the texts of methods, see [`render`]; [`compare`] reads two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use crate::described::{Described, Field, Type, UserType, Variant};

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
        let parse =
            |text: &str| text.parse::<Described>().map_err(|error| format!("{error}: {text}"));
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

    fn types(&mut self, at: &str, old: (&Described, &Type), new: (&Described, &Type)) {
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
                let (old, new) = (old_text.user(*old), new_text.user(*new));
                self.users(at, (old_text, old), (new_text, new));
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
    fn others(&mut self, at: &str, old: (&Described, &Type), new: (&Described, &Type)) {
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

    fn users(&mut self, at: &str, old: (&Described, &UserType), new: (&Described, &UserType)) {
        let ((old_text, old), (new_text, new)) = (old, new);
        if old.is_enum != new.is_enum {
            return self.add(Verdict::Incompatible, format!("{at}: is another type"));
        }
        for variant in &old.variants {
            let name = &variant.name;
            let inside = if old.is_enum {
                format!("{at}: {}::{name}", new.name)
            } else {
                format!("{at}: {}", new.name)
            };
            match new.variants.iter().find(|other| other.name == *name) {
                // One is written as its name alone, the other with what is in it.
                Some(other)
                    if old.is_enum && variant.fields.is_empty() != other.fields.is_empty() =>
                {
                    self.add(
                        Verdict::Incompatible,
                        format!("{inside}: has fields in one build only"),
                    );
                }
                Some(other) => self.fields(&inside, (old_text, variant), (new_text, other)),
                None => {
                    self.add(
                        Verdict::Fallback,
                        format!("{inside}: removed; an error where it comes"),
                    );
                }
            }
        }
        for Variant { name, .. } in &new.variants {
            if !old.variants.iter().any(|other| other.name == *name) {
                let what =
                    format!("{at}: {}::{name}: added; an error where it is not known", new.name);
                self.add(Verdict::Fallback, what);
            }
        }
    }

    fn fields(
        &mut self,
        at: &str,
        (old_text, old): (&Described, &Variant),
        (new_text, new): (&Described, &Variant),
    ) {
        if old.has_places() != new.has_places() {
            // By name nothing of it is found; as many fields as before do not help.
            let what = format!("{at}: fields have names in one build only");
            return self.add(Verdict::Incompatible, what);
        }
        if old.has_places() && old.fields.len() != new.fields.len() {
            let what = format!("{at}: another number of fields without names");
            return self.add(Verdict::Incompatible, what);
        }
        let is_in = |fields: &[Field], name: &str| fields.iter().any(|field| field.name == name);
        for Field { name, ty } in &old.fields {
            match new.fields.iter().find(|other| other.name == *name) {
                Some(other) => {
                    self.types(&format!("{at}.{name}"), (old_text, ty), (new_text, &other.ty));
                }
                None => {
                    self.add(Verdict::Fallback, format!("{at}.{name}: removed{}", needs(ty, "old")))
                }
            }
        }
        for Field { name, ty } in new.fields.iter().filter(|field| !is_in(&old.fields, &field.name))
        {
            self.add(Verdict::Fallback, format!("{at}.{name}: added{}", needs(ty, "new")));
        }
    }
}

/// What it takes to read a struct without this field.
fn needs(ty: &Type, build: &str) -> String {
    match ty.inside_of("option") {
        Some(_) => ", none if it is missing".to_owned(),
        None => format!(", needs `#[serde(default)]` in the {build} build"),
    }
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
