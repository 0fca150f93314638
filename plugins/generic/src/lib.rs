//! Calls of services without their interface: for tools, gateways, scripts and tests that have neither the types nor the
//! traits of a server.
//!
//! A server that offers [`ringcall::reflection`] says which services it has, what their methods take and give. A [`Catalog`] is
//! that, and [`Generic`] makes calls with values of JSON out of it:
//!
//! ```
//! use ringcall::{Client, Server, reflection::{Interface, Reflection}};
//! use ringcall_generic::Generic;
//! use serde_json::json;
//!
//! # #[ringcall::message] pub struct Symbol { pub code: String }
//! # #[ringcall::message] pub struct Quote { pub price: f64 }
//! # #[ringcall::message] pub enum NoSuch { Symbol { code: String } }
//! # #[ringcall::service(name = "market.Quotes")]
//! # trait Quotes { async fn last(&self, symbol: Symbol) -> Result<Quote, NoSuch>; }
//! # struct Book;
//! # impl Quotes for Book {
//! #     async fn last(&self, symbol: Symbol) -> Result<Quote, NoSuch> {
//! #         if symbol.code == "ABC" { Ok(Quote { price: 42.0 }) } else { Err(NoSuch::Symbol { code: symbol.code }) }
//! #     }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("127.0.0.1:0")
//!     .service(Book.into_quotes())
//!     .service(Interface.into_reflection())
//!     .start()?;
//!
//! let generic = Generic::wait_for(Client::connect(server.address()).wait()?)?;
//! let quote = generic.call("market.Quotes/last", &json!({ "code": "ABC" }))?.wait()?;
//! assert_eq!(quote, json!({ "price": 42.0 }));
//!
//! // The error of the handler is a value, too.
//! let error = generic.call("market.Quotes/last", &json!({ "code": "X" }))?.wait().unwrap_err();
//! assert_eq!(error.app(), Some(&json!({ "Symbol": { "code": "X" } })));
//!
//! // What does not fit is told before anything is sent, and where it is.
//! let error = generic.call("market.Quotes/last", &json!({ "code": 7 })).unwrap_err();
//! assert_eq!(error.to_string(), "market.Quotes/last: `code`: a text is expected, not 7");
//! # Ok(()) }
//! ```
//!
//! # Values
//!
//! A value is what `serde_json` would write of the type: a struct an object, an enum the name of its variant or an object of
//! one name, as the table of `docs/PROTOCOL.md` says. Beside that
//!
//! * `u128` and `i128` may be texts of their digits, and are given as such where they do not fit into 64 bits;
//! * a `Duration` may be a number of seconds;
//! * bytes, of a field and of a whole body, may be a text, whose UTF-8 they are, and are given as a list of numbers;
//! * a float that is no number is given as `"NaN"`, `"inf"` or `"-inf"`, and not taken.
//!
//! Names are those of the Rust source, which is all that a server knows to tell. For types with `#[serde(rename)]` there is
//! [`GenericCall::unchecked`].
//!
//! # Streams
//!
//! Methods that take or give streams are [opened](Generic::streams). The items are values, too:
//!
//! ```
//! # use ringcall::{Client, Items, Server, Stream, reflection::{Interface, Reflection}};
//! # use ringcall_generic::Generic;
//! # use serde_json::json;
//! # #[ringcall::service(name = "a.Echo")]
//! # trait Echo { async fn back(&self, items: Items<Option<u8>>) -> impl Stream<Item = Option<u8>>; }
//! # struct Wall;
//! # impl Echo for Wall {
//! #     async fn back(&self, items: Items<Option<u8>>) -> impl Stream<Item = Option<u8>> { items }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = Server::bind("127.0.0.1:0").service(Wall.into_echo()).service(Interface.into_reflection()).start()?;
//! let generic = Generic::wait_for(Client::connect(server.address()).wait()?)?;
//! let (mut sender, mut items) = generic.streams("a.Echo/back", &json!(null))?.open_wait()?;
//! sender.send_wait(&json!(7))?;
//! sender.send_wait(&json!(null))?;
//! assert!(sender.send_wait(&json!("seven")).is_err(), "a whole number from 0 to 255 is expected");
//! sender.end();
//! assert_eq!(items.next_wait().expect("an item")?, json!(7));
//! assert_eq!(items.next_wait().expect("an item")?, json!(null));
//! assert!(items.next_wait().is_none());
//! # Ok(()) }
//! ```
//!
//! Types in a codec of somebody's own cannot be called so.

#![forbid(unsafe_code)]

mod call;
mod catalog;
mod decode;
mod encode;
mod error;
mod example;
mod integer;
mod nesting;
mod schema;
mod shown;
mod streams;

pub use call::{Generic, GenericCall, GenericFuture};
pub use catalog::{Catalog, Method, Service};
pub use error::{CatalogError, GenericError, Mismatch};
pub use streams::{GenericEnds, GenericItems, GenericSender, GenericStreams, SendError};
