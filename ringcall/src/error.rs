//! How calls and servers fail.

use std::convert::Infallible;
use std::fmt;

use ringcall_core::{ConfigError, Failure, TransportError};

use crate::serve::StartError;

/// Why a call did not give its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError<E = Infallible> {
    /// The handler ran and answered with its own error.
    App(E),
    /// There is no answer of the handler; says why, and whether it may have run.
    Failed(Failure),
}

impl<E> CallError<E> {
    /// Whether the call certainly did not run, so that trying again cannot do anything twice. For a
    /// method that is idempotent, trying again is always safe.
    #[must_use]
    pub fn is_safe_to_retry(&self) -> bool {
        match self {
            CallError::App(_) => false,
            CallError::Failed(failure) => failure.is_safe_to_retry(),
        }
    }

    /// The failure, unless the handler answered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            CallError::App(_) => None,
            CallError::Failed(failure) => Some(failure),
        }
    }
}

impl<E> From<Failure> for CallError<E> {
    fn from(failure: Failure) -> CallError<E> {
        CallError::Failed(failure)
    }
}

impl<E: fmt::Debug> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::App(error) => write!(f, "the handler answered with an error: {error:?}"),
            CallError::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

impl<E: fmt::Debug> std::error::Error for CallError<E> {}

/// Why a server or a shard could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be understood or resolved.
    Address {
        /// What was asked for.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address cannot be listened at.
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        error: TransportError,
    },
    /// The engine could not be set up.
    Engine {
        /// Why, and what to do.
        reason: String,
    },
    /// A setting makes no sense.
    Config(ConfigError),
    /// A setting of [`Limits`](crate::limits::Limits) makes no sense.
    Limits {
        /// Which one.
        setting: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// There is a limit for a method or a service that does not exist, or its answers should be kept.
    UnknownMethod {
        /// Its name.
        method: String,
    },
    /// Two methods have the same number on the wire.
    MethodTaken {
        /// The one that came second.
        method: String,
        /// The one that has it.
        by: String,
    },
    /// The settings of [`Deduplication`](crate::Deduplication) make no sense.
    Deduplication,
    /// A thread could not be started.
    Thread(std::io::Error),
    /// A hook of [`Server::on_start`](crate::Server::on_start) failed, or what it is given could not be made.
    Start(StartError),
    /// A registry that the server was to be [registered](crate::Server::register) with failed.
    Register(StartError),
    /// A closure of [`Server::service_per_shard`](crate::Server::service_per_shard) panicked.
    Panicked,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Address { address, reason } => {
                write!(f, "cannot use the address {address:?}: {reason}")
            }
            ServeError::Listen { address, error } => {
                write!(f, "cannot listen at {address}: {error}")
            }
            ServeError::Engine { reason } => write!(f, "cannot set up the engine: {reason}"),
            ServeError::Config(error) => write!(f, "{error}"),
            ServeError::Limits { setting, must } => {
                write!(f, "`Limits::{setting}` must be {must}")
            }
            ServeError::UnknownMethod { method } => write!(
                f,
                "there is a setting for {method}, which is not served: names are `package.Service/method`, or \
                 `package.Service`"
            ),
            ServeError::MethodTaken { method, by } => write!(
                f,
                "the method {method} has the number of {by}: was a service added twice? Otherwise rename one, \
                 `#[method(name = \"…\")]`"
            ),
            ServeError::Deduplication => f.write_str(
                "`Deduplication` must have a window and entries of more than 0, one answer of 1 byte up to what all may have, \
                 and a key that metadata can have",
            ),
            ServeError::Thread(error) => write!(f, "cannot start a thread: {error}"),
            ServeError::Start(error) => write!(f, "it was not ready to serve: {error}"),
            ServeError::Register(error) => write!(f, "it could not be registered: {error}"),
            ServeError::Panicked => f.write_str("a shard panicked while its services were made"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> ServeError {
        ServeError::Config(error)
    }
}
