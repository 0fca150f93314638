//! Calls to many instances of a service.
//!
//! Every policy is without clock, I/O or randomness of its own: the time, random numbers and what was seen are
//! arguments, so that a run can be repeated. What chance begins with is the connector's, and that of a `DnsSource` the
//! operating system's unless it is given. Only `FileSource`, `write_list` and `DiskCache` (feature `file`)
//! touch the machine: files, and its wall clock. What chooses an instance ([`balance::Balance`]) and what
//! says which there are ([`discovery::Source`]) may be yours.
//!
//! * [`discovery`]: which instances there are, and what is believed of their source.
//! * [`route`]: which of them a call may go to.
//! * [`health`]: which of them work.
//! * [`balance`]: which gets a call.
//! * [`breaker`], [`retry`], [`hedge`]: what becomes of calls that fail, or take long.
//! * [`recovery`]: which calls are made while instances come back after all had gone.
//! * [`Balanced`]: the channel over many that goes by all of this.
//! * [`fleet`]: its decisions, as a value that can be simulated.
//!
//! With the feature `serde` all settings and rules are read from text, and checked as they are: every field may be left
//! out that has a default, and a name that is not known is an error. What is code cannot be written
//! ([`Settings::with_code_of`]). `docs/CLUSTER.md` shows all that can be.

#![forbid(unsafe_code)]

mod aperture;
pub mod balance;
pub mod breaker;
mod channel;
mod custom;
pub mod discovery;
pub mod fleet;
pub mod health;
pub mod hedge;
mod limit;
mod method;
mod ramp;
pub mod recovery;
pub mod retry;
pub mod route;
mod settings;
mod sign;
#[cfg(feature = "serde")]
mod text;
mod window;

pub use aperture::{Aperture, AperturePolicy};
pub use channel::{
    At, AtCall, AtOpening, Balanced, BalancedCall, BalancedOpening, BalancedStream, Connector,
    Guard, Ready,
};
pub use limit::{CallLimit, LimitLease};
pub use method::MethodKey;
pub use ramp::{WarmUpPolicy, ramp};
pub use settings::{BadSetting, MethodSettings, MirrorConfig, Settings};
pub use sign::{Sign, sign_of};
pub use window::Counts;
