//! TLS 1.3 as the byte layer of ringcall, on rustls.
//!
//! [`TlsServer`] and [`TlsClient`] say who this side is and whom it trusts; [`Tls`] is the layer of one
//! connection. rustls makes the handshake, checks certificates and derives keys. When it is done, it hands the
//! keys over, as it does to kernels that encrypt themselves ([`rustls::kernel`]), and records are sealed and
//! opened here with its ciphers: straight from the segments of a batch, and in place where the plaintext is
//! to lie.
//!
//! What is always so: TLS 1.3 and nothing before it, the protocol `ringcall/1` by ALPN, no early data,
//! resumption by tickets that the server remembers, certificates verified.

#![forbid(unsafe_code)]

mod config;
mod fault;
mod handshake;
mod layer;
mod peer;
#[cfg(test)]
mod tests;
mod traffic;

pub use config::{TlsClient, TlsConfigError, TlsIdentity, TlsRoots, TlsServer, TlsSource};
pub use layer::{Tls, Workspace};
pub use peer::PeerIdentity;

/// What is spoken inside TLS, as ALPN names it.
pub const PROTOCOL: &[u8] = b"ringcall/1";
