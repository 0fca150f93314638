//! The calling side: clients for every place that calls come from.

mod address;
mod any;
mod blocking;
mod bridge;
mod call;
mod fallback;
mod filtered;
mod landing;
mod local;
mod local_stream;
mod methods;
mod peer;
mod reply;
mod route;
mod security;
mod shared;
mod skew;
mod state;
mod streams;
mod threads;
mod untyped;
mod untyped_streams;
mod within;

pub(crate) use address::{Lookup, NO_ADDRESS, PeerAddress};
pub use address::{Target, ToAddress};
pub use any::{AnyCall, AnyChannel, AnyOpening, AnyPending, AnyStream};
pub use blocking::BlockingClient;
pub(crate) use bridge::Bridge;
pub use bridge::RemoteStream;
pub use call::{
    BlockOn, Call, CallFuture, CallOptions, CallResult, IntoOwned, OneWay, OneWayFuture,
};
pub use fallback::{
    BadFallback, FALLBACK_KEY, FallbackCall, FallbackCounts, Fallbacks, WithFallbacks,
};
pub use filtered::{
    ClientCall, Filtered, FilteredCall, FilteredOpening, FilteredStream, OwnedFilteredCall,
    OwnedFilteredOpening,
};
pub use landing::{LandingCall, LandingFuture};
pub(crate) use local::{ClientConnection, Closed, Waits, failure_of};
pub use local::{LocalClient, LocalConnect};
pub use local_stream::{BlockingStream, LocalStream};
pub use peer::Peer;
pub(crate) use peer::PeerShared;
pub use reply::{Reply, ReplyFuture, WithMetadata};
pub(crate) use route::{Route, look_up};
pub(crate) use security::Security;
pub use security::{Credentials, WithCredentials};
#[cfg(all(test, ringcall_loom))]
pub(crate) use shared::Line;
pub use shared::{Client, Connect};
pub(crate) use shared::{
    ConnectSlot, Connecting, Destination, Entry, Outbox, RemoteEnd, RemoteSlot, Services,
};
#[cfg(feature = "sim")]
pub(crate) use skew::Tables;
pub(crate) use skew::{Called, Skew};
pub use state::ConnectionState;
pub(crate) use state::Watched;
pub use streams::{
    DuplexCall, DuplexFuture, ItemSender, ItemsCall, ItemsFuture, ItemsOf, ReplyItems, Upload,
    UploadCall, UploadFuture,
};
pub use threads::ClientThreads;
#[cfg(feature = "cluster")]
pub(crate) use threads::background;
pub use untyped::{BadMethodName, UntypedCall, UntypedFuture, UntypedReply, UntypedResult};
pub use untyped_streams::{Streams, UntypedEnds, UntypedItems, UntypedOpening, UntypedSender};
pub(crate) use within::Inherited;
pub use within::{SpanIds, Within};

use std::time::Duration;

/// How long a unary call may take unless its method or its caller says otherwise. A call without any
/// deadline is the mistake that is made most with other frameworks.
pub(crate) const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);
