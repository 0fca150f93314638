//! serde's derives, for the codecs with names.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, DeriveInput, Field, Path, Token, Type, parse_quote};

use super::{fields_mut, skip_value};

/// Derives what the author has not. `#[serde(…)]` on the type, its variants and its fields is passed on.
pub(super) fn derive(input: &mut DeriveInput, codec: &TokenStream) {
    let derived = |name: &str| derives(&input.attrs, name);
    let (has_serialize, has_deserialize) = (derived("Serialize"), derived("Deserialize"));
    if !has_serialize || !has_deserialize {
        let serde: Path = parse_quote!(#codec::serde);
        let path = serde.to_token_stream().to_string();
        let wanted = [("Serialize", has_serialize), ("Deserialize", has_deserialize)];
        let wanted = wanted.iter().filter(|(_, has)| !has).map(|(name, _)| {
            let name = syn::Ident::new(name, proc_macro2::Span::call_site());
            let path: Path = parse_quote!(#serde::#name);
            path
        });
        let attributes: [Attribute; 2] =
            [parse_quote!(#[derive(#(#wanted),*)]), parse_quote!(#[serde(crate = #path)])];
        input.attrs.splice(0..0, attributes);
    }
    for field in fields_mut(&mut input.data) {
        if is_array(&field.ty) && !says_how(field) {
            let path = array_path(codec);
            field.attrs.push(parse_quote!(#[serde(with = #path)]));
        }
    }
}

/// Whether a type is an array, perhaps in brackets, or in those that nobody sees: another macro's `$of:ty`.
fn is_array(of: &Type) -> bool {
    match of {
        Type::Array(_) => true,
        Type::Group(group) => is_array(&group.elem),
        Type::Paren(paren) => is_array(&paren.elem),
        _ => false,
    }
}

/// serde's own stops at 32 elements.
fn array_path(codec: &TokenStream) -> String {
    let path: Path = parse_quote!(#codec::array);
    path.to_token_stream().to_string()
}

/// Whether one of the type's own derives has this name. Nobody derives rkyv's of the same names beside
/// `#[message]`.
pub(super) fn derives(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let paths = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
        paths.is_ok_and(|paths| {
            let last = |path: &Path| path.segments.last().is_some_and(|last| last.ident == name);
            paths.iter().any(last)
        })
    })
}

/// Whether a field has an attribute that says how it is read and written.
fn says_how(field: &Field) -> bool {
    let mut says = false;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // What serde does not understand it will say itself.
        let _ = attribute.parse_nested_meta(|meta| {
            let names = ["with", "serialize_with", "deserialize_with", "skip"];
            says |= names.iter().any(|name| meta.path.is_ident(name));
            skip_value(meta.input)
        });
    }
    says
}
