//! The serving side: services, how calls reach their handlers, and servers.

pub(crate) mod access;
mod admit;
mod context;
mod handler;
mod incoming;
mod methods;
mod mount;
mod responder;
mod server;
mod signals;
mod streams;
mod table;

pub use access::{Access, CallerInfo, ConnectionInfo, same_secret};
#[cfg(feature = "cluster")]
pub(crate) use context::RemoteSleep;
pub use context::{CallInfo, Context, FromCall, SendContext, ShardClock};
pub use incoming::Incoming;
pub(crate) use incoming::Running;
pub(crate) use methods::{MethodRows, PAGE, PAGE_NAME, Pages};
pub(crate) use mount::{Method, Router};
pub use mount::{Mount, Service};
pub use responder::{Responder, Responds};
pub use server::{Handlers, RunningServer, Server};
pub use streams::{Ending, ItemSink, Items, Streams};
pub(crate) use table::KnownMethods;
pub use table::{ErasedMessage, ItemType, MethodTable, ServiceTable};
