//! Which instances there are: what sources say, merged, and guarded against what they should not say.
//!
//! A [`Source`] gives [`Update`]s. [`Registry`] merges them in any order to the same list. [`Discovery`]
//! decides which of that is believed, and when: it holds the last good list through outages, empty pushes
//! and mass removals, and lets changes through in steps. What comes out is a [`Listing`].

mod damping;
mod dns;
mod guard;
mod instance;
mod listing;
mod registry;
mod source;
mod text;

#[cfg(feature = "file")]
mod file;

pub use damping::DampingConfig;
#[cfg(feature = "dns")]
pub use dns::HickoryResolver;
pub use dns::{
    DnsAnswer, DnsConfig, DnsFailure, DnsFamily, DnsKind, DnsQuery, DnsRecord, DnsSource, Resolve,
};
#[cfg(feature = "file")]
pub use file::{Cached, DiskCache, FileSource, wall_clock_ms, write_list};
pub use guard::{Alarm, GuardConfig};
pub use instance::{Instance, Invalid, Wanted};
pub use listing::{Discovery, DiscoveryConfig, Listed, Listing};
pub use registry::{Change, Delta, Refusal, Registry, Revision, Snapshot};
pub use source::{Source, StaticSource, Update};
pub use text::{BadList, format_list, read_list};
