//! The serving side: services, how calls reach their handlers, and servers.

pub(crate) mod access;
mod admit;
mod caller_key;
mod context;
mod deduplication;
mod ending;
mod filter;
mod handler;
mod incoming;
pub mod limits;
mod methods;
mod mount;
mod repeats;
mod reply_metadata;
mod responder;
mod server;
mod signals;
mod slots;
mod starting;
mod streams;
mod table;
mod unread;

pub use access::{Access, CallerInfo, ConnectionInfo, Principal, same_secret};
pub use caller_key::CallerKey;
#[cfg(feature = "cluster")]
pub(crate) use context::RemoteSleep;
pub(crate) use context::Sleeper;
pub use context::{CallInfo, Context, FromCall, SendContext, ShardClock};
pub use deduplication::Deduplication;
pub(crate) use deduplication::{Begun, KeptReplies, KeptReply, KeyDigest};
pub use ending::Drained;
pub use filter::ServerCall;
pub(crate) use filter::{Filters, ServerFilter};
pub use handler::SpawnedCall;
pub use incoming::Incoming;
pub(crate) use incoming::{Facts, Running, Tie};
pub(crate) use methods::{BEGUN, MethodRows, PAGE, PAGE_NAME, Pages, is_control};
pub(crate) use mount::{KIND_FLAGS, Method, Router};
pub use mount::{Mount, SendService, Service};
pub(crate) use reply_metadata::ReplyMetadata;
pub use responder::{Responder, Responds};
pub use server::{Handlers, RunningServer, Server};
pub use starting::{Register, StartError, Starting};
pub use streams::{Ending, ItemSink, Items, Streams};
pub(crate) use table::KnownMethods;
pub use table::{ErasedMessage, ItemType, MethodTable, ServiceTable};
