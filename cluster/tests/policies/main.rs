//! What the policies decide, one by one and together in a balanced channel. Many clients and servers at once are in
//! `worlds.rs`.

mod absence;
mod aperture;
mod balance;
mod channel;
mod custom;
mod discovery;
mod dns;
#[cfg(feature = "dns")]
mod dns_server;
mod fleet;
mod mirror;
mod reports;
mod routed;
mod routing;
mod streams;
mod stubs;
mod tied;
