//! The calling side: clients for every place that calls come from.

mod address;
mod blocking;
mod call;
mod local;
mod peer;
mod shared;

pub use address::ToAddress;
pub use blocking::BlockingClient;
pub use call::{
    BlockOn, Call, CallFuture, CallOptions, CallResult, IntoOwned, OneWay, OneWayFuture,
};
pub(crate) use local::ClientConnection;
pub use local::{LocalClient, LocalConnect};
pub use peer::Peer;
pub(crate) use peer::PeerShared;
pub use shared::{Client, Connect};
pub(crate) use shared::{ConnectSlot, Destination, Outbox, RemoteEnd, RemoteSlot, Services};

use std::time::Duration;

/// How long a unary call may take unless its method or its caller says otherwise. A call without any
/// deadline is the mistake that is made most with other frameworks.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);
