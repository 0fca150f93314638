//! `#[message]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericParam, Generics, Path, Result, Type,
    parse_quote,
};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let ringcall = crate_path(arguments)?;
    let mut input: DeriveInput = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), "`#[message]` goes on a struct or an enum"))?;
    check(&input)?;
    let codec = quote!(#ringcall::__private::codec);
    let wire = wire_type(&input, &codec);
    let checks = field_checks(&input, &codec);
    let message = message(&input, &codec);
    derive(&mut input, &codec);
    Ok(quote! {
        #input
        #wire
        #checks
        #message
    })
}

/// `crate = path`, or `::ringcall`.
fn crate_path(arguments: TokenStream) -> Result<TokenStream> {
    let mut path = quote!(::ringcall);
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            path = meta.value()?.parse::<Path>()?.into_token_stream();
            return Ok(());
        }
        Err(meta.error("unknown argument: `#[message]` takes only `crate = path`"))
    });
    parser.parse2(arguments)?;
    Ok(path)
}

/// What can be said better here than by what fails later.
fn check(input: &DeriveInput) -> Result<()> {
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
            return Err(Error::new(
                lifetime.span(),
                "a message owns its data: use `String` and `Vec` instead of references",
            ));
        }
    }
    Ok(())
}

/// The derives of rkyv, by full path, and what they need to be told.
fn derive(input: &mut DeriveInput, codec: &TokenStream) {
    let rkyv = quote!(#codec::rkyv);
    let path = rkyv.to_string();
    let path: Path = syn::parse_str(&path).expect("a path is a path");
    let is_generic = input.generics.type_params().next().is_some();
    let mut attributes: Vec<Attribute> = vec![
        parse_quote!(#[derive(#rkyv::Archive, #rkyv::Serialize, #rkyv::Deserialize)]),
        parse_quote!(#[rkyv(crate = #path, derive(Debug))]),
    ];
    if !is_generic {
        // Bounds on fields would make recursive types recurse in the compiler. All wire types need
        // only these of a serializer.
        attributes.push(parse_quote! {
            #[rkyv(
                serialize_bounds(
                    __S: #path::ser::Writer + #path::ser::Allocator,
                    __S::Error: #path::rancor::Source,
                ),
                deserialize_bounds(__D::Error: #path::rancor::Source),
                bytecheck(bounds(
                    __C: #path::validation::ArchiveContext,
                    __C::Error: #path::rancor::Source,
                )),
            )]
        });
        for field in fields_mut(&mut input.data) {
            if with(field).is_none() {
                field.attrs.push(parse_quote!(#[rkyv(omit_bounds)]));
            }
        }
    }
    input.attrs.splice(0..0, attributes);
}

/// `impl WireType`: describes the type for its shape.
fn wire_type(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let text = name.to_string();
    let (kind, inner) = match &input.data {
        Data::Struct(data) => ("struct", describe_fields(&data.fields)),
        Data::Enum(data) => {
            let variants = data.variants.iter().enumerate().map(|(number, variant)| {
                let text = variant.ident.to_string();
                let fields = describe_fields(&variant.fields);
                quote!(shape.variant(#text, #number, |shape| { #fields });)
            });
            ("enum", quote!(#(#variants)*))
        }
        Data::Union(_) => ("union", TokenStream::new()),
    };
    let generics = wire_generics(&input.generics, codec, name, input);
    let (impl_generics, type_generics, bounds) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #codec::WireType for #name #type_generics #bounds {
            fn describe(shape: &mut #codec::Shape) {
                let _ = &shape;
                shape.user::<Self>(#kind, #text, |shape| { let _ = &shape; #inner });
            }
        }
    }
}

/// Type parameters must be wire types, too, and the type must be archivable with them.
fn wire_generics(
    generics: &Generics,
    codec: &TokenStream,
    name: &syn::Ident,
    input: &DeriveInput,
) -> Generics {
    let mut generics = generics.clone();
    if generics.type_params().next().is_none() {
        return generics;
    }
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#codec::WireType));
    }
    let (_, type_generics, _) = input.generics.split_for_impl();
    let bounds = generics.make_where_clause();
    bounds.predicates.push(parse_quote!(#name #type_generics: #codec::rkyv::Archive));
    generics
}

fn describe_fields(fields: &Fields) -> TokenStream {
    let described = fields.iter().enumerate().map(|(index, field)| {
        let name = field.ident.as_ref().map_or(index.to_string(), ToString::to_string);
        let ty = &field.ty;
        match with(field) {
            Some(with) => quote_spanned! {with.span()=>
                shape.field_with::<#ty, #with>(#name);
            },
            None => quote_spanned!(ty.span()=> shape.field::<#ty>(#name);),
        }
    });
    quote!(#(#described)*)
}

/// Complains at the field whose type cannot be sent, when the type is declared rather than used.
fn field_checks(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    if input.generics.type_params().next().is_some() {
        return TokenStream::new();
    }
    let fields: Vec<&Field> = match &input.data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    };
    let checks = fields.into_iter().filter(|field| with(field).is_none()).map(|field| {
        let ty = &field.ty;
        quote_spanned!(ty.span()=> const _: () = <#ty as #codec::WireType>::CHECK;)
    });
    quote!(#(#checks)*)
}

fn message(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let parameters = input.generics.params.iter().map(|parameter| match parameter {
        GenericParam::Type(parameter) => {
            let (ident, bounds) = (&parameter.ident, &parameter.bounds);
            quote!(#ident: #codec::WireType + #bounds)
        }
        other => other.to_token_stream(),
    });
    quote!(#codec::impl_message!([#(#parameters),*] #name #type_generics);)
}

/// The wrapper of `#[rkyv(with = Wrapper)]`, if a field has one.
fn with(field: &Field) -> Option<Type> {
    let mut found = None;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("rkyv")) {
        let _ = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("with") {
                found = Some(meta.value()?.parse::<Type>()?);
            }
            Ok(())
        });
    }
    found
}

fn fields_mut(data: &mut Data) -> Vec<&mut Field> {
    match data {
        Data::Struct(data) => data.fields.iter_mut().collect(),
        Data::Enum(data) => {
            data.variants.iter_mut().flat_map(|variant| variant.fields.iter_mut()).collect()
        }
        Data::Union(_) => Vec::new(),
    }
}
