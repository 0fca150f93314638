//! From a trait to what is known about its methods, with errors that say what to write instead.

use std::time::Duration;

use super::stream;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, Ident, ItemTrait, Lit, LitStr, Meta, Pat, Path, Result,
    ReturnType, TraitItem, TraitItemFn, Type, Visibility,
};

pub(super) struct Service {
    pub(super) ringcall: TokenStream,
    pub(super) visibility: Visibility,
    pub(super) name: Ident,
    /// Said by `name = "…"`; otherwise the crate's name and the trait's.
    pub(super) wire_name: Option<LitStr>,
    pub(super) send: bool,
    pub(super) docs: Vec<Attribute>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) methods: Vec<Method>,
}

pub(super) struct Method {
    pub(super) name: Ident,
    pub(super) wire_name: String,
    pub(super) docs: Vec<Attribute>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) inputs: Vec<Input>,
    pub(super) answer: Answer,
    pub(super) options: Options,
}

/// A parameter behind `&self`, in its order.
pub(super) enum Input {
    /// About the call: `cx: &Context`.
    Context(Ident, Type),
    /// The message that is sent.
    Argument(Ident, Type),
    /// The stream that is sent.
    Items(Ident, Type, Box<Type>),
}

pub(super) enum Answer {
    /// `async fn … -> Reply`.
    Returned(Type),
    /// `async fn … -> Result<impl Stream<Item = …>, Error>`.
    Items(Box<ReplyStream>),
    /// `fn …(…, responder: Responder<…>)`.
    Responder(Ident, Type),
}

/// A reply that is a stream.
pub(super) struct ReplyStream {
    /// As it was written.
    pub(super) ty: Type,
    /// What it is a stream of.
    pub(super) item: Type,
    /// The error, also of a stream that ends with it.
    pub(super) error: Option<Type>,
    /// Whether it is in a `Result`.
    pub(super) may_fail: bool,
    /// Whether its items are `Result`s.
    pub(super) may_end_with_error: bool,
}

#[derive(Default)]
pub(super) struct Options {
    pub(super) idempotent: bool,
    pub(super) one_way: bool,
    pub(super) offload: bool,
    /// Callers may pass an argument that is encoded already.
    pub(super) encoded: Option<Span>,
    pub(super) deadline: Option<Duration>,
    /// The variant of `Compression`.
    pub(super) compress: Option<Ident>,
}

impl Service {
    pub(super) fn parse(arguments: TokenStream, item: TokenStream) -> Result<Service> {
        let item: ItemTrait = syn::parse2(item)
            .map_err(|error| Error::new(error.span(), "`#[service]` goes on a trait"))?;
        let mut service = Service {
            ringcall: quote!(::ringcall),
            visibility: item.vis.clone(),
            name: item.ident.clone(),
            wire_name: None,
            send: false,
            docs: docs(&item.attrs),
            attributes: item.attrs.clone(),
            methods: Vec::new(),
        };
        service.arguments(arguments)?;
        check_trait(&item)?;
        for item in item.items {
            match item {
                TraitItem::Fn(method) => service.methods.push(Method::parse(method)?),
                other => {
                    return Err(Error::new(
                        other.span(),
                        "a service has methods only: put constants and types elsewhere",
                    ));
                }
            }
        }
        if service.methods.is_empty() {
            return Err(Error::new(service.name.span(), "a service needs at least one method"));
        }
        check_names(&service.methods)?;
        if service.send {
            check_send(&service.methods)?;
        }
        Ok(service)
    }

    fn arguments(&mut self, arguments: TokenStream) -> Result<()> {
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("send") {
                self.send = true;
            } else if meta.path.is_ident("name") {
                self.wire_name = Some(service_name(meta.value()?.parse()?)?);
            } else if meta.path.is_ident("crate") {
                self.ringcall = meta.value()?.parse::<Path>()?.into_token_stream();
            } else {
                return Err(meta.error(
                    "unknown argument: `#[service]` takes `name = \"package.Service\"`, `send` and `crate = path`",
                ));
            }
            Ok(())
        });
        parser.parse2(arguments)
    }
}

fn service_name(name: LitStr) -> Result<LitStr> {
    let text = name.value();
    if text.is_empty() || text.contains(['/', ' ']) {
        return Err(Error::new(name.span(), "write a name such as \"market.Quotes\", without `/`"));
    }
    if text.starts_with("ringcall.") {
        return Err(Error::new(
            name.span(),
            "names that begin with `ringcall.` are reserved: write one such as \"market.Quotes\"",
        ));
    }
    Ok(name)
}

fn check_trait(item: &ItemTrait) -> Result<()> {
    if let Some(unsafety) = item.unsafety {
        return Err(Error::new(
            unsafety.span(),
            "a service cannot be unsafe: calls come from elsewhere",
        ));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new(
            item.generics.span(),
            "a service cannot be generic: one method would have many layouts; write a service for each type",
        ));
    }
    let bounds = item.generics.where_clause.as_ref().map(|bounds| bounds.where_token.span);
    let supertraits = (!item.supertraits.is_empty()).then(|| item.supertraits.span());
    if let Some(span) = supertraits.or(bounds) {
        return Err(Error::new(
            span,
            "a service has no supertraits; for futures that may move between threads write `#[service(send)]`",
        ));
    }
    Ok(())
}

fn check_send(methods: &[Method]) -> Result<()> {
    // Of the others no future takes it anywhere.
    let futures = methods.iter().filter(|method| !matches!(method.answer, Answer::Responder(..)));
    if let Some(context) = futures.flat_map(|method| &method.inputs).find_map(local_context) {
        return Err(Error::new(
            context.span(),
            "methods of a `send` service take `&SendContext`: a `Context` stays on the shard of its call",
        ));
    }
    match methods.iter().find_map(Method::items) {
        None => Ok(()),
        Some((_, ty, _)) => Err(Error::new(
            ty.span(),
            "a stream that the caller sends stays on the shard where it arrives: leave `send` out, or put the method into a service of its own",
        )),
    }
}

/// The `Context` of `cx: &Context`.
fn local_context(input: &Input) -> Option<&Type> {
    let Input::Context(_, ty) = input else { return None };
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().is_some_and(|last| last.ident == "Context").then_some(ty)
}

fn check_names(methods: &[Method]) -> Result<()> {
    for (index, method) in methods.iter().enumerate() {
        let encoded = format!("{}_encoded", method.name.unraw());
        if let (Some(span), true) =
            (method.options.encoded, methods.iter().any(|other| other.name == encoded))
        {
            return Err(Error::new(
                span,
                format!("another method is called `{encoded}` already: call that one otherwise"),
            ));
        }
        if methods[..index].iter().any(|other| other.wire_name == method.wire_name) {
            return Err(Error::new(
                method.name.span(),
                format!(
                    "another method is called \"{}\" on the wire already: give one of them another name, `#[method(name = \"…\")]`",
                    method.wire_name
                ),
            ));
        }
    }
    Ok(())
}

/// Methods that every client has.
const OF_CLIENTS: [&str; 5] = ["new", "connect", "with_options", "channel", "service_table"];

impl Method {
    fn parse(item: TraitItemFn) -> Result<Method> {
        let (docs, mut attributes) = (docs(&item.attrs), item.attrs);
        let name = item.sig.ident.clone();
        let mut method = Method {
            wire_name: name.unraw().to_string(),
            name,
            docs,
            attributes: Vec::new(),
            inputs: Vec::new(),
            answer: Answer::Returned(syn::parse_quote!(())),
            options: Options::default(),
        };
        for attribute in &attributes {
            if attribute.path().is_ident("method") {
                method.method_attribute(attribute)?;
            } else if attribute.path().is_ident("cfg") {
                return Err(Error::new(
                    attribute.span(),
                    "a method cannot depend on `cfg`: put `cfg` on the whole trait, or the method into a trait of its own",
                ));
            }
        }
        attributes.retain(|attribute| !attribute.path().is_ident("method"));
        method.attributes = attributes;
        if let Some(body) = item.default {
            return Err(Error::new(
                body.span(),
                "a method of a service has no body here: implement the trait",
            ));
        }
        let generics = &item.sig.generics;
        if !generics.params.is_empty() || generics.where_clause.is_some() {
            return Err(Error::new(
                generics.params.first().map_or(item.sig.ident.span(), Spanned::span),
                "a method of a service cannot be generic: its types must be known on the wire; write a method for each type",
            ));
        }
        if item.sig.unsafety.is_some() || item.sig.abi.is_some() || item.sig.constness.is_some() {
            return Err(Error::new(item.sig.span(), "write `async fn`: calls come from elsewhere"));
        }
        if OF_CLIENTS.iter().any(|name| item.sig.ident == name) {
            return Err(Error::new(
                item.sig.ident.span(),
                format!(
                    "the client has a method `{0}` of its own: call this one otherwise, and `#[method(name = \"{0}\")]` if the name on the wire matters",
                    item.sig.ident
                ),
            ));
        }
        method.parameters(item.sig.inputs.into_iter().collect(), item.sig.fn_token.span)?;
        method.answer(item.sig.asyncness.is_some(), item.sig.output)?;
        method.check_arguments()?;
        Ok(method)
    }

    fn method_attribute(&mut self, attribute: &Attribute) -> Result<()> {
        attribute.parse_nested_meta(|meta| {
            let options = &mut self.options;
            if meta.path.is_ident("idempotent") {
                options.idempotent = true;
            } else if meta.path.is_ident("one_way") {
                options.one_way = true;
            } else if meta.path.is_ident("offload") {
                options.offload = true;
            } else if meta.path.is_ident("encoded") {
                options.encoded = Some(meta.path.span());
            } else if meta.path.is_ident("deadline") {
                options.deadline = Some(duration(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("compress") {
                options.compress = Some(compression(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("name") {
                let name: LitStr = meta.value()?.parse()?;
                if name.value().is_empty() || name.value().contains(['/', ' ']) {
                    return Err(Error::new(name.span(), "write a name without `/`"));
                }
                self.wire_name = name.value();
            } else {
                return Err(meta.error(
                    "unknown option: `#[method]` takes `name = \"…\"`, `idempotent`, `deadline = \"5ms\"`, `compress = \"lz4\"`, `encoded`, `one_way` and `offload`",
                ));
            }
            Ok(())
        })
    }

    fn parameters(&mut self, inputs: Vec<FnArg>, span: Span) -> Result<()> {
        let mut inputs = inputs.into_iter();
        match inputs.next() {
            Some(FnArg::Receiver(receiver))
                if receiver.reference.is_some() && receiver.mutability.is_none() => {}
            other => {
                let span = other.map_or(span, |other| other.span());
                return Err(Error::new(
                    span,
                    "a method of a service takes `&self`: many calls run at the same time",
                ));
            }
        }
        for input in inputs {
            let FnArg::Typed(input) = input else { continue };
            let Pat::Ident(name) = &*input.pat else {
                return Err(Error::new(
                    input.pat.span(),
                    "give the parameter a plain name, and take it apart in the implementation",
                ));
            };
            let name = name.ident.clone();
            match *input.ty {
                Type::Reference(reference) => {
                    if reference.mutability.is_some() {
                        return Err(Error::new(
                            reference.span(),
                            "what is about the call is taken as `&Context`",
                        ));
                    }
                    self.inputs.push(Input::Context(name, *reference.elem));
                }
                ty => self.inputs.push(match stream::parameter(&ty)? {
                    Some(item) => Input::Items(name, ty, Box::new(item)),
                    None => Input::Argument(name, ty),
                }),
            }
        }
        Ok(())
    }

    fn answer(&mut self, is_async: bool, output: ReturnType) -> Result<()> {
        let returned = match output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(*ty),
        };
        match (is_async, returned) {
            (true, returned) => {
                if let (true, Some(ty)) = (self.options.one_way, &returned) {
                    return Err(Error::new(
                        ty.span(),
                        "a one-way method returns nothing: remove the reply, or `one_way`",
                    ));
                }
                let returned = returned.unwrap_or_else(|| syn::parse_quote!(()));
                self.answer = match stream::reply(&returned)? {
                    Some(reply) => Answer::Items(Box::new(reply)),
                    None => Answer::Returned(returned),
                };
                Ok(())
            }
            (false, Some(ty)) => Err(Error::new(
                ty.span(),
                "write `async fn`; only a method that answers through a `Responder` is a plain `fn`, and returns nothing",
            )),
            (false, None) => match self.inputs.pop() {
                Some(Input::Argument(name, ty)) => {
                    if self.options.one_way {
                        return Err(Error::new(
                            name.span(),
                            "a one-way method has no responder: remove it, or `one_way`",
                        ));
                    }
                    self.answer = Answer::Responder(name, ty);
                    Ok(())
                }
                _ => Err(Error::new(
                    self.name.span(),
                    "write `async fn`; a plain `fn` takes a `Responder<Value, Error>` as its last parameter",
                )),
            },
        }
    }

    fn check_arguments(&self) -> Result<()> {
        let mut arguments = self.inputs.iter().filter_map(|input| match input {
            Input::Argument(name, _) => Some(name),
            Input::Context(..) | Input::Items(..) => None,
        });
        if let (None, Some(encoded)) = (arguments.clone().next(), self.options.encoded) {
            return Err(Error::new(
                encoded,
                "there is no argument that callers could encode: remove `encoded`",
            ));
        }
        if let Some(second) = arguments.nth(1) {
            return Err(Error::new(
                second.span(),
                "a method takes one message: put the parameters into a `#[message]` struct, or make them a tuple",
            ));
        }
        self.check_streams()
    }

    fn check_streams(&self) -> Result<()> {
        let mut streams = self.inputs.iter().filter_map(|input| match input {
            Input::Items(name, ..) => Some(name),
            _ => None,
        });
        if let Some(second) = streams.clone().nth(1) {
            return Err(Error::new(
                second.span(),
                "a method takes one stream: make its items an enum",
            ));
        }
        let span = match (streams.next(), &self.answer) {
            (Some(name), _) => name.span(),
            (None, Answer::Items(reply)) => reply.ty.span(),
            (None, _) => return Ok(()),
        };
        if self.options.one_way {
            return Err(Error::new(
                span,
                "a one-way method has no streams, since they need an end: remove `one_way`",
            ));
        }
        if self.options.offload {
            return Err(Error::new(
                span,
                "a method with streams runs on the shard, where items arrive: remove `offload`, and send work that blocks to a thread of your own",
            ));
        }
        if let Answer::Responder(..) = self.answer {
            return Err(Error::new(
                span,
                "a method that answers through a `Responder` has no streams: write `async fn`",
            ));
        }
        Ok(())
    }

    /// The message that is sent, if there is one.
    pub(super) fn argument(&self) -> Option<(&Ident, &Type)> {
        self.inputs.iter().find_map(|input| match input {
            Input::Argument(name, ty) => Some((name, ty)),
            Input::Context(..) | Input::Items(..) => None,
        })
    }

    /// The stream that is sent, if there is one: its name, its type, that of its items.
    pub(super) fn items(&self) -> Option<(&Ident, &Type, &Type)> {
        self.inputs.iter().find_map(|input| match input {
            Input::Items(name, ty, item) => Some((name, ty, &**item)),
            _ => None,
        })
    }

    /// Whether it has a stream in either direction.
    pub(super) fn is_streaming(&self) -> bool {
        self.items().is_some() || matches!(self.answer, Answer::Items(_))
    }
}

/// The variant of `Compression` that has this name.
fn compression(name: &LitStr) -> Result<Ident> {
    match name.value().as_str() {
        "lz4" => Ok(Ident::new("Lz4", name.span())),
        "zstd" => Ok(Ident::new("Zstd", name.span())),
        _ => Err(Error::new(name.span(), "write \"lz4\" or \"zstd\"")),
    }
}

/// `"5ms"` and its like.
fn duration(text: &LitStr) -> Result<Duration> {
    let value = text.value();
    let wrong = || Error::new(text.span(), "write a duration such as \"250us\", \"5ms\" or \"2s\"");
    let digits = value.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = match unit.trim() {
        "us" | "µs" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return Err(wrong()),
    };
    if duration.is_zero() {
        return Err(Error::new(
            text.span(),
            "a deadline of zero has always passed: leave it out, or write one such as \"5ms\"",
        ));
    }
    Ok(duration)
}

fn docs(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect()
}

/// The text of doc comments, for the method table.
pub(super) fn doc_text(docs: &[Attribute]) -> String {
    let lines = docs.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}
