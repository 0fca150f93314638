//! How it ends, and what it says then.

use std::fmt;
use std::io;
use std::process::ExitCode;

use ringcall::{
    CallError, Cause, CloseCode, CloseReason, Failure, Status, TlsFault, TransportError,
};
use ringcall_generic::{CatalogError, GenericError};
use serde_json::{Value, json};

/// How the tool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: what was asked for was done; a call has its reply.
    Done,
    /// 1: the handler answered with its own error.
    HandlerError,
    /// 2: a mistake in the arguments, in files, or in the argument of the call. Nothing was called.
    Misused,
    /// 3: the call has no answer of the handler.
    Failed,
    /// 4: nobody is there, or nobody who speaks ringcall.
    NotConnected,
    /// 5: the server was asked whether it, or a service, is ready, and it is not, or there is no such service.
    NotReady,
}

impl Exit {
    /// What the program returns.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::HandlerError => 1,
            Exit::Misused => 2,
            Exit::Failed => 3,
            Exit::NotConnected => 4,
            Exit::NotReady => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.code().into()
    }
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Problem {
    /// What was asked for makes no sense.
    Misused(String),
    /// A call has failed, or what a server says cannot be used.
    Failed {
        text: String,
        failure: Option<Failure>,
    },
    NotConnected(String),
    /// Nobody reads any more what is written.
    ReaderGone,
}

impl Problem {
    pub(crate) fn misused(text: impl fmt::Display) -> Problem {
        Problem::Misused(text.to_string())
    }

    /// A call has failed.
    pub(crate) fn call(method: &str, failure: Failure) -> Problem {
        let text = format!("{method}: {}; {}", told(&failure), whether_it_ran(&failure));
        Problem::Failed { text, failure: Some(failure) }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Problem::Misused(_) => Exit::Misused,
            Problem::Failed { .. } => Exit::Failed,
            Problem::NotConnected(_) => Exit::NotConnected,
            Problem::ReaderGone => Exit::Done,
        }
    }

    /// For `--json`: an object with the one key `failure`.
    pub(crate) fn as_json(&self) -> Value {
        let mut said = json!({ "exit": self.exit().code(), "text": self.to_string() });
        if let Problem::Failed { failure: Some(failure), .. } = self {
            said["cause"] = cause(failure).into();
            said["may_have_run"] = (!failure.is_safe_to_retry()).into();
            if let Some(after) = failure.retry_after() {
                said["retry_after_ms"] = (after.as_millis() as u64).into();
            }
        }
        json!({ "failure": said })
    }
}

/// What happened, and what to do about it: with the tool's options where the library's text would name settings that
/// nobody has here.
pub(crate) fn told(failure: &Failure) -> String {
    if failure.is_expired() {
        return "there was no answer in time, which is what `--deadline` says".to_owned();
    }
    let reason = match failure.cause {
        Cause::Closed(reason) => reason,
        Cause::NoInstance { .. } => {
            return "the registry has no instance of the service any more that can be called"
                .into();
        }
        cause => return cause.to_string(),
    };
    let instead = match reason {
        CloseReason::PeerSpeaksTls => {
            "the server speaks TLS: add `--tls`, and `--ca FILE` for an authority of your own"
        }
        CloseReason::PeerSpeaksPlaintext | CloseReason::Tls(TlsFault::Unanswered) => {
            "the server ended the connection instead of answering: unless it speaks TLS, leave out `--tls`"
        }
        CloseReason::GoAway(CloseCode::DENIED) => {
            "the server does not accept who this is: show it `--credentials FILE`, or `--cert FILE --key FILE`"
        }
        CloseReason::Transport(TransportError::Unresolved) => {
            "the host's name has no address, or cannot be looked up: is it spelled right?"
        }
        CloseReason::Tls(TlsFault::CertificateUnknownIssuer) => {
            return format!("{reason}; `--ca FILE` says whom to trust");
        }
        CloseReason::Tls(TlsFault::CertificateWrongName) => {
            return format!("{reason}; `--tls-name NAME` says which name it has");
        }
        reason => return reason.to_string(),
    };
    instead.to_owned()
}

pub(crate) fn whether_it_ran(failure: &Failure) -> &'static str {
    match failure.is_safe_to_retry() {
        true => "it did not run",
        false => "it may have run",
    }
}

/// A word for what failed, of which there are few.
pub(crate) fn cause(failure: &Failure) -> &'static str {
    match failure.status() {
        Some(status) => status.name().unwrap_or("unknown status"),
        None => failure.cause.as_str(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Misused(text) | Problem::NotConnected(text) => f.write_str(text),
            Problem::Failed { text, .. } => f.write_str(text),
            Problem::ReaderGone => f.write_str("nobody reads what is written"),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Problem {
        let failure = match &error {
            CatalogError::NotTold(CallError::Failed(failure)) => Some(*failure),
            _ => None,
        };
        let text = match failure {
            Some(failure) if failure.status() != Some(Status::UNKNOWN_METHOD) => {
                format!("the server did not say what it serves: {}", told(&failure))
            }
            _ => error.to_string(),
        };
        Problem::Failed { text, failure }
    }
}

impl From<GenericError> for Problem {
    fn from(error: GenericError) -> Problem {
        Problem::misused(error)
    }
}

/// Of writing what was found out.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Problem::ReaderGone,
            _ => Problem::misused(format_args!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcall::Missing;

    #[test]
    fn what_is_told_names_no_setting_of_the_library() {
        for why in [Missing::NoneKnown, Missing::Weightless] {
            let text = told(&Failure::not_sent(Cause::no_instance(why)));
            assert!(text.contains("registry") && !text.contains('`'), "{text}");
        }
    }
}
