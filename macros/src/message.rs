//! `#[message]`.

mod borrowed;
mod check;
mod compare;
mod debug;
mod describe;
mod named;
mod unsupported;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Field, GenericParam, Ident, Path, Result, Token,
    Type, parse_quote, token,
};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Arguments { ringcall, also, borrowed } = parse_arguments(arguments)?;
    let mut input: DeriveInput = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), "`#[message]` goes on a struct or an enum"))?;
    check::check(&input)?;
    let codec = quote!(#ringcall::__private::codec);
    // In front of what is derived, to complain before rkyv does.
    let of_fields = check::of_fields(&input, &codec);
    let wire_type = describe::wire_type(&input, &codec);
    let debug = debug::debug(&input, &codec);
    let compare = compare::compare(&input, &codec);
    let message = message(&input, &also, &codec);
    let in_place_of_it = match borrowed.map(|borrowed| borrowed.name(&input)) {
        Some(name) => borrowed::borrowed(&input, &name, &codec)?,
        None => archived(&input, &codec),
    };
    named::derive(&mut input, &codec);
    derive(&mut input, &codec);
    Ok(quote! {
        #of_fields
        #input
        #wire_type
        #debug
        #compare
        #message
        #in_place_of_it
    })
}

struct Arguments {
    /// `crate = path`, or `::ringcall`.
    ringcall: TokenStream,
    also: Vec<Previous>,
    /// There is a borrowed form.
    borrowed: Option<Borrowed>,
}

/// What the borrowed form is called.
enum Borrowed {
    /// After the type.
    Ref(Span),
    Named(Ident),
}

impl Borrowed {
    fn name(self, input: &DeriveInput) -> Ident {
        match self {
            Borrowed::Ref(span) => format_ident!("{}Ref", input.ident, span = span),
            Borrowed::Named(name) => name,
        }
    }
}

/// A layout that the type had before.
struct Previous {
    ty: Type,
    /// There is a way back.
    is_written: bool,
}

/// The most that `codec-rkyv` gives numbers to.
const PREVIOUS_MAX: usize = 8;

fn parse_arguments(arguments: TokenStream) -> Result<Arguments> {
    let mut parsed = Arguments { ringcall: quote!(::ringcall), also: Vec::new(), borrowed: None };
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            parsed.ringcall = meta.value()?.parse::<Path>()?.into_token_stream();
            return Ok(());
        }
        if meta.path.is_ident("also") || meta.path.is_ident("also_written") {
            let is_written = meta.path.is_ident("also_written");
            parsed.also.push(Previous { ty: meta.value()?.parse()?, is_written });
            if parsed.also.len() > PREVIOUS_MAX {
                return Err(meta.error("more than eight layouts of before"));
            }
            return Ok(());
        }
        if meta.path.is_ident("borrowed") {
            parsed.borrowed = Some(match meta.input.peek(Token![=]) {
                true => Borrowed::Named(meta.value()?.parse()?),
                false => Borrowed::Ref(meta.path.span()),
            });
            return Ok(());
        }
        Err(meta.error(
            "unknown argument: `#[message]` takes `also = Previous`, `also_written = Previous`, `borrowed` and \
             `crate = path`",
        ))
    });
    parser.parse2(arguments)?;
    Ok(parsed)
}

/// The derives of rkyv, by full path, and what they need to be told.
///
/// Their bounds are on the type parameters. Bounds on fields, which rkyv would write, make recursive
/// types recurse in the compiler.
fn derive(input: &mut DeriveInput, codec: &TokenStream) {
    let rkyv: Path = parse_quote!(#codec::rkyv);
    let types: Vec<_> = input.generics.type_params().map(|parameter| &parameter.ident).collect();
    let attributes: [Attribute; 2] = [
        parse_quote!(#[derive(#rkyv::Archive, #rkyv::Serialize, #rkyv::Deserialize)]),
        parse_quote! {
            #[rkyv(
                crate = #rkyv,
                archive_bounds(#(#types: #rkyv::Archive,)*),
                serialize_bounds(
                    __S: #rkyv::ser::Writer + #rkyv::ser::Allocator,
                    __S::Error: #rkyv::rancor::Source,
                    #(#types: #rkyv::Serialize<__S>,)*
                ),
                deserialize_bounds(
                    __D::Error: #rkyv::rancor::Source,
                    #(<#types as #rkyv::Archive>::Archived: #rkyv::Deserialize<#types, __D>,)*
                ),
                bytecheck(bounds(
                    __C: #rkyv::validation::ArchiveContext,
                    __C::Error: #rkyv::rancor::Source,
                    #(<#types as #rkyv::Archive>::Archived: #rkyv::bytecheck::CheckBytes<__C>,)*
                )),
            )]
        },
    ];
    for field in fields_mut(&mut input.data) {
        if with(field).is_none() {
            field.attrs.push(parse_quote!(#[rkyv(omit_bounds)]));
            let is_parameter = types.iter().any(|parameter| *parameter == "Bytes");
            if is_bytes(&field.ty) && !is_parameter {
                field.attrs.push(parse_quote!(#[rkyv(with = #codec::__private::InPlace)]));
            }
        }
    }
    input.attrs.splice(0..0, attributes);
}

fn message(input: &DeriveInput, also: &[Previous], codec: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let (_, type_generics, _) = input.generics.split_for_impl();
    let (parameters, predicates) = for_macros(input, codec);
    let previous = also.iter().map(|Previous { ty, is_written }| {
        let encode = match is_written {
            true => quote_spanned! {ty.span()=>
                ::core::option::Option::Some(#codec::__private::encode_previous::<Self, #ty>)
            },
            false => quote!(::core::option::Option::None),
        };
        quote_spanned! {ty.span()=>
            #codec::Previous {
                describe: <#ty as #codec::WireType>::describe,
                decode: #codec::__private::decode_previous::<#ty, Self>,
                encode: #encode,
            }
        }
    });
    let also = (!also.is_empty()).then(|| quote!([also &const { [#(#previous),*] }]));
    quote! {
        #codec::impl_message!([#parameters] #name #type_generics where [#predicates] #also);
        #codec::impl_encode_as_itself!([#parameters] #name #type_generics where [#predicates]);
    }
}

/// What is read in an archive stands for a message without a borrowed form as well.
fn archived(input: &DeriveInput, codec: &TokenStream) -> TokenStream {
    let (name, archived) = (&input.ident, archived_name(input));
    let (_, type_generics, _) = input.generics.split_for_impl();
    let (parameters, predicates) = for_macros(input, codec);
    quote! {
        #codec::impl_encode_as_archived!(
            [#parameters] #archived #type_generics, #name #type_generics where [#predicates]
        );
    }
}

/// Parameters and bounds of a type, for macros of the codec.
fn for_macros(input: &DeriveInput, codec: &TokenStream) -> (TokenStream, TokenStream) {
    let parameters = input.generics.params.iter().map(|parameter| match parameter {
        GenericParam::Type(parameter) => {
            let (ident, bounds) = (&parameter.ident, &parameter.bounds);
            quote!(#ident: #codec::WireType + #bounds)
        }
        GenericParam::Const(parameter) => {
            let (ident, ty) = (&parameter.ident, &parameter.ty);
            quote!(const #ident: #ty)
        }
        GenericParam::Lifetime(_) => TokenStream::new(),
    });
    let bounds = input.generics.where_clause.iter().flat_map(|bounds| &bounds.predicates);
    (quote!(#(#parameters),*), quote!(#(#bounds),*))
}

/// Whether a type is called as the one is that counts its bytes.
fn is_bytes(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| last.ident == "Bytes" && last.arguments.is_none())
}

/// The wrapper of `#[rkyv(with = Wrapper)]`, if a field has one.
fn with(field: &Field) -> Option<Type> {
    rkyv_argument(&field.attrs, "with")
}

/// What the archived type is called.
fn archived_name(input: &DeriveInput) -> Type {
    let name = format_ident!("Archived{}", input.ident);
    rkyv_argument(&input.attrs, "archived").unwrap_or(parse_quote!(#name))
}

/// Whether there is a `#[rkyv(name(…))]`.
fn has_rkyv_argument(attributes: &[Attribute], name: &str) -> bool {
    let mut has = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rkyv")) {
        let _ = attribute.parse_nested_meta(|meta| {
            has |= meta.path.is_ident(name);
            skip_value(meta.input)
        });
    }
    has
}

/// The value of `#[rkyv(name = value)]`. What rkyv does not understand it will say itself.
fn rkyv_argument(attributes: &[Attribute], name: &str) -> Option<Type> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rkyv")) {
        let _ = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident(name) {
                // Not `value`, which does not take the keyword `as` for a name.
                meta.input.parse::<Token![=]>()?;
                found = Some(meta.input.parse()?);
                return Ok(());
            }
            skip_value(meta.input)
        });
    }
    found
}

/// Passes over the rest of another argument: `= …`, `(…)` or nothing. What follows `=` is a type or an
/// expression.
fn skip_value(input: ParseStream<'_>) -> Result<()> {
    if input.peek(token::Paren) {
        let inside;
        syn::parenthesized!(inside in input);
        inside.parse::<TokenStream>()?;
    } else if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        match input.fork().parse::<Type>() {
            Ok(_) => drop(input.parse::<Type>()?),
            Err(_) => drop(input.parse::<Expr>()?),
        }
    }
    Ok(())
}

fn fields(data: &Data) -> Vec<&Field> {
    match data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    }
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
