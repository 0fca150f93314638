//! `WireType`: what a type says about itself for its shape.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Fields, parse_quote};

use super::{check, with};

pub(super) fn wire_type(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let text = name.unraw().to_string();
    let (kind, inner) = match &input.data {
        Data::Struct(data) => ("struct", describe_fields(input, &data.fields, codec)),
        Data::Enum(data) => ("enum", describe_variants(input, data, codec)),
        Data::Union(_) => ("union", TokenStream::new()),
    };
    let (_, type_generics, _) = input.generics.split_for_impl();
    let mut generics = input.generics.clone();
    if generics.type_params().next().is_some() {
        for parameter in generics.type_params_mut() {
            parameter.bounds.push(parse_quote!(#codec::WireType));
        }
        let bounds = &mut generics.make_where_clause().predicates;
        bounds.push(parse_quote!(#name #type_generics: #codec::rkyv::Archive));
    }
    let (impl_generics, _, bounds) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #codec::WireType for #name #type_generics #bounds {
            fn describe(shape: &mut #codec::Shape) {
                #[allow(unused_imports)]
                use #codec::__private::NoField as _;
                let _ = &shape;
                shape.user::<Self>(#kind, #text, |shape| { let _ = &shape; #inner });
            }
        }
    }
}

/// The archive of an enum has the discriminants of the enum, so they are what its variants are told
/// apart by.
fn describe_variants(input: &DeriveInput, data: &DataEnum, codec: &TokenStream) -> TokenStream {
    let (mut base, mut since) = (quote!(0), 0_usize);
    let variants = data.variants.iter().map(|variant| {
        if let Some((_, discriminant)) = &variant.discriminant {
            // What it is said with are names of the user's, of which none may be this one.
            base = quote!({ const __RINGCALL_TAG: u8 = #discriminant; __RINGCALL_TAG as usize });
            since = 0;
        }
        let text = variant.ident.unraw().to_string();
        let fields = describe_fields(input, &variant.fields, codec);
        let described = quote! {
            shape.variant(#text, #base + #since, |shape| { let _ = &shape; #fields });
        };
        since += 1;
        described
    });
    quote!(#(#variants)*)
}

fn describe_fields(input: &DeriveInput, fields: &Fields, codec: &TokenStream) -> TokenStream {
    let described = fields.iter().enumerate().map(|(index, field)| {
        let name = field.ident.as_ref().map_or(index.to_string(), |name| name.unraw().to_string());
        let ty = &field.ty;
        match with(field) {
            Some(with) => quote_spanned! {with.span()=>
                shape.field_with::<#ty, #with>(#name);
            },
            None if check::is_stated(input, field) => {
                let field_of = quote!(#codec::__private::FieldOf);
                quote_spanned!(ty.span()=> #field_of::<#ty>::describe(shape, #name);)
            }
            None => quote_spanned!(ty.span()=> shape.field::<#ty>(#name);),
        }
    });
    quote!(#(#described)*)
}
