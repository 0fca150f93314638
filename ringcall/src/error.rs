//! How calls and servers fail.

use std::convert::Infallible;
use std::fmt;

use ringcall_codec_rkyv::{BecomesError, HandlerError};
use ringcall_core::{ConfigError, Failure, TransportError};

use crate::serve::StartError;

/// Why a call did not give its value. These two are all that there is.
///
/// A [`Failure`] becomes one with `?`, whatever `E` is: that is what connecting and sending items fail with. Of a call whose
/// method has no error, `CallError<Infallible>`, it is what [`into_failure`](CallError::into_failure) gives. In a handler
/// it becomes a [`HandlerError`] with `?`.
///
/// # Text
///
/// It is printed if `E` is (`Display`), and an [`Error`](std::error::Error) then, too: what an error says to people is up to
/// who has made it. For messages that are not printed there is `{:?}`. The text is whole, with what `E` says, so there is
/// no [`source`](std::error::Error::source), which would be printed a second time by those who print all
/// sources; [`app`](CallError::app) is the error itself.
///
/// ```
/// # use ringcall::{CallError, Failure, Cause};
/// let error: CallError<String> = CallError::App("bad line 0: qty 0".to_owned());
/// assert_eq!(error.to_string(), "the handler answered with an error: bad line 0: qty 0");
/// assert_eq!(error.app().unwrap(), "bad line 0: qty 0");
/// let text = match error.map_app(|text| text.len()) {
///     CallError::App(len) => len.to_string(),
///     CallError::Failed(failure) => failure.to_string(),
/// };
/// # assert_eq!(text, "17");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// The handler's own error, if it answered with one.
    #[must_use]
    pub fn app(&self) -> Option<&E> {
        match self {
            CallError::App(error) => Some(error),
            CallError::Failed(_) => None,
        }
    }

    /// The handler's own error.
    ///
    /// # Errors
    /// The failure, unless the handler answered.
    pub fn into_app(self) -> Result<E, Failure> {
        match self {
            CallError::App(error) => Ok(error),
            CallError::Failed(failure) => Err(failure),
        }
    }

    /// With what `f` makes of the handler's own error, such as one of one's own.
    #[must_use]
    pub fn map_app<F>(self, f: impl FnOnce(E) -> F) -> CallError<F> {
        match self {
            CallError::App(error) => CallError::App(f(error)),
            CallError::Failed(failure) => CallError::Failed(failure),
        }
    }

    /// For a handler that has done nothing but make this call: if it certainly did not run, neither did the handler's own,
    /// see [`HandlerError::pass_on`]. `?` does not suppose that.
    #[must_use]
    pub fn pass_on(self) -> HandlerError<E> {
        match self {
            CallError::App(error) => HandlerError::App(error),
            CallError::Failed(failure) => HandlerError::pass_on(failure),
        }
    }
}

impl CallError<Infallible> {
    /// The failure: there is nothing else, since the method has no error.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            CallError::App(never) => match never {},
            CallError::Failed(failure) => failure,
        }
    }
}

impl<E> From<Failure> for CallError<E> {
    fn from(failure: Failure) -> CallError<E> {
        CallError::Failed(failure)
    }
}

impl From<CallError<Infallible>> for Failure {
    fn from(error: CallError<Infallible>) -> Failure {
        error.into_failure()
    }
}

/// A handler fails with what a call of its own has failed with: it answers with the other handler's error, if that is of the same
/// type, and if there is none its own call may have run, see [`HandlerError`].
impl<D: BecomesError<E>, E> From<CallError<D>> for HandlerError<E> {
    fn from(error: CallError<D>) -> HandlerError<E> {
        match error {
            CallError::App(error) => HandlerError::App(error.become_error()),
            CallError::Failed(failure) => failure.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::App(error) => write!(f, "the handler answered with an error: {error}"),
            CallError::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for CallError<E> {}

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
