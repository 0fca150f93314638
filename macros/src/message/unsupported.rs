//! Types that cannot be part of a message and are known by their names: said once and with what to write instead, where
//! the compiler would say it of each derive.

use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{DeriveInput, Error, Expr, Path, PathArguments, PathSegment, Type, TypePath};

use super::{fields, with};

/// What is wrong with the fields, one error each.
pub(super) fn of_fields(input: &DeriveInput) -> Option<Error> {
    let fields = fields(&input.data).into_iter().filter(|field| with(field).is_none());
    let errors = fields.filter_map(|field| {
        let mut found = Found { input, error: None };
        found.visit_type(&field.ty);
        found.error
    });
    errors.reduce(|mut all, error| {
        all.combine(error);
        all
    })
}

struct Found<'a> {
    input: &'a DeriveInput,
    error: Option<Error>,
}

impl Found<'_> {
    fn say(&mut self, ty: &impl ToTokens, name: &str, instead: &str) {
        let text = format!("`{name}` cannot be part of a message: {instead}");
        self.error.get_or_insert_with(|| Error::new(ty.span(), text));
    }

    /// Whether a name is one that the type itself gives: a parameter, or its own.
    fn is_own(&self, path: &Path) -> bool {
        let mut types = self.input.generics.type_params().map(|parameter| &parameter.ident);
        path.is_ident(&self.input.ident) || types.any(|name| path.is_ident(name))
    }
}

impl Visit<'_> for Found<'_> {
    /// The length of an array may be made of anything.
    fn visit_expr(&mut self, _: &Expr) {}

    fn visit_type_path(&mut self, ty: &TypePath) {
        // What `<usize as Of>::Field` is nobody knows here.
        if ty.qself.is_some() {
            return;
        }
        if !self.is_own(&ty.path)
            && let Some(last) = ty.path.segments.last()
            && let Some(instead) = instead(&ty.path, last)
        {
            self.say(ty, &last.ident.to_string(), instead);
            return;
        }
        visit::visit_type_path(self, ty);
    }

    fn visit_type(&mut self, ty: &Type) {
        match ty {
            Type::TraitObject(_) => {
                let instead =
                    "nobody could check which type it is; use an enum of those that it may be";
                self.say(ty, "dyn", instead);
            }
            _ => visit::visit_type(self, ty),
        }
    }
}

/// What to use in place of a type of this name.
fn instead(path: &Path, last: &PathSegment) -> Option<&'static str> {
    let is_generic = matches!(last.arguments, PathArguments::AngleBracketed(_));
    let is_from = |names: &[&str]| {
        let first = path.segments.first().filter(|_| path.segments.len() > 1);
        first.is_some_and(|first| names.iter().any(|name| first.ident == name))
    };
    Some(match last.ident.to_string().as_str() {
        "usize" => "it is not as large everywhere; use `u64`",
        "isize" => "it is not as large everywhere; use `i64`",
        "HashMap" | "BTreeMap" if is_generic => "use a sorted `Vec<(Key, Value)>`",
        "HashSet" | "BTreeSet" if is_generic => "use a sorted `Vec`",
        "Arc" | "Rc" | "Weak" if is_generic => "use the value itself, or a `Box`",
        "PathBuf" => "use a `String`",
        "SystemTime" => "write `#[rkyv(with = ringcall::UnixTime)]` on the field",
        // These may be names of the user's own messages, too.
        "Instant" if is_from(&["std"]) => {
            "it means nothing to another machine; use a `Duration`, or a `SystemTime`"
        }
        "DateTime" if is_generic || is_from(&["chrono"]) => {
            "use a `SystemTime` with `#[rkyv(with = ringcall::UnixTime)]`, or a wrapper of your own, see docs/MESSAGES.md"
        }
        "Decimal" if is_from(&["rust_decimal"]) => {
            "use its bytes, `[u8; 16]`, or a wrapper of your own, see docs/MESSAGES.md"
        }
        _ => return None,
    })
}
