//! `PartialEq` between archived types and their originals, for types that derive `PartialEq`.
//!
//! Not rkyv's `compare`, which does not compile unless each field is of a type that has it, too: what has not, such as a
//! field with a wrapper, is made an original again to be compared.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Field, Fields, Ident, parse_quote};

use super::{archived_name, fields, has_rkyv_argument, named, with};

pub(super) fn compare(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let is_wanted =
        named::derives(&input.attrs, "PartialEq") && !has_rkyv_argument(&input.attrs, "compare");
    if !is_wanted {
        return TokenStream::new();
    }
    let (name, archived) = (&input.ident, archived_name(input));
    let generics = with_bounds(input, codec);
    let (impl_generics, type_generics, bounds) = generics.split_for_impl();
    let arms = arms(input, codec);
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::cmp::PartialEq<#name #type_generics> for #archived #type_generics #bounds {
            #[allow(unused_imports, unreachable_patterns)]
            fn eq(&self, other: &#name #type_generics) -> bool {
                use #codec::__private::{AsArchived as _, AsOriginal as _};
                match (self, other) {
                    #(#arms)*
                    _ => false,
                }
            }
        }
    }
}

/// What is needed of the parameters, and of wrappers that may depend on them.
fn with_bounds(input: &DeriveInput, codec: &TokenStream) -> syn::Generics {
    let rkyv = quote!(#codec::rkyv);
    let mut generics = input.generics.clone();
    let types: Vec<Ident> =
        generics.type_params().map(|parameter| parameter.ident.clone()).collect();
    if types.is_empty() {
        return generics;
    }
    let bounds = &mut generics.make_where_clause().predicates;
    let owner = quote!(#codec::__private::Owner);
    for ty in types {
        bounds.push(parse_quote! {
            #ty: ::core::cmp::PartialEq
                + #rkyv::Archive<Archived: ::core::cmp::PartialEq<#ty> + #rkyv::Deserialize<#ty, #owner>>
        });
    }
    for (field, with) in fields(&input.data).iter().filter_map(|field| Some((field, with(field)?)))
    {
        let ty = &field.ty;
        bounds.push(parse_quote! {
            #with: #rkyv::with::ArchiveWith<#ty>
                + #rkyv::with::DeserializeWith<<#with as #rkyv::with::ArchiveWith<#ty>>::Archived, #ty, #owner>
        });
    }
    generics
}

fn arms(input: &DeriveInput, codec: &TokenStream) -> Vec<TokenStream> {
    let name = &input.ident;
    match &input.data {
        Data::Struct(data) => vec![arm(&quote!(Self), &quote!(#name), &data.fields, codec)],
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| (&variant.ident, &variant.fields));
            variants
                .map(|(variant, fields)| {
                    arm(&quote!(Self::#variant), &quote!(#name::#variant), fields, codec)
                })
                .collect()
        }
        Data::Union(_) => Vec::new(),
    }
}

fn arm(
    archived: &TokenStream,
    original: &TokenStream,
    fields: &Fields,
    codec: &TokenStream,
) -> TokenStream {
    let members: Vec<_> = fields.members().collect();
    let names = |side: &str| -> Vec<Ident> {
        (0..members.len()).map(|index| format_ident!("{side}_{index}")).collect()
    };
    let (left, right) = (names("archived"), names("original"));
    let same = fields.iter().zip(left.iter().zip(&right)).map(|(field, (left, right))| {
        let with = wrapper(field, codec);
        quote!((&#codec::__private::Both::of::<#with, _>(#left, #right)).are_same())
    });
    quote! {
        (#archived { #(#members: #left),* }, #original { #(#members: #right),* }) => true #(&& #same)*,
    }
}

/// What a field is archived with.
fn wrapper(field: &Field, codec: &TokenStream) -> TokenStream {
    match with(field) {
        Some(with) => quote!(#with),
        None => quote!(#codec::__private::InPlace),
    }
}
