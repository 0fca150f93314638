//! `OrderRef` beside `Order`: what is written as one, of parts that it need not own.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DataStruct, DeriveInput, Error, Field, Fields, Ident, Result, Type};

use super::{archived_name, with};

/// The borrowed form, and that it stands for the message as what is read in an archive does: field by field.
pub(super) fn borrowed(
    input: &DeriveInput,
    name: &Ident,
    codec: &TokenStream,
) -> Result<TokenStream> {
    let data = able(input, name)?;
    let parts = Part::all_of(data);
    let the_type = the_type(input, name, data, &parts);
    let parameters: Vec<_> = parts.iter().filter_map(Part::parameter).collect();
    let bounds = parts.iter().filter_map(|part| {
        let (parameter, ty) = (part.parameter()?, &part.field.ty);
        Some(quote_spanned!(ty.span()=> #parameter: #codec::EncodeAs<#ty>))
    });
    let borrowed = Source {
        resolver: format_ident!("{name}Resolver", span = Span::call_site()),
        generics: quote!(<#(#parameters),*>),
        ty: quote!(#name<#(#parameters),*>),
        bounds: quote!(where #(#bounds,)*),
        steps: parts.iter().map(|part| part.borrowed(codec)).collect(),
    };
    let archived = Source {
        resolver: format_ident!("{name}ArchivedResolver", span = Span::call_site()),
        generics: TokenStream::new(),
        ty: archived_name(input).into_token_stream(),
        bounds: TokenStream::new(),
        steps: parts.iter().map(|part| part.archived(codec)).collect(),
    };
    let (borrowed, archived) =
        (borrowed.encode_as(input, &parts, codec), archived.encode_as(input, &parts, codec));
    Ok(quote! {
        #the_type
        #borrowed
        #archived
    })
}

/// Whether there can be one.
fn able<'a>(input: &'a DeriveInput, name: &Ident) -> Result<&'a DataStruct> {
    let because = |reason| Err(Error::new(name.span(), reason));
    match &input.data {
        _ if !input.generics.params.is_empty() => {
            because("a message with parameters of its own has no borrowed form")
        }
        Data::Struct(data) if !data.fields.is_empty() => Ok(data),
        Data::Struct(_) => because("there is nothing to borrow in a message without fields"),
        _ => because("an enum has no borrowed form: send it, or a reference to it, as it is"),
    }
}

/// A field.
struct Part<'a> {
    field: &'a Field,
    member: syn::Member,
    kind: Kind,
}

enum Kind {
    /// Has the type that it has in the message.
    Same,
    /// The same, which a wrapper archives.
    Wrapped(Type),
    /// Whatever may stand for it: a parameter of this name.
    Like(Ident),
}

impl<'a> Part<'a> {
    fn all_of(data: &'a DataStruct) -> Vec<Part<'a>> {
        let types: Vec<String> = data.fields.iter().map(|field| words_of(&field.ty)).collect();
        let mut parts: Vec<Part<'a>> = Vec::new();
        for (field, member) in data.fields.iter().zip(data.fields.members()) {
            let kind = match with(field) {
                Some(wrapper) => Kind::Wrapped(wrapper),
                None if is_number(&field.ty) => Kind::Same,
                None => {
                    let mut name = parameter(&member);
                    // As those of `a_b` and `a__b` would be; or it is what a type is called.
                    while parts.iter().any(|part| part.parameter() == Some(&name))
                        || types.iter().any(|ty| ty.contains(&format!(" {name} ")))
                    {
                        name = format_ident!("{name}_");
                    }
                    Kind::Like(name)
                }
            };
            parts.push(Part { field, member, kind });
        }
        parts
    }

    fn parameter(&self) -> Option<&Ident> {
        match &self.kind {
            Kind::Like(name) => Some(name),
            Kind::Same | Kind::Wrapped(_) => None,
        }
    }
}

/// Numbers, `bool` and `char` stay as they are, so that literals are of their types.
fn is_number(ty: &Type) -> bool {
    const NUMBERS: [&str; 14] = [
        "bool", "char", "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128",
        "f32", "f64",
    ];
    let Type::Path(path) = ty else { return false };
    path.path.get_ident().is_some_and(|ident| NUMBERS.contains(&ident.to_string().as_str()))
}

/// With a space around each word.
fn words_of(ty: &Type) -> String {
    let text = ty.to_token_stream().to_string();
    let spaced = text.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { ' ' });
    format!(" {} ", spaced.collect::<String>())
}

/// `ship_to` to `LikeShipTo`.
fn parameter(member: &syn::Member) -> Ident {
    let name = match member {
        syn::Member::Named(name) => name.unraw().to_string(),
        syn::Member::Unnamed(index) => index.index.to_string(),
    };
    let words = name.split('_').map(|word| {
        let mut chars = word.chars();
        let first = chars.next().map(|first| first.to_uppercase().to_string());
        first.unwrap_or_default() + chars.as_str()
    });
    format_ident!("Like{}", words.collect::<String>(), span = member.span())
}

fn the_type(
    input: &DeriveInput,
    name: &Ident,
    data: &DataStruct,
    parts: &[Part<'_>],
) -> TokenStream {
    let visibility = &input.vis;
    let parameters = parts.iter().filter_map(Part::parameter);
    let fields = parts.iter().map(|part| {
        let docs = part.field.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
        let (visibility, ident) = (&part.field.vis, part.field.ident.as_ref());
        let colon = ident.map(|_| quote!(:));
        let ty = match &part.kind {
            Kind::Like(parameter) => parameter.to_token_stream(),
            Kind::Same | Kind::Wrapped(_) => part.field.ty.to_token_stream(),
        };
        quote!(#(#docs)* #visibility #ident #colon #ty)
    });
    let body = match &data.fields {
        Fields::Named(_) => quote!({ #(#fields,)* }),
        _ => quote!((#(#fields,)*);),
    };
    let doc = format!(
        "What is written as [`{}`], of parts that it need not own: for each of its fields something that may stand for it, \
         as `&str` does for a `String`.",
        input.ident.unraw()
    );
    let has_wrapped = parts.iter().any(|part| matches!(part.kind, Kind::Wrapped(_)));
    // A type with a wrapper need not be any of it.
    let derived = (!has_wrapped).then(|| quote!(#[derive(Clone, Copy, Debug)]));
    let debug = has_wrapped.then(|| debug(name, parts));
    quote! {
        #[doc = #doc]
        #derived
        #visibility struct #name<#(#parameters),*> #body

        #debug
    }
}

fn debug(name: &Ident, parts: &[Part<'_>]) -> TokenStream {
    let parameters: Vec<_> = parts.iter().filter_map(Part::parameter).collect();
    quote! {
        #[automatically_derived]
        impl<#(#parameters),*> ::core::fmt::Debug for #name<#(#parameters),*> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!(#name)).finish_non_exhaustive()
            }
        }
    }
}

/// Something that stands for the message.
struct Source {
    /// What is known of it once its parts are written: a type with fields that nobody sees, since types of fields may be private.
    resolver: Ident,
    generics: TokenStream,
    ty: TokenStream,
    bounds: TokenStream,
    /// Of each field.
    steps: Vec<Steps>,
}

/// How a field is written: the type of its resolver, and two expressions over `field`, one that gives `resolver`, and one that
/// uses it for `place`.
struct Steps {
    resolver: TokenStream,
    encode: TokenStream,
    resolve: TokenStream,
}

impl Part<'_> {
    fn borrowed(&self, codec: &TokenStream) -> Steps {
        let ty = &self.field.ty;
        match &self.kind {
            Kind::Like(parameter) => as_what_stands_for(&quote!(#parameter), ty, codec),
            Kind::Same => as_what_stands_for(&quote!(#ty), ty, codec),
            Kind::Wrapped(wrapper) => {
                let with = quote!(#codec::rkyv::with);
                Steps {
                    resolver: quote!(<#wrapper as #with::ArchiveWith<#ty>>::Resolver),
                    encode: quote!(<#wrapper as #with::SerializeWith<#ty, _>>::serialize_with(field, encoder)?),
                    resolve: quote!(<#wrapper as #with::ArchiveWith<#ty>>::resolve_with(field, resolver, place)),
                }
            }
        }
    }

    fn archived(&self, codec: &TokenStream) -> Steps {
        let ty = &self.field.ty;
        let Kind::Wrapped(wrapper) = &self.kind else {
            return as_what_stands_for(&quote!(#codec::rkyv::Archived<#ty>), ty, codec);
        };
        // What a wrapper has archived is made an original once more.
        let with = quote!(#codec::rkyv::with);
        Steps {
            resolver: quote!((#ty, <#wrapper as #with::ArchiveWith<#ty>>::Resolver)),
            encode: quote! {{
                let original: #ty = <#wrapper as #with::DeserializeWith<_, #ty, _>>::deserialize_with(
                    field,
                    #codec::rkyv::rancor::Strategy::<_, #codec::rkyv::rancor::Failure>::wrap(&mut ()),
                )?;
                let resolver =
                    <#wrapper as #with::SerializeWith<#ty, _>>::serialize_with(&original, encoder)?;
                (original, resolver)
            }},
            resolve: quote! {
                <#wrapper as #with::ArchiveWith<#ty>>::resolve_with(&resolver.0, resolver.1, place)
            },
        }
    }
}

fn as_what_stands_for(source: &TokenStream, ty: &Type, codec: &TokenStream) -> Steps {
    let encode_as = quote!(<#source as #codec::EncodeAs<#ty>>);
    Steps {
        resolver: quote!(#encode_as::Resolver),
        encode: quote!(#encode_as::encode_parts(field, encoder)?),
        resolve: quote!(#encode_as::resolve_as(field, resolver, place)),
    }
}

impl Source {
    fn encode_as(
        self,
        input: &DeriveInput,
        parts: &[Part<'_>],
        codec: &TokenStream,
    ) -> TokenStream {
        let Source { resolver, generics, ty, bounds, steps } = self;
        let rkyv = quote!(#codec::rkyv);
        let visibility = &input.vis;
        let (message, archived) = (&input.ident, archived_name(input));
        let members: Vec<_> = parts.iter().map(|part| &part.member).collect();
        let numbered = |name: &str| -> Vec<Ident> {
            (0..parts.len()).map(|index| format_ident!("{name}_{index}")).collect()
        };
        let (places, resolvers) = (numbered("place"), numbered("resolver"));
        let types = steps.iter().map(|steps| &steps.resolver);
        let encoded = steps.iter().map(|steps| &steps.encode);
        let resolved = steps.iter().map(|steps| &steps.resolve);
        quote! {
            #[doc(hidden)]
            #visibility struct #resolver #generics(#(#types),*) #bounds;

            #[automatically_derived]
            impl #generics #codec::EncodeAs<#message> for #ty #bounds {
                type Resolver = #resolver #generics;

                #[inline]
                fn encode_parts(
                    &self,
                    encoder: &mut #codec::Archiver<'_>,
                ) -> ::core::result::Result<Self::Resolver, #rkyv::rancor::Failure> {
                    ::core::result::Result::Ok(#resolver(#({ let field = &self.#members; #encoded }),*))
                }

                #[inline]
                fn resolve_as(
                    &self,
                    #resolver(#(#resolvers),*): Self::Resolver,
                    out: #rkyv::Place<#rkyv::Archived<#message>>,
                ) {
                    #rkyv::munge::munge!(let #archived { #(#members: #places,)* } = out);
                    #({
                        let (field, resolver, place) = (&self.#members, #resolvers, #places);
                        let _ = field;
                        #resolved
                    })*
                }
            }
        }
    }
}
