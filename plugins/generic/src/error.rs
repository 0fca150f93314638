//! What can be wrong with a call, and with what a server says of itself.

use std::borrow::Cow;
use std::fmt;

use ringcall::reflection::NoSuchService;
use ringcall::{CallError, Cause, Status};
use serde_json::Value;

/// A value that is not of its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where it is: `legs[2].size`; empty for the whole of it.
    pub path: String,
    /// What is expected there, and what is there, for people.
    pub reason: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.reason),
            false => write!(f, "`{}`: {}", self.path, self.reason),
        }
    }
}

impl std::error::Error for Mismatch {}

/// Why a call cannot be made of a method's name and a value. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenericError {
    /// The server has no such method. Those that it has are named like this one.
    NoSuchMethod {
        /// What was asked for.
        method: String,
        /// What there is instead.
        alike: Vec<String>,
    },
    /// What the server says of the method's types cannot be understood, see [`Catalog::not_understood`].
    ///
    /// [`Catalog::not_understood`]: crate::Catalog::not_understood
    NotUnderstood {
        /// Its name.
        method: String,
    },
    /// The server says that it has a method of a name that none can have.
    BadName {
        /// The name.
        method: String,
    },
    /// The method takes or gives a stream: [`GenericStreams`](crate::GenericStreams) are for it.
    HasStreams {
        /// Its name.
        method: String,
    },
    /// The method takes and gives no stream: [`GenericCall`](crate::GenericCall) is for it.
    NoStreams {
        /// Its name.
        method: String,
    },
    /// The argument is not of the method's type.
    BadArgument {
        /// The method.
        method: String,
        /// What is wrong.
        mismatch: Mismatch,
    },
}

impl fmt::Display for GenericError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenericError::NoSuchMethod { method, alike } if alike.is_empty() => {
                write!(f, "the server has no method {}", shorten(method))
            }
            GenericError::NoSuchMethod { method, alike } => {
                let (method, alike) = (shorten(method), alike.join(", "));
                write!(f, "the server has no method {method}; it has {alike}")
            }
            GenericError::NotUnderstood { method } => {
                let method = shorten(method);
                write!(
                    f,
                    "what the server says of the types of {method} cannot be understood: it may be newer"
                )
            }
            GenericError::BadName { method } => {
                let method = shorten(method);
                write!(
                    f,
                    "{method} is not the name of a method: one is called `package.Service/method`"
                )
            }
            GenericError::HasStreams { method } => {
                write!(f, "{method} has streams, and is to be opened, not called")
            }
            GenericError::NoStreams { method } => {
                write!(f, "{method} has no streams, and is to be called, not opened")
            }
            GenericError::BadArgument { method, mismatch } => write!(f, "{method}: {mismatch}"),
        }
    }
}

impl std::error::Error for GenericError {}

/// Why it is not known what a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogError {
    /// It was asked, and did not say.
    NotTold(CallError<NoSuchService>),
    /// It has more services than are asked for, which is 4096.
    TooMany,
    /// What it says of them is more than is kept, which is 16 MiB.
    TooLarge,
}

impl From<CallError<NoSuchService>> for CatalogError {
    fn from(error: CallError<NoSuchService>) -> CatalogError {
        CatalogError::NotTold(error)
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogError::NotTold(CallError::Failed(failure))
                if failure.cause == Cause::Status(Status::UNKNOWN_METHOD) =>
            {
                f.write_str(
                    "the server does not say what it serves: it has to offer `ringcall.Reflection`, by \
                     `.service(ringcall::reflection::Interface.into_reflection())`",
                )
            }
            CatalogError::NotTold(error) => {
                write!(f, "the server did not say what it serves: {error}")
            }
            CatalogError::TooMany => f.write_str("the server says that it has more than 4096 services"),
            CatalogError::TooLarge => {
                f.write_str("what the server says of its services is more than 16 MiB")
            }
        }
    }
}

impl std::error::Error for CatalogError {}

/// A text as it is shown where it is wrong: not all of a long one.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The same of a value.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "an object".to_owned(),
        value => shorten(&value.to_string()).into_owned(),
    }
}
