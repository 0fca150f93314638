//! Calls to many instances of a service.
//!
//! A [`Balanced`] channel stands where a connection would: build a typed client on it. It chooses an instance
//! for each call, tries again elsewhere where that is safe, and leaves out those that fail. [`Watch`] keeps its
//! list of instances as a [`Source`](discovery::Source) says. `docs/CLUSTER.md` explains what is decided how,
//! and every default.
//!
//! ```no_run
//! # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! use std::time::Duration;
//!
//! use ringcall::BlockOn;
//! use ringcall::cluster::discovery::{FileSource, Wanted};
//! use ringcall::cluster::{Balanced, Clients, Settings, Watch};
//!
//! let balanced = Balanced::new(Clients::new()?, Settings::new())?;
//! let source = FileSource::new("instances.txt"); // quotes a1 127.0.0.1:7001 weight=200
//! let _watch = Watch::new(Wanted::service("quotes")).start(source, balanced.clone())?;
//!
//! let quotes = QuotesClient::new(balanced.clone());
//! balanced.block_on(balanced.ready().within(Duration::from_secs(10)))?;
//! let last = quotes.last(&"ABC".to_owned()).wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Settings are a service's, and a method's where it needs others:
//!
//! ```
//! # #[ringcall::service(name = "quotes.Quotes")] trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! use ringcall::cluster::{CallLimit, MethodSettings, Settings};
//!
//! let mut last = MethodSettings::new();
//! last.limit = CallLimit::in_flight(100);
//! let settings = Settings::new().with_method("quotes.Quotes/last", last);
//! assert_eq!(settings.unknown_methods(QuotesClient::service_table().methods()), []);
//! ```

mod connectors;
mod ties;
mod watch;

pub use connectors::{Clients, Filtering, LocalClients, LocalOpening, LocalSleep, Opening, Sleep};
pub use ringcall_cluster::{
    Aperture, AperturePolicy, At, AtCall, AtOpening, BadSetting, Balanced, BalancedCall,
    BalancedOpening, BalancedStream, CallLimit, Connector, Counts, Guard, LimitLease, MethodKey,
    MethodSettings, MirrorConfig, Ready, Settings, Sign, WarmUpPolicy, balance, breaker, discovery,
    fleet, health, hedge, ramp, recovery, retry, route, sign_of,
};
/// Time and chance, as policies and sources of your own are told them.
pub use ringcall_core::{Clock, Entropy, Instant};
pub use ties::Begun;
pub(crate) use ties::begun;
pub use watch::{Watch, Watching};

/// Of a client's own table, which has no typing errors.
impl From<&crate::MethodTable> for MethodKey {
    fn from(method: &crate::MethodTable) -> MethodKey {
        method.full_name().into()
    }
}
