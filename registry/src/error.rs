//! Why something that asks a registry cannot be started.

use std::fmt;
use std::io;

/// Why something that asks nodes of a registry, or for shares of a quota, was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no address to ask at.
    NoAddress,
    /// One of the addresses cannot be understood: it would be asked in vain for ever.
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What no setting of a centre can be called: a key has 1 to 256 bytes and no control characters.
    Key {
        /// What was given.
        key: String,
    },
    /// A thread or its shard could not be started, or a setting of these makes no sense.
    Start(io::Error),
    /// A setting of the channel makes no sense.
    Setting(ringcall::cluster::BadSetting),
    /// The thread of all clients could not be started.
    Clients(ringcall::TransportError),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::NoAddress => f.write_str("a registry has at least one address"),
            RegistryError::Address { address, reason } => {
                write!(f, "cannot use the address {address:?} of a registry: {reason}")
            }
            RegistryError::Key { key } => {
                let key: String = key.chars().take(100).collect();
                write!(f, "{key:?} is no key: one has 1 to 256 bytes and no control characters")
            }
            RegistryError::Start(error) => write!(f, "cannot begin to ask a registry: {error}"),
            RegistryError::Setting(bad) => write!(f, "{bad}"),
            RegistryError::Clients(error) => {
                write!(f, "cannot start the thread of all clients: {error}")
            }
        }
    }
}

impl std::error::Error for RegistryError {}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> RegistryError {
        RegistryError::Start(error)
    }
}
