//! `#[message]` and `#[service]`. Use them through the `ringcall` crate, which documents them.

#![forbid(unsafe_code)]

mod message;
mod service;

use proc_macro::TokenStream;
use proc_macro2::Span;

/// Makes a struct or enum a message: something a method can take, return or fail with.
///
/// ```ignore
/// #[ringcall::message]
/// pub struct Quote {
///     pub price: f64,
///     pub venue: String,
/// }
/// ```
///
/// It derives rkyv's `Archive`, `Serialize` and `Deserialize`, with `Debug` for the archived type, and
/// implements `WireType` and `Message`. Every field must be a wire type, see `ringcall::WireType`; a
/// field of a foreign type says how it is archived: `#[rkyv(with = Wrapper)]`. Other attributes of
/// rkyv go through as well. Recursive types work; how deep they may nest is limited when they are
/// received.
///
/// If it derives `PartialEq` below `#[message]`, its archived type compares with it: `view.kind == Kind::Limit`. What is read
/// in a view, and what it is made of, is in `docs/MESSAGES.md`.
///
/// It also derives serde's `Serialize` and `Deserialize`, unless the type's own derives have them: that is how
/// builds with another idea of the type are talked to, in MessagePack, and everybody else, in that or JSON.
/// serde's attributes go through, without depending on serde: `#[serde(default)]` on a field that others may
/// not send yet, `#[serde(alias = "old")]` on one that was renamed. `docs/SHAPES.md` says which changes of a
/// type that carries.
///
/// A field that is an array may have any length. Arrays *within* other types, such as `Option<[u8; 64]>`, and fields of
/// messages that derive serde themselves are as serde has them: 32 elements at most, unless `#[serde(with = …)]` says how.
///
/// # Arguments
///
/// * `also = v1::Quote`: archives of the type as it was are read as well; needs `impl From<v1::Quote> for Quote`.
///   It must still be called as it was. May repeat, eight times at most.
/// * `also_written = v1::Quote`: whoever was built with that is also answered with it; needs
///   `impl From<&Quote> for v1::Quote` besides.
/// * `borrowed`, or `borrowed = Name`: beside a struct `Quote` there will be `QuoteRef`, which is written as one and need not own
///   anything: `QuoteRef { price: 1.0, venue: "XETR" }`. What may be in it says `ringcall::EncodeAs`; `ringcall::Encoded::of`
///   encodes it, for handlers to return and callers to send. Fields that are numbers, or have a wrapper, are as in the message.
/// * `crate = path`: where `ringcall` is found if not at `::ringcall`.
#[proc_macro_attribute]
pub fn message(arguments: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(arguments.into(), item.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}

/// Makes a trait a service: a client, a server side, and a table of its methods.
///
/// ```ignore
/// #[ringcall::service]
/// pub trait Quotes {
///     /// The last quote.
///     async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch>;
///     #[method(one_way)]
///     async fn seen(&self, symbol: Symbol);
/// }
/// ```
///
/// For a trait `Quotes` there will be `QuotesClient`, which has the same methods with arguments by
/// reference, and `QuotesService`, made by `.into_quotes()` from anything that implements the trait. An `Arc` of that does,
/// too, and an `Rc` without `send`, so that one state serves many services.
///
/// # Methods
///
/// * `async fn name(&self, argument) -> Reply`: the argument is one message, by value (`Symbol`), as a
///   view that is read where it landed (`View<Symbol>`), or raw (`Bytes`); there may be none. The reply
///   is a message or a `Result` of two.
/// * A parameter by reference is about the call, not sent: `cx: &Context`.
/// * A parameter `impl Stream<Item = X>` or `Items<X>`, beside the argument, is a stream that the caller
///   sends; `X` is a message or a view. A reply `impl Stream<Item = M>` or `Result<impl Stream<Item = M>, E>`
///   is one that the server sends; with `Item = Result<M, E>` it may end with an error, too. These are
///   recognised by their names, so aliases do not work. The methods of the client give
///   `ReplyItems`, an `Upload`, or an `ItemSender` and `ReplyItems`.
/// * `fn name(&self, argument, responder: Responder<Value, Error>)`: answered later, from anywhere.
///
/// # Arguments of `#[service(…)]`
///
/// * `name = "package.Service"`: the name on the wire; otherwise the crate's name and the trait's.
/// * `send`: handlers' futures are `Send`, for executors that move them between threads.
/// * `crate = path`: where `ringcall` is found if not at `::ringcall`.
///
/// # Arguments of `#[method(…)]`
///
/// * `name = "other"`: the method's name on the wire.
/// * `idempotent`: running it twice does no harm, so that it may be retried when it may have run.
/// * `compress = "lz4"` or `"zstd"`: how callers compress the argument unless they say otherwise; with the
///   feature of that name.
/// * `deadline = "5ms"`: how long callers wait unless they say otherwise (`us`, `ms`, `s`). If the reply
///   is a stream, until it begins.
/// * `encoded`: the client has a second method `name_encoded`, which takes an argument that is encoded already: of data that
///   the caller need not own, or once for many calls. See `ringcall::Encoded`.
/// * `one_way`: there is no reply.
/// * `offload`: runs on the pool of threads for blocking or long work. Not with streams.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), item.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}

/// The same tokens in another place, for errors about them to be shown there.
fn respan(tokens: proc_macro2::TokenStream, span: Span) -> proc_macro2::TokenStream {
    let respanned = tokens.into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    respanned.collect()
}
