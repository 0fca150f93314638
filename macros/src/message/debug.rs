//! `Debug` of archived types.
//!
//! Not derived: of a generic type a derive would ask for `T: Debug`, where its archive has archived `T`s.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Fields, Ident, parse_quote};

use super::{archived_name, fields, with};

pub(super) fn debug(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let rkyv = quote!(#codec::rkyv);
    let archived = archived_name(input);
    let mut generics = input.generics.clone();
    let types: Vec<Ident> =
        generics.type_params().map(|parameter| parameter.ident.clone()).collect();
    if !types.is_empty() {
        let bounds = &mut generics.make_where_clause().predicates;
        for ty in types {
            bounds.push(parse_quote!(#ty: #rkyv::Archive<Archived: ::core::fmt::Debug>));
        }
        for (field, with) in
            fields(&input.data).iter().filter_map(|field| Some((field, with(field)?)))
        {
            let ty = &field.ty;
            bounds.push(
                parse_quote!(#with: #rkyv::with::ArchiveWith<#ty, Archived: ::core::fmt::Debug>),
            );
        }
    }
    let (impl_generics, type_generics, bounds) = generics.split_for_impl();
    let arms: Vec<TokenStream> = match &input.data {
        Data::Struct(data) => vec![arm(&quote!(Self), &input.ident, &data.fields)],
        Data::Enum(data) => {
            let variants = data.variants.iter();
            variants
                .map(|variant| {
                    let name = &variant.ident;
                    arm(&quote!(Self::#name), name, &variant.fields)
                })
                .collect()
        }
        Data::Union(_) => Vec::new(),
    };
    quote! {
        #[automatically_derived]
        impl #impl_generics ::core::fmt::Debug for #archived #type_generics #bounds {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self { #(#arms)* }
            }
        }
    }
}

fn arm(path: &TokenStream, name: &Ident, fields: &Fields) -> TokenStream {
    let text = name.unraw().to_string();
    let members: Vec<_> = fields.members().collect();
    let values: Vec<Ident> =
        (0..members.len()).map(|index| format_ident!("field_{index}")).collect();
    let debug = match fields {
        Fields::Named(fields) => {
            let names = fields.named.iter().flat_map(|field| &field.ident);
            let names = names.map(|name| name.unraw().to_string());
            quote!(f.debug_struct(#text)#(.field(#names, #values))*.finish())
        }
        Fields::Unnamed(_) => quote!(f.debug_tuple(#text)#(.field(#values))*.finish()),
        Fields::Unit => quote!(f.write_str(#text)),
    };
    quote!(#path { #(#members: #values),* } => #debug,)
}
