//! What is answered in place of a reply.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use ringcall::{Cause, Failure, Status, StatusClass};
use serde_json::{Value, json};

use crate::answer::json_response;

/// Why there is no reply.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    message: Box<str>,
    /// Where the argument or the item is wrong.
    field: Option<Box<str>>,
    /// The line of the body that is wrong.
    line: Option<u64>,
    may_have_run: bool,
    retry_after: Option<Duration>,
    /// Which methods of HTTP there are instead.
    allow: Option<&'static str>,
}

impl Problem {
    /// Of a request that did not become a call.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            status,
            code: code.into(),
            message: message.into().into(),
            field: None,
            line: None,
            may_have_run: false,
            retry_after: None,
            allow: None,
        }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_allowed(allow: &'static str) -> Problem {
        let message = format!("this is for {allow} only");
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        Problem { allow: Some(allow), ..problem }
    }

    pub(crate) fn field(self, field: String) -> Problem {
        Problem { field: Some(field.into()), ..self }
    }

    pub(crate) fn line(self, number: u64) -> Problem {
        Problem { line: Some(number), ..self }
    }

    /// Of a request whose call was made already.
    pub(crate) fn after_call(self) -> Problem {
        Problem { may_have_run: true, ..self }
    }

    pub(crate) fn retry_after(self, time: Duration) -> Problem {
        Problem { retry_after: Some(time), ..self }
    }

    /// Of a call without an answer of its handler.
    pub(crate) fn failed(failure: &Failure) -> Problem {
        let message = match failure.is_expired() {
            // What ringcall says names what its own callers have.
            true => {
                format!("the call's time was over ({}): x-deadline gives it more", failure.class)
            }
            false => failure.to_string(),
        };
        Problem {
            status: http_status(failure),
            code: code(failure),
            message: message.into(),
            field: None,
            line: None,
            may_have_run: !failure.is_safe_to_retry(),
            retry_after: failure.retry_after(),
            allow: None,
        }
    }

    /// What is said of it, in a body of its own or in the last line of an answer.
    pub(crate) fn to_json(&self) -> Value {
        let mut body = json!({
            "code": self.code, "message": self.message, "may_have_run": self.may_have_run,
        });
        if let Some(field) = &self.field {
            body["field"] = (**field).into();
        }
        if let Some(line) = self.line {
            body["line"] = line.into();
        }
        if let Some(time) = self.retry_after {
            body["retry_after_ms"] = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into();
        }
        body
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = json_response(self.status, &self.to_json());
        if let Some(time) = self.retry_after {
            // It has whole seconds: nobody is to come too early.
            let seconds = time.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// A word for the failure that does not change: the name of the status, if the server gave one.
fn code(failure: &Failure) -> Cow<'static, str> {
    match failure.status() {
        Some(status) => status.name().map_or("status".into(), |name| name.to_lowercase().into()),
        None => failure.cause.as_str().into(),
    }
}

/// The caller gave up: no status of the standard, but what others log for it.
fn gone() -> StatusCode {
    StatusCode::from_u16(499).expect("three digits")
}

/// The status of HTTP that a failure is answered with, for services of HTTP of one's own. The page `docs/GATEWAY.md` has it as a
/// table.
///
/// Whoever is told 429 or 503 may try again: such a call did not run. Where it may have run, the status is another one.
#[must_use]
pub fn http_status(failure: &Failure) -> StatusCode {
    let status = match failure.cause {
        Cause::Status(status) => of_status(status),
        Cause::Expired => StatusCode::GATEWAY_TIMEOUT,
        Cause::Cancelled => gone(),
        Cause::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        // Of an answer, if the call may have run.
        Cause::TooMuchMetadata if failure.is_safe_to_retry() => {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        }
        Cause::TooMuchMetadata | Cause::BadReply | Cause::StreamEnded => StatusCode::BAD_GATEWAY,
        Cause::Encode | Cause::Unreadable(_) | Cause::Unwritable(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        // Not reached, or not now: the connection, its limits, or a balanced channel's.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            if !failure.is_safe_to_retry() =>
        {
            StatusCode::BAD_GATEWAY
        }
        status => status,
    }
}

fn of_status(status: Status) -> StatusCode {
    match status {
        Status::UNKNOWN_METHOD => StatusCode::NOT_FOUND,
        Status::BAD_BODY => StatusCode::BAD_REQUEST,
        Status::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        Status::FORBIDDEN => StatusCode::FORBIDDEN,
        Status::RATE_LIMITED => StatusCode::TOO_MANY_REQUESTS,
        Status::EXPIRED | Status::EXPIRED_RUNNING => StatusCode::GATEWAY_TIMEOUT,
        Status::CANCELLED | Status::CANCELLED_RUNNING => gone(),
        Status::TOO_MUCH_METADATA => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Status::UNSUPPORTED | Status::UNKNOWN_CODEC => StatusCode::NOT_IMPLEMENTED,
        Status::INTERNAL => StatusCode::INTERNAL_SERVER_ERROR,
        // What the gateway said to the server made no sense there.
        Status::SHAPE_MISMATCH | Status::BAD_REQUEST => StatusCode::BAD_GATEWAY,
        status if status.class() == StatusClass::Refused => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}
