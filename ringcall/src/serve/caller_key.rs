//! By what callers are told apart.

use std::hash::{BuildHasher, RandomState};

use ringcall_core::frame::is_metadata_key;

use super::access::Caller;
use crate::Metadata;

/// By what a server tells callers apart, where each of them is counted or remembered for itself. All calls that do not
/// have it count as those of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallerKey {
    /// Whom the certificate names, with [mutual TLS](crate::TlsServer::mutual): by its subject, DNS names and URIs, so
    /// that one that was renewed is still the same caller. Read from the certificate for every call.
    #[cfg(feature = "tls")]
    Certificate,
    /// The IP address that its connection comes from. Many callers may share one behind a proxy or a router, and all of a
    /// unix socket are one.
    Address,
    /// The first value of a key of metadata, such as a tenant. A caller may say what it likes, and be another one with
    /// each call, unless [`authorize_calls`](crate::Server::authorize_calls) sees to it.
    Metadata(String),
}

impl CallerKey {
    /// Shorthand for [`CallerKey::Metadata`], without capitals, which no key has.
    pub fn metadata(key: impl Into<String>) -> CallerKey {
        CallerKey::Metadata(key.into().to_ascii_lowercase())
    }

    pub(crate) fn is_sound(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            CallerKey::Certificate => true,
            CallerKey::Address => true,
            CallerKey::Metadata(key) => is_metadata_key(key),
        }
    }

    /// A number for a caller. Nobody outside can find another caller with the same, since `random` is secret: names of
    /// any length are told apart in 8 bytes.
    pub(crate) fn number(
        &self,
        random: &RandomState,
        caller: impl FnOnce() -> Caller,
        extensions: &[u8],
    ) -> u64 {
        match self {
            #[cfg(feature = "tls")]
            CallerKey::Certificate => {
                let names = caller().identity.map(|of| (of.subject(), of.dns_names(), of.uris()));
                random.hash_one(names)
            }
            CallerKey::Address => random.hash_one(caller().address.map(|address| address.ip())),
            CallerKey::Metadata(key) => random.hash_one(Metadata::new(extensions).get(key)),
        }
    }
}
