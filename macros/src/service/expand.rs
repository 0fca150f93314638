//! From what is known about a service to its trait, its server side, its client and its table.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::parse::{Answer, Input, Method, ReplyStream, Service, doc_text};
use crate::respan;

pub(super) fn expand(service: &Service) -> TokenStream {
    let send_checks = service.send.then(|| send_checks(service));
    let the_trait = the_trait(service);
    let table = table(service);
    let server = server(service);
    let client = client(service);
    let shared = shared(service);
    quote! {
        #send_checks
        #the_trait
        #table
        #server
        #client
        #shared
    }
}

/// The trait itself, with futures that a server can name bounds of.
fn the_trait(service: &Service) -> TokenStream {
    let Service { visibility, name, attributes, .. } = service;
    let service_name = service_name(service);
    let into = format_ident!("into_{}", snake_case(name));
    let methods = service.methods.iter().map(|method| {
        let attributes = &method.attributes;
        let signature = signature(service, method);
        quote!(#(#attributes)* #signature;)
    });
    let supertraits = if service.send {
        quote!(: ::core::marker::Sized + ::core::marker::Send + ::core::marker::Sync + 'static)
    } else {
        quote!(: ::core::marker::Sized + 'static)
    };
    quote! {
        #(#attributes)*
        #visibility trait #name #supertraits {
            #(#methods)*

            /// Makes a service of this implementation, to give to a server.
            fn #into(self) -> #service_name<Self> {
                #service_name::new(self)
            }
        }
    }
}

/// The trait for what is shared, so that one state serves many services.
fn shared(service: &Service) -> TokenStream {
    let name = &service.name;
    let methods: TokenStream =
        service.methods.iter().map(|method| forwarded(service, method)).collect();
    // An `Rc` cannot go to other threads, as a service with `send` may.
    let counted = match service.send {
        true => vec![quote!(::std::sync::Arc)],
        false => vec![quote!(::std::sync::Arc), quote!(::std::rc::Rc)],
    };
    quote! {
        #(
            #[automatically_derived]
            #[allow(deprecated)]
            impl<__S: #name> #name for #counted<__S> {
                #methods
            }
        )*
    }
}

/// A method of a trait, given on to what is shared.
fn forwarded(service: &Service, method: &Method) -> TokenStream {
    let (trait_name, name) = (&service.name, &method.name);
    let signature = signature(service, method);
    let inputs = method.inputs.iter().map(|input| match input {
        Input::Context(name, _) | Input::Argument(name, _) | Input::Items(name, ..) => name,
    });
    let responder = match &method.answer {
        Answer::Responder(responder, _) => Some(responder),
        Answer::Returned(_) | Answer::Items(_) => None,
    };
    let passed = inputs.chain(responder);
    quote! {
        #[inline]
        #signature {
            <__S as #trait_name>::#name(self, #(#passed),*)
        }
    }
}

/// Complains at the argument that keeps the future of its method on one thread, where otherwise each
/// implementation would be told that its own code does.
fn send_checks(service: &Service) -> TokenStream {
    let ringcall = &service.ringcall;
    let methods = service.methods.iter();
    let methods = methods.filter(|method| !matches!(method.answer, Answer::Responder(..)));
    let bounds = methods.filter_map(Method::argument).map(|(_, ty)| {
        let bound = respan(quote!(#ringcall::__private::codec::SendArgument), ty.span());
        quote_spanned!(ty.span()=> #ty: #bound)
    });
    let name = format_ident!("__{}Arguments", service.name);
    quote! {
        #[allow(dead_code, trivial_bounds)]
        struct #name where #(#bounds),*;
    }
}

fn signature(service: &Service, method: &Method) -> TokenStream {
    let name = &method.name;
    // What the compiler says of the whole is shown there.
    let function = quote_spanned!(name.span()=> fn);
    let inputs = method.inputs.iter().map(|input| match input {
        Input::Context(name, ty) => quote!(#name: &#ty),
        Input::Argument(name, ty) | Input::Items(name, ty, _) => quote!(#name: #ty),
    });
    match &method.answer {
        Answer::Returned(_) | Answer::Items(_) => {
            let ty = match &method.answer {
                Answer::Items(reply) => &reply.ty,
                Answer::Returned(ty) | Answer::Responder(_, ty) => ty,
            };
            let send = service.send.then(|| quote!(+ ::core::marker::Send));
            quote! {
                #function #name(&self, #(#inputs),*) -> impl ::core::future::Future<Output = #ty> #send
            }
        }
        Answer::Responder(responder, ty) => {
            quote!(#function #name(&self, #(#inputs,)* #responder: #ty))
        }
    }
}

/// What a server, a client and tools know about the methods, computed once.
fn table(service: &Service) -> TokenStream {
    let Service { ringcall, name, .. } = service;
    let table = table_name(service);
    let wire_name = match &service.wire_name {
        Some(name) => quote!(#name),
        None => {
            let name = name.unraw().to_string();
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), ".", #name))
        }
    };
    let docs = doc_text(&service.docs);
    let methods = service.methods.iter().map(|method| method_table(service, method));
    quote! {
        #[doc(hidden)]
        fn #table() -> &'static #ringcall::ServiceTable {
            static TABLE: ::std::sync::LazyLock<#ringcall::ServiceTable> =
                ::std::sync::LazyLock::new(|| {
                    #ringcall::ServiceTable::new(#wire_name, #docs, ::std::vec![#(#methods),*])
                });
            &TABLE
        }
    }
}

fn method_table(service: &Service, method: &Method) -> TokenStream {
    let ringcall = &service.ringcall;
    let (argument, value, error) = messages(service, method);
    let name = &method.wire_name;
    let docs = doc_text(&method.docs);
    let options = &method.options;
    let idempotent = options.idempotent.then(|| quote!(.idempotent()));
    let one_way = options.one_way.then(|| quote!(.one_way()));
    let deadline = options.deadline.map(|deadline| {
        let (secs, nanos) = (deadline.as_secs(), deadline.subsec_nanos());
        quote!(.deadline(::core::time::Duration::new(#secs, #nanos)))
    });
    let compress = options
        .compress
        .as_ref()
        .map(|variant| quote!(.compress(#ringcall::Compression::#variant)));
    let made = match method.is_streaming() {
        false => quote!(new::<#argument, #value, #error>(#name, #docs)),
        true => {
            let item_type = |item: Option<TokenStream>| match item {
                Some(item) => quote! {
                    ::core::option::Option::Some(#ringcall::__private::ItemType::of::<#item>())
                },
                None => quote!(::core::option::Option::None),
            };
            let items_in = item_type(item_in(service, method));
            let items_out = item_type(item_out(service, method));
            quote! {
                with_items::<#argument, #value, #error>(#name, #docs, #items_in, #items_out)
            }
        }
    };
    quote! {
        #ringcall::MethodTable::#made #idempotent #one_way #deadline #compress
    }
}

/// The messages of a method: argument, value, error. Resolved by trait, not by reading tokens.
fn messages(service: &Service, method: &Method) -> (TokenStream, TokenStream, TokenStream) {
    let ringcall = &service.ringcall;
    let argument = match method.argument() {
        Some((_, ty)) => {
            quote_spanned!(ty.span()=> <#ty as #ringcall::__private::codec::FromBody>::Message)
        }
        None => quote!(()),
    };
    let (value, error) = match &method.answer {
        Answer::Items(reply) => (quote!(()), stream_error(service, reply)),
        Answer::Returned(ty) => (
            quote_spanned!(ty.span()=> <#ty as #ringcall::__private::codec::IntoReply>::Value),
            quote_spanned!(ty.span()=> <#ty as #ringcall::__private::codec::IntoReply>::Error),
        ),
        Answer::Responder(_, ty) => (
            quote_spanned!(ty.span()=> <#ty as #ringcall::__private::Responds>::Value),
            quote_spanned!(ty.span()=> <#ty as #ringcall::__private::Responds>::Error),
        ),
    };
    (argument, value, error)
}

/// What the caller of a method gets whose stream does not begin, or ends too early.
fn stream_error(service: &Service, reply: &ReplyStream) -> TokenStream {
    let ringcall = &service.ringcall;
    match &reply.error {
        Some(error) => {
            quote_spanned!(error.span()=> <#error as #ringcall::__private::codec::IntoError>::Error)
        }
        None => quote!(::core::convert::Infallible),
    }
}

/// The message of the stream that is sent.
fn item_in(service: &Service, method: &Method) -> Option<TokenStream> {
    let ringcall = &service.ringcall;
    let (_, _, ty) = method.items()?;
    Some(quote_spanned!(ty.span()=> <#ty as #ringcall::__private::codec::FromBody>::Message))
}

/// The message of the stream that is the reply.
fn item_out(service: &Service, method: &Method) -> Option<TokenStream> {
    let Answer::Items(reply) = &method.answer else { return None };
    let (ringcall, item) = (&service.ringcall, &reply.item);
    Some(quote_spanned!(item.span()=> <#item as #ringcall::__private::codec::IntoItem>::Message))
}

/// `QuotesService`: what a server mounts.
fn server(service: &Service) -> TokenStream {
    let wrapper = wrapper(service);
    let mounts = mounts(service);
    let spawned = service.send.then(|| spawned(service));
    quote! {
        #wrapper
        #mounts
        #spawned
    }
}

fn service_name(service: &Service) -> Ident {
    format_ident!("{}Service", service.name)
}

/// The type, and what it is to its owner.
fn wrapper(service: &Service) -> TokenStream {
    let Service { visibility, name, .. } = service;
    let service_name = service_name(service);
    let doc = format!("An implementation of [`{name}`], ready to be given to a server.");
    quote! {
        #[doc = #doc]
        #visibility struct #service_name<S>(::std::sync::Arc<S>);

        #[automatically_derived]
        impl<S> ::core::clone::Clone for #service_name<S> {
            fn clone(&self) -> Self {
                #service_name(::std::sync::Arc::clone(&self.0))
            }
        }

        #[automatically_derived]
        impl<S> ::core::fmt::Debug for #service_name<S> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(::core::stringify!(#service_name))
            }
        }

        impl<__S: #name> #service_name<__S> {
            /// Wraps an implementation.
            #visibility fn new(service: __S) -> Self {
                #service_name(::std::sync::Arc::new(service))
            }

            /// The implementation.
            #visibility fn get(&self) -> &__S {
                &self.0
            }
        }
    }
}

/// What a server asks of it.
fn mounts(service: &Service) -> TokenStream {
    let Service { ringcall, name, .. } = service;
    let service_name = service_name(service);
    let table = table_name(service);
    let here = mount_methods(service, |method| match method.options.offload {
        true => Place::Pool,
        false => Place::Shard,
    });
    let offloaded = mount_methods(service, |_| Place::Pool);
    let any_offload = service.methods.iter().any(|method| method.options.offload);
    // Work that goes to another thread takes the implementation along.
    let bounds = any_offload.then(|| quote!(+ ::core::marker::Send + ::core::marker::Sync));
    quote! {
        #[automatically_derived]
        impl<__S: #name #bounds> #ringcall::Service for #service_name<__S> {
            fn table(&self) -> &'static #ringcall::ServiceTable {
                #table()
            }

            fn mount(self, mount: &mut #ringcall::__private::Mount) {
                let service = ::std::rc::Rc::new(self.clone());
                let _ = (&self, &service);
                #(#here)*
            }

            fn mount_offloaded(self, mount: &mut #ringcall::__private::Mount)
            where
                Self: ::core::marker::Send + ::core::marker::Sync,
            {
                #(#offloaded)*
            }
        }
    }
}

/// What a server asks of it that runs handlers on an executor of the user's.
fn spawned(service: &Service) -> TokenStream {
    let Service { ringcall, name, .. } = service;
    let service_name = service_name(service);
    let methods = mount_methods(service, |_| Place::Executor);
    quote! {
        #[automatically_derived]
        impl<__S: #name> #ringcall::SendService for #service_name<__S> {
            fn mount_spawned(self, mount: &mut #ringcall::__private::Mount)
            where
                Self: ::core::marker::Send + ::core::marker::Sync,
            {
                #(#methods)*
            }
        }
    }
}

fn mount_methods(service: &Service, place: impl Fn(&Method) -> Place) -> Vec<TokenStream> {
    let methods = service.methods.iter().enumerate();
    methods.map(|(index, method)| mount_method(service, method, index, place(method))).collect()
}

/// Where a method's handler runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Shard,
    Pool,
    /// Of the user's.
    Executor,
}

/// Variables of a mounted method. Its parameters become variables, too: these must not be among them.
struct Variables {
    call: Ident,
    held: Ident,
    streams: Ident,
    sink: Ident,
}

impl Variables {
    fn new() -> Variables {
        let [call, held, streams, sink] =
            ["call", "held", "streams", "sink"].map(|name| Ident::new(name, Span::mixed_site()));
        Variables { call, held, streams, sink }
    }
}

fn mount_method(service: &Service, method: &Method, index: usize, place: Place) -> TokenStream {
    let ringcall = &service.ringcall;
    let variables = Variables::new();
    let Variables { call, held, streams, .. } = &variables;
    // On the shard a call counts the service without atomics.
    let kept = if place == Place::Shard { quote!(service) } else { quote!(self) };
    let take_argument = method
        .argument()
        .map(|(name, ty)| quote_spanned!(ty.span()=> let #name = #call.argument::<#ty>()?;));
    let take_contexts = method.inputs.iter().filter_map(|input| match input {
        Input::Context(name, ty) => Some(quote_spanned! {ty.span()=>
            let #name = <#ty as #ringcall::__private::FromCall>::from_call(&*#call);
        }),
        Input::Argument(..) | Input::Items(..) => None,
    });
    let take_items = method
        .items()
        .map(|(name, _, ty)| quote_spanned!(ty.span()=> let #name = #streams.items::<#ty>();));
    let verb = verb(method, place);
    let run = run(service, method, &variables);
    let streams = method.is_streaming().then(|| quote!(, #streams: &#ringcall::__private::Streams));
    quote! {
        {
            let #held = ::core::clone::Clone::clone(&#kept);
            mount.#verb(#index, move |#call: &mut #ringcall::__private::Incoming #streams| {
                let #held = ::core::clone::Clone::clone(&#held);
                #take_argument
                #take_items
                #(#take_contexts)*
                #run
            });
        }
    }
}

/// How a method is mounted.
fn verb(method: &Method, place: Place) -> TokenStream {
    match (&method.answer, place) {
        (Answer::Items(_), _) => quote!(streaming),
        (Answer::Returned(_), _) if method.is_streaming() => quote!(streaming),
        (Answer::Returned(_), Place::Shard) => quote!(handler),
        (Answer::Returned(_), Place::Pool) => quote!(offloaded),
        (Answer::Returned(_), Place::Executor) => quote!(spawned),
        (Answer::Responder(..), Place::Shard) => quote!(responder),
        (Answer::Responder(..), Place::Pool) => quote!(offloaded_responder),
        (Answer::Responder(..), Place::Executor) => quote!(spawned_responder),
    }
}

/// Runs the handler, and makes of what it returns what is sent.
fn run(service: &Service, method: &Method, variables: &Variables) -> TokenStream {
    let Service { ringcall, name: trait_name, .. } = service;
    let Variables { call, held, streams, sink } = variables;
    let codec = quote!(#ringcall::__private::codec);
    let name = &method.name;
    let passed = method.inputs.iter().map(|input| match input {
        Input::Context(name, _) => quote!(&#name),
        Input::Argument(name, _) | Input::Items(name, ..) => quote!(#name),
    });
    if let Answer::Responder(responder, ty) = &method.answer {
        return quote! {
            let #responder = <#ty as #ringcall::__private::Responds>::from_call(&*#call);
            #trait_name::#name(#held.get(), #(#passed,)* #responder);
            ::core::result::Result::Ok(())
        };
    }
    let called = quote!(#trait_name::#name(#held.get(), #(#passed),*).await);
    let (before, answer) = match &method.answer {
        Answer::Items(reply) => {
            let pump = pump(service, reply, sink);
            (quote!(let #sink = #streams.sink();), quote!(let answer = #called; #pump))
        }
        _ if method.is_streaming() => (
            TokenStream::new(),
            quote!(#ringcall::__private::Ending::from(#codec::IntoReply::into_reply(#called))),
        ),
        _ => (TokenStream::new(), quote!(#codec::IntoReply::into_reply(#called))),
    };
    quote! {
        #before
        ::core::result::Result::Ok(async move { #answer })
    }
}

/// Sends the stream that a handler has returned, in the handler's own task.
fn pump(service: &Service, reply: &ReplyStream, sink: &Ident) -> TokenStream {
    let ringcall = &service.ringcall;
    let item = &reply.item;
    let error = stream_error(service, reply);
    let verb = if reply.may_end_with_error { quote!(results) } else { quote!(items) };
    let send = quote!(#sink.#verb::<#item, #error>(items).await);
    if !reply.may_fail {
        return quote! { let items = answer; #send };
    }
    quote! {
        match answer {
            ::core::result::Result::Ok(items) => #send,
            ::core::result::Result::Err(error) => #ringcall::__private::Ending::failed(error),
        }
    }
}

/// `QuotesClient`: inherent methods over a channel, so that no trait need be imported.
fn client(service: &Service) -> TokenStream {
    let ringcall = &service.ringcall;
    let client_name = client_name(service);
    let the_type = client_type(service);
    let making = client_making(service);
    let methods = service.methods.iter().enumerate();
    let methods = methods.map(|(index, method)| client_method(service, method, index));
    quote! {
        #the_type
        #making

        #[allow(dead_code)]
        impl<__C: #ringcall::Channel> #client_name<__C> {
            #(#methods)*
        }
    }
}

fn client_name(service: &Service) -> Ident {
    format_ident!("{}Client", service.name)
}

/// The type, and what is known of it without a channel.
fn client_type(service: &Service) -> TokenStream {
    let Service { ringcall, visibility, name, .. } = service;
    let client_name = client_name(service);
    let table = table_name(service);
    let doc = format!("Calls [`{name}`] at the other end of a channel.");
    quote! {
        #[doc = #doc]
        #[derive(Clone)]
        #visibility struct #client_name<C = #ringcall::Client> {
            channel: C,
            options: #ringcall::CallOptions,
            table: &'static #ringcall::ServiceTable,
        }

        // Not derived: of the table its name is enough.
        #[automatically_derived]
        impl<C: ::core::fmt::Debug> ::core::fmt::Debug for #client_name<C> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(::core::stringify!(#client_name))
                    .field("service", &self.table.name())
                    .field("channel", &self.channel)
                    .finish()
            }
        }

        impl #client_name {
            /// Connects to a server: `127.0.0.1:7000`, `localhost:7000` or `unix:/path`. Await it, or
            /// `.wait()` for it. A host name is looked up here and now, which may block, and once.
            #visibility fn connect(
                address: impl #ringcall::ToAddress,
            ) -> #ringcall::Connect<Self> {
                #ringcall::Connect::new(address, Self::new)
            }

            /// What is known about the service's methods.
            #[allow(dead_code)]
            #visibility fn service_table() -> &'static #ringcall::ServiceTable {
                #table()
            }
        }
    }
}

/// How one is made, and made again with something changed.
fn client_making(service: &Service) -> TokenStream {
    let Service { ringcall, visibility, .. } = service;
    let client_name = client_name(service);
    let table = table_name(service);
    quote! {
        #[allow(dead_code)]
        impl<C: #ringcall::Channel> #client_name<C> {
            /// Calls through this channel.
            #visibility fn new(channel: C) -> Self {
                #client_name { channel, options: #ringcall::CallOptions::new(), table: #table() }
            }

            /// The same client with other options for its calls.
            #[must_use]
            #visibility fn with_options(mut self, options: #ringcall::CallOptions) -> Self {
                self.options = options;
                self
            }

            /// The channel.
            #visibility fn channel(&self) -> &C {
                &self.channel
            }
        }
    }
}

fn client_method(service: &Service, method: &Method, index: usize) -> TokenStream {
    let Service { ringcall, visibility, .. } = service;
    let (argument, ..) = messages(service, method);
    let (name, docs) = (&method.name, &method.docs);
    let doc = docs.is_empty().then(|| {
        let text = format!("Calls `{}`.", method.wire_name);
        quote!(#[doc = #text])
    });
    let (parameter, passed) = match method.argument() {
        Some((parameter, _)) => (quote!(, #parameter: &'a #argument), quote!(#parameter)),
        None => (TokenStream::new(), quote!(&())),
    };
    let deprecated = deprecated(method);
    let (verb, types) = made(service, method);
    let bound = method.is_streaming().then(|| quote!(where __C: #ringcall::StreamChannel));
    let encoded = method.options.encoded.map(|_| client_method_encoded(service, method, index));
    quote! {
        #(#docs)*
        #doc
        #deprecated
        #[inline]
        #visibility fn #name<'a>(&'a self #parameter) -> #ringcall::#verb<'a, __C, #argument #types>
        #bound
        {
            #ringcall::#verb::new(&self.channel, &self.table.methods()[#index], &self.options, #passed)
        }

        #encoded
    }
}

/// The same with an argument that is encoded already.
fn client_method_encoded(service: &Service, method: &Method, index: usize) -> TokenStream {
    let Service { ringcall, visibility, .. } = service;
    let Some((parameter, _)) = method.argument() else { return TokenStream::new() };
    let codec = quote!(#ringcall::__private::codec);
    let (argument, ..) = messages(service, method);
    let sent = quote!(#codec::EncodedMessage<#argument, __B>);
    let name = format_ident!("{}_encoded", method.name.unraw(), span = method.name.span());
    let doc = format!("[`{0}`](Self::{0}) with an argument that is encoded already.", method.name);
    let deprecated = deprecated(method);
    let (verb, types) = made(service, method);
    let channel = match method.is_streaming() {
        true => quote!(#ringcall::StreamChannel),
        false => quote!(#ringcall::Channel),
    };
    quote! {
        #[doc = #doc]
        #deprecated
        #[inline]
        #visibility fn #name<'a, __B: #codec::__private::Frozen>(
            &'a self,
            #parameter: &'a #ringcall::Encoded<#argument, __B>,
        ) -> #ringcall::#verb<'a, __C, #sent #types>
        where
            #sent: #ringcall::Message,
            __C: #channel,
        {
            #ringcall::#verb::new(
                &self.channel, &self.table.methods()[#index], &self.options, #parameter.as_message(),
            )
        }
    }
}

/// What a method of the client gives, to be awaited: its type, and the parameters of that behind the argument.
fn made(service: &Service, method: &Method) -> (TokenStream, TokenStream) {
    let (_, value, error) = messages(service, method);
    match (item_in(service, method), item_out(service, method)) {
        (None, Some(item)) => (quote!(ItemsCall), quote!(, #item, #error)),
        (Some(sent), None) => (quote!(UploadCall), quote!(, #sent, #value, #error)),
        (Some(sent), Some(item)) => (quote!(DuplexCall), quote!(, #sent, #item, #error)),
        (None, None) if method.options.one_way => (quote!(OneWay), TokenStream::new()),
        (None, None) => (quote!(Call), quote!(, #value, #error)),
    }
}

fn deprecated(method: &Method) -> TokenStream {
    let deprecated = method.attributes.iter().filter(|attr| attr.path().is_ident("deprecated"));
    quote!(#(#deprecated)*)
}

fn table_name(service: &Service) -> Ident {
    format_ident!("__ringcall_{}_table", snake_case(&service.name))
}

/// `OrderBook` to `order_book`.
fn snake_case(name: &Ident) -> String {
    let name = name.unraw().to_string();
    let mut snake = String::new();
    let mut before_was_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && before_was_lower {
            snake.push('_');
        }
        before_was_lower = c.is_lowercase() || c.is_ascii_digit();
        snake.extend(c.to_lowercase());
    }
    snake
}
