//! What the policies decide, one by one and together in a balanced channel. Many clients and servers at once are in
//! `worlds.rs`.

mod aperture;
mod balance;
mod channel;
mod discovery;
mod dns;
#[cfg(feature = "dns")]
mod dns_server;
mod fleet;
mod mirror;
mod routed;
mod routing;
mod stubs;
