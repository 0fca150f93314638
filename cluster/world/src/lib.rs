//! Worlds of clients and servers, as events in a time that is not real: what fleets decide, many of them together,
//! without a socket. The same world is the same run.
//!
//! * [`World`] is one: a [`Plan`] says how large, a script lets time pass and breaks things, [`Second`]s are what was
//!   seen.
//! * [`scenarios`] are worlds with a script and with figures that must hold: tests of the cluster assert them,
//!   `cargo xtask worlds` prints and draws them.
//! * [`what_if`] offers the calls of a world to other policies; [`Recorded`] are such calls, which may be kept in a file.
//! * [`herd`] is ten thousand clients that lost the same server.

#![forbid(unsafe_code)]

pub mod herd;
mod plan;
mod queue;
mod recorded;
pub mod scenarios;
mod seen;
mod server;
mod sources;
mod trace;
pub mod what_if;
mod world;

pub use plan::Plan;
pub use recorded::{BadTrace, Recorded};
pub use seen::{Bar, Figure, Second, Seconds};
pub use server::{Health, Server};
pub use trace::{Offered, Trace};
pub use world::{METHOD, World};
