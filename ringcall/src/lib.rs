//! Remote procedure calls to embed in latency-critical services.
//!
//! ```no_run
//! use ringcall::{Server, View};
//!
//! #[ringcall::message]
//! pub struct Symbol {
//!     pub code: String,
//! }
//!
//! #[ringcall::message]
//! pub struct Quote {
//!     pub price: f64,
//! }
//!
//! #[ringcall::message]
//! #[derive(Debug)]
//! pub struct NoSuch;
//!
//! impl std::fmt::Display for NoSuch {
//!     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
//!         f.write_str("there is no such symbol")
//!     }
//! }
//!
//! #[ringcall::service]
//! pub trait Quotes {
//!     /// The last quote of a symbol.
//!     async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch>;
//! }
//!
//! struct Book;
//!
//! impl Quotes for Book {
//!     async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch> {
//!         if symbol.code == "ABC" { Ok(Quote { price: 42.0 }) } else { Err(NoSuch) }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind("127.0.0.1:7000").service(Book.into_quotes()).start()?;
//!
//! let quotes = QuotesClient::connect("127.0.0.1:7000").wait()?;
//! let quote = quotes.last(&Symbol { code: "ABC".into() }).wait()?;
//! assert_eq!(quote.price, 42.0); // read where the reply landed
//! # server.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # Who runs what
//!
//! A [`Shard`] is a thread with an engine, its connections and a small executor. Nothing is shared
//! between shards on the way of a call.
//!
//! * [`Server`] runs shards of its own. Handlers run on the shard that received the call, since a hop to
//!   another thread costs more than most handlers; what blocks or computes long goes to a bounded pool
//!   of threads, one method at a time (`#[method(offload)]`) or all ([`Server::handlers`]).
//! * [`Client`] is for any thread and any executor, or none: `.await`, [`Call::callback`],
//!   [`Call::wait`]. It talks to a shard in the background.
//! * [`BlockingClient`] owns a shard and drives it on the calling thread: the lowest latency.
//! * [`LocalClient`] is for code that runs on a shard: handlers, and tasks of your own loop.
//! * [`Shard`] itself is for your own loop: [`Shard::turn`].
//! * [`HostedShard`] is for a loop of somebody else: one file descriptor and a timeout. With the features
//!   `tokio`, `async-io` and `monoio` a shard is a future there: [`host`].
//!
//! # In tokio
//!
//! Clients are awaited in any task. Handlers run on the server's own threads, which are in the context of a runtime after
//! `Server::tokio` (feature `tokio`), or of any other after [`Server::on_each_thread`]; [`Server::service_spawned`] runs
//! them on an executor instead. A server in async code ends by [`RunningServer::until_signalled`],
//! [`run_until`](RunningServer::run_until) or [`drained`](RunningServer::drained): everything else that ends one blocks.
//!
//! # Streams
//!
//! A method may take a stream of items, `parts: impl Stream<Item = Part>` or `parts: Items<Part>`, and
//! return one, `Result<impl Stream<Item = Quote>, NoSuch>`:
//!
//! ```no_run
//! # #[ringcall::message] pub struct Symbol { pub code: String }
//! # #[ringcall::message] #[derive(Clone)] pub struct Quote { pub price: f64 }
//! # #[ringcall::message] #[derive(Debug)] pub struct NoSuch;
//! # impl std::fmt::Display for NoSuch {
//! #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no") }
//! # }
//! use ringcall::{Items, SlowConsumer, Stream, Topic, View};
//!
//! #[ringcall::service]
//! trait Market {
//!     async fn ticks(&self, symbol: View<Symbol>) -> Result<impl Stream<Item = Quote>, NoSuch>;
//!     async fn mean(&self, quotes: Items<View<Quote>>) -> f64;
//! }
//!
//! struct Floor {
//!     quotes: Topic<Quote>,
//! }
//!
//! impl Market for Floor {
//!     async fn ticks(&self, symbol: View<Symbol>) -> Result<impl Stream<Item = Quote>, NoSuch> {
//!         if symbol.code == "ABC" { Ok(self.quotes.subscribe()) } else { Err(NoSuch) }
//!     }
//!
//!     async fn mean(&self, mut quotes: Items<View<Quote>>) -> f64 {
//!         let (mut sum, mut count) = (0.0, 0.0);
//!         while let Some(quote) = quotes.next().await {
//!             sum += quote.price.to_native();
//!             count += 1.0;
//!         }
//!         sum / count
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let market = MarketClient::connect("127.0.0.1:7000").await?;
//! let mut ticks = market.ticks(&Symbol { code: "ABC".into() }).await?;
//! while let Some(quote) = ticks.next().await {
//!     println!("{}", quote?.price);
//! }
//! let mut upload = market.mean().await?;
//! upload.send(&Quote { price: 42.0 }).await?;
//! let mean = upload.finish().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever sends waits when the other side does not take items: see [`Items`], [`ReplyItems`], [`Upload`]
//! and [`ItemSender`] for how many may be on their way, and what dropping them does. [`Topic`] hands one
//! item to many streams. Handlers with streams run on the shard, also with [`Handlers::Offload`].
//!
//! # TLS, and who may call
//!
//! With the feature `tls` a server speaks TLS 1.3 and nothing else after `Server::tls`, and so does a client
//! after `Connect::tls`, which verifies the server's certificate. Handlers ask [`Context`] for the identity of a
//! caller with a certificate; [`Server::authorize`] and [`Server::authorize_calls`] decide who may connect
//! and call what, by certificate or by [`Credentials`].
//!
//! # Many instances
//!
//! With the feature `cluster` a client calls many instances of a service through a balanced channel:
//! `ringcall::cluster`, explained in `docs/CLUSTER.md`. With the feature `dns` names say where they are.
//! With the feature `serde` settings, rules and [limits](limits::Limits) are read from a file.
//!
//! # Simulation
//!
//! With the feature `sim` services are tested in a simulated network, under faults, from a seed: `ringcall::sim`.
//!
//! # Errors
//!
//! A call ends exactly once, with the handler's answer or a [`CallError`] that says whether the call may
//! have run: [`CallError::is_safe_to_retry`].
//!
//! A handler fails with a message of its own, `Result<Quote, NoSuch>`. One that has not done anything may say so instead
//! with a [`Refusal`], and when it makes sense to come again; then a balanced channel asks another server. What it did not
//! expect it says to the log of its server, with [`HandlerError::internal`]:
//!
//! ```
//! use std::time::Duration;
//! use ringcall::{HandlerError, Refusal};
//!
//! #[ringcall::message]
//! struct NoSuch;
//!
//! #[ringcall::service]
//! trait Store {
//!     #[method(offload)]
//!     async fn read(&self, key: String) -> Result<String, HandlerError<NoSuch>>;
//! }
//!
//! struct Shelf { is_full: bool, path: std::path::PathBuf }
//!
//! impl Store for Shelf {
//!     async fn read(&self, key: String) -> Result<String, HandlerError<NoSuch>> {
//!         if self.is_full {
//!             Err(Refusal::overloaded().retry_after(Duration::from_millis(20)))?;
//!         }
//!         let text = std::fs::read_to_string(&self.path).map_err(HandlerError::internal)?;
//!         let mut lines = text.lines();
//!         let found = lines.find_map(|line| line.strip_prefix(&key)).ok_or(NoSuch)?;
//!         Ok(found.to_owned())
//!     }
//! }
//! ```
//!
//! A call that a handler makes ends up in one, too: `client.get(&id).await?`. [`HandlerError`] says what becomes of it.

#![forbid(unsafe_code)]

mod block_on;
mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
mod error;
pub mod filter;
pub mod health;
pub mod host;
mod metadata;
pub mod observe;
mod offload;
mod packing;
mod panics;
pub mod record;
pub mod reflection;
mod serve;
pub mod shapes;
mod shard;
#[cfg(feature = "sim")]
pub mod sim;
mod sync;
mod topic;
mod trace;
mod wakers;

pub use client::{
    AnyCall, AnyChannel, AnyOpening, AnyPending, AnyStream, BadFallback, BadMethodName, BlockOn,
    BlockingClient, BlockingStream, Call, CallFuture, CallOptions, CallResult, Client,
    ClientThreads, Connect, ConnectionState, Credentials, DuplexCall, DuplexFuture, FALLBACK_KEY,
    FallbackCall, FallbackCounts, Fallbacks, IntoOwned, ItemSender, ItemsCall, ItemsFuture,
    ItemsOf, LandingCall, LandingFuture, LocalClient, LocalConnect, LocalStream, OneWay,
    OneWayFuture, Peer, RemoteStream, Reply, ReplyFuture, ReplyItems, SpanIds, Streams, Target,
    ToAddress, UntypedCall, UntypedEnds, UntypedFuture, UntypedItems, UntypedOpening, UntypedReply,
    UntypedResult, UntypedSender, Upload, UploadCall, UploadFuture, WithCredentials, WithFallbacks,
    WithMetadata, Within,
};
pub use error::{CallError, ServeError};
pub use metadata::{BadMetadataKey, Metadata};
pub use serve::limits;
pub use serve::{
    Access, CallInfo, CallerInfo, CallerKey, ConnectionInfo, Context, Deduplication, Drained,
    ErasedMessage, Handlers, Items, MethodTable, Principal, Register, Responder, RunningServer,
    SendContext, SendService, ServedGroup, Server, Service, ServiceTable, ShardClock, SpawnedCall,
    StartError, Starting, same_secret,
};
pub use shard::{
    DrainReport, DrainStep, Draining, HostedShard, Incidents, MachineClock, Shard, ShardConfig,
    TransportChoice, TransportInfo, Turn, UnknownTransport, Wait, WaitPolicy, transport_fallbacks,
};
pub use topic::{SlowConsumer, Subscription, Topic};
pub use trace::{BadTraceContext, TraceContext};

#[doc(no_inline)]
pub use bytes::Bytes;
#[doc(no_inline)]
pub use futures_core::Stream;
pub use packing::{CompressionConfig, CompressionCounts, compression_counts};
/// What wrappers of your own are made with: the traits of [`rkyv::with`] and [`Map`](rkyv::with::Map).
#[doc(no_inline)]
pub use ringcall_codec_rkyv::rkyv;
pub use ringcall_codec_rkyv::{
    Archiver, Attachment, BecomesError, Each, EncodeAs, Encoded, FromBody, HandlerError, Inhabited,
    InternalError, IntoError, IntoItem, IntoReply, Invalid, Message, ReceivedAttachment, Shape,
    SharedEncoded, SharedView, Signatures, Unanswered, UnixTime, View, WireType, WireWith,
    WithAttachment, each, owned,
};
pub use ringcall_compression::{Compression, Threshold};
pub use ringcall_core::{
    Address, Answer, Arrived, BadIdentity, Cause, Channel, Chunk as Body, CloseCode, CloseReason,
    Codec, Config, ConfigError, Counters, EncodeError, Encoding, Expected, External as FileRange,
    Failure, FailureClass, Frozen, Identity, MemoryLimits, Mismatch, Missing, ObjectError,
    Outgoing, Payload, Refusal, RetryBudget, ServiceName, SharedChunk as SharedBody, Status,
    StatusClass, StreamCall, StreamChannel, TlsFault, TransportError, Writer, is_method_name,
    method_id,
};
pub use ringcall_macros::{message, service};
pub use ringcall_net::SharedFile;
#[cfg(feature = "tls")]
pub use ringcall_tls::{
    PeerIdentity, TlsClient, TlsConfigError, TlsIdentity, TlsRoots, TlsServer, TlsSource,
};

/// What the macros need. Not a public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::client::IntoOwned;
    pub use crate::serve::{
        Ending, FromCall, Incoming, ItemSink, ItemType, Mount, Responds, Streams,
    };
    pub use ringcall_codec_rkyv as codec;
}

/// The program of the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that about tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/TESTING.md")]
struct Testing;

/// So does what the page about shapes shows.
#[cfg(doctest)]
#[doc = include_str!("../../docs/SHAPES.md")]
struct Shapes;

/// And what the page about messages does.
#[cfg(doctest)]
#[doc = include_str!("../../docs/MESSAGES.md")]
struct Messages;
