//! What a request says: which method, how, and its body.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use ringcall::{TraceContext, UntypedCall, is_method_name};

use crate::GatewayConfig;
use crate::problem::Problem;

/// How long the call may take.
const DEADLINE: HeaderName = HeaderName::from_static("x-deadline");
const GROUP: HeaderName = HeaderName::from_static("x-ringcall-group");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Of a name of a service and a method; longer ones there are none.
const NAME_BYTES_MAX: usize = 512;
const KEY_BYTES_MAX: usize = 256;

/// The full name of a method that a path names, `/package.Service/method`.
pub(crate) fn method_name(path: &str) -> Option<String> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    // A path is its text with three characters for one, at most.
    if path.len() > 3 * NAME_BYTES_MAX {
        return None;
    }
    let decode = |part| percent_decode_str(part).decode_utf8().ok();
    let name = format!("{}/{}", decode(service)?, decode(method)?);
    is_method_name(&name).then_some(name)
}

/// What the headers say of a call.
#[derive(Debug, Default)]
pub(crate) struct CallHeaders {
    pub(crate) deadline: Option<Duration>,
    trace: Option<TraceContext>,
    group: Option<String>,
    idempotency_key: Option<Vec<u8>>,
    metadata: Vec<(String, Vec<u8>)>,
}

impl CallHeaders {
    pub(crate) fn read(
        headers: &HeaderMap,
        config: &GatewayConfig,
    ) -> Result<CallHeaders, Problem> {
        let mut metadata = Vec::new();
        for (name, value) in headers {
            let key = match name.as_str().strip_prefix(&config.metadata_prefix) {
                Some(key) => key,
                None if config.forwarded_headers.contains(name) => name.as_str(),
                None => continue,
            };
            metadata.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        Ok(CallHeaders {
            deadline: single(headers, &DEADLINE)?.map(deadline).transpose()?,
            // As W3C wants it, what is no trace begins none.
            trace: headers.get(TRACEPARENT).and_then(|it| it.to_str().ok()?.parse().ok()),
            group: single(headers, &GROUP)?.map(group).transpose()?,
            idempotency_key: single(headers, &IDEMPOTENCY_KEY)?.map(key).transpose()?,
            metadata,
        })
    }

    /// Says it of the call.
    pub(crate) fn apply<'a, C: ringcall::Channel>(
        self,
        mut call: UntypedCall<'a, C>,
    ) -> Result<UntypedCall<'a, C>, Problem> {
        if let Some(trace) = &self.trace {
            call = call.trace(trace);
        }
        if let Some(group) = &self.group {
            call = call.group(group);
        }
        if let Some(key) = &self.idempotency_key {
            call = call.idempotency_key(key);
        }
        for (key, value) in &self.metadata {
            let added = call.try_metadata(key, value);
            call = added.map_err(|bad| Problem::bad_request("bad_header", bad.to_string()))?;
        }
        Ok(call)
    }
}

/// A header that may be there once.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => {
            Err(Problem::bad_request("bad_header", format!("{name} is there more than once")))
        }
        (value, None) => Ok(value),
    }
}

fn deadline(value: &HeaderValue) -> Result<Duration, Problem> {
    let time = value.to_str().ok().and_then(|text| humantime::parse_duration(text.trim()).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| {
        let message = "x-deadline must be a time with its unit, such as 250ms, 2s or 1m";
        Problem::bad_request("bad_header", message)
    })
}

fn group(value: &HeaderValue) -> Result<String, Problem> {
    let group = value.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()));
    group.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request("bad_header", "x-ringcall-group must be 1 to 256 characters of ASCII")
    })
}

fn key(value: &HeaderValue) -> Result<Vec<u8>, Problem> {
    let key = Some(value.as_bytes()).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.map(<[u8]>::to_vec)
        .ok_or_else(|| Problem::bad_request("bad_header", "idempotency-key must be 1 to 256 bytes"))
}

/// The body of a call, which must be of this type.
pub(crate) async fn body<B>(
    parts: &Parts,
    body: B,
    kind: &HeaderValue,
    config: &GatewayConfig,
) -> Result<Bytes, Problem>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let too_large = || {
        let message = format!(
            "the body is longer than the {} bytes that are taken (`GatewayConfig::body_bytes_max`)",
            config.body_bytes_max
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    expect_type(parts, &body, std::slice::from_ref(kind))?;
    if body.size_hint().lower() > config.body_bytes_max as u64 {
        return Err(too_large());
    }
    let body = std::pin::pin!(body);
    let reading = Limited::new(body, config.body_bytes_max).collect();
    match tokio::time::timeout(config.read_timeout, reading).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let message = format!("the body did not come whole: {error}");
            Err(Problem::bad_request("bad_body", message))
        }
        Err(_) => {
            let message = "the body took longer than `GatewayConfig::read_timeout`";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
        }
    }
}

/// Whether it says that it is what is taken: one of these, of which the first is named. Without a body nothing need be said.
pub(crate) fn expect_type(
    parts: &Parts,
    body: &impl Body,
    kinds: &[HeaderValue],
) -> Result<(), Problem> {
    expect_plain(&parts.headers)?;
    match !body.is_end_stream() || parts.headers.contains_key(header::CONTENT_TYPE) {
        true => expect_kind(&parts.headers, kinds),
        false => Ok(()),
    }
}

fn expect_plain(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let message = "compressed bodies are not taken: send it without content-encoding";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
        }
        _ => Ok(()),
    }
}

/// Also so that a form on somebody's page cannot make a call: it has no such type.
fn expect_kind(headers: &HeaderMap, kinds: &[HeaderValue]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let given = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if kinds.iter().any(|kind| given.eq_ignore_ascii_case(kind.as_bytes())) {
        return Ok(());
    }
    let kind = kinds.first().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let message = format!("the method takes {kind}: say so with `content-type: {kind}`");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}
