//! What cannot be a message, said here because it would be said worse, or not at all, later.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Data, DeriveInput, Error, Field, GenericParam, Lifetime, Path, Result, Type};

use super::{fields, rkyv_argument, unsupported, with};
use crate::respan;

const BORROWED: &str = "a message owns its data: use `String` and `Vec` instead of references";

pub(super) fn check(input: &DeriveInput) -> Result<()> {
    if let Data::Union(data) = &input.data {
        return Err(Error::new(
            data.union_token.span,
            "a union cannot be a message: nobody could check which field it holds; use an enum",
        ));
    }
    if let Data::Enum(data) = &input.data
        && data.variants.is_empty()
    {
        return Err(Error::new(
            input.ident.span(),
            "an enum without variants cannot be a message; a method without an error returns its value itself",
        ));
    }
    for parameter in &input.generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            return Err(Error::new(lifetime.span(), BORROWED));
        }
    }
    for name in ["as", "remote"] {
        if let Some(ty) = rkyv_argument(&input.attrs, name) {
            return Err(Error::new(
                ty.span(),
                format!("a message has an archived type of its own: remove `{name}`"),
            ));
        }
    }
    no_cfg(&input.data)?;
    fields(&input.data).into_iter().filter(|field| with(field).is_none()).try_for_each(
        |field| {
            let mut borrowed = Borrowed(None);
            borrowed.visit_type(&field.ty);
            borrowed.0.map_or(Ok(()), |span| Err(Error::new(span, BORROWED)))
        },
    )?;
    unsupported::of_fields(input).map_or(Ok(()), Err)
}

/// An attribute macro sees what `cfg` will remove, so that a description would not fit its type.
fn no_cfg(data: &Data) -> Result<()> {
    let of_variants = match data {
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.attrs).collect(),
        _ => Vec::new(),
    };
    let of_fields = fields(data).into_iter().flat_map(|field| &field.attrs);
    match of_fields.chain(of_variants).find(|attribute| attribute.path().is_ident("cfg")) {
        None => Ok(()),
        Some(cfg) => Err(Error::new(
            cfg.span(),
            "a part of a message cannot depend on `cfg`: both sides must have the same; put `cfg` on the whole type",
        )),
    }
}

/// Where a type borrows, if it does.
struct Borrowed(Option<Span>);

impl Visit<'_> for Borrowed {
    fn visit_type(&mut self, ty: &Type) {
        match ty {
            Type::Reference(_) => self.0 = self.0.or(Some(ty.span())),
            _ => visit::visit_type(self, ty),
        }
    }

    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        self.0 = self.0.or(Some(lifetime.span()));
    }
}

/// Whether [`of_fields`] complains at a field if its type cannot be sent.
pub(super) fn is_stated(input: &DeriveInput, field: &Field) -> bool {
    input.generics.params.is_empty() && with(field).is_none() && !mentions_self(&field.ty)
}

/// Complains at the field whose type cannot be sent, when the type is declared rather than used.
pub(super) fn of_fields(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let fields = fields(&input.data).into_iter().filter(|field| is_stated(input, field));
    let (bounds, checks): (Vec<_>, Vec<_>) = fields
        .map(|field| {
            let ty = &field.ty;
            let wire_type = respan(quote!(#codec::WireType), ty.span());
            let bound = quote_spanned!(ty.span()=> #ty: #wire_type);
            let field_of = respan(quote!(#codec::__private::FieldOf), ty.span());
            (bound, quote_spanned!(ty.span()=> const _: () = #field_of::<#ty>::CHECK;))
        })
        .unzip();
    let name = format_ident!("__{}Fields", input.ident);
    quote! {
        #[allow(dead_code, trivial_bounds)]
        struct #name where #(#bounds),*;
        const _: () = {
            #[allow(unused_imports)]
            use #codec::__private::NoField as _;
            #(#checks)*
        };
    }
}

fn mentions_self(ty: &Type) -> bool {
    struct Found(bool);

    impl Visit<'_> for Found {
        fn visit_path(&mut self, path: &Path) {
            self.0 |= path.segments.iter().any(|segment| segment.ident == "Self");
            visit::visit_path(self, path);
        }
    }

    let mut found = Found(false);
    found.visit_type(ty);
    found.0
}
