//! Responses, and what hangs on their bytes until they have left.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use ringcall::Metadata;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::GatewayBody;
use crate::body::Lines;
use crate::watch::Running;

/// A response, and the place of its call.
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
    /// What comes after that, if it is not all.
    pub(crate) lines: Option<Lines>,
    /// Held until the bytes are let go of, so that answers that nobody reads are bounded as calls are.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Answer {
        Answer { response, lines: None, permit: None }
    }
}

impl Answer {
    /// With all that hangs on its body.
    pub(crate) fn into_response(self, running: Option<Running>) -> Response<GatewayBody> {
        let Answer { response, lines, permit } = self;
        response.map(|bytes| match lines {
            Some(lines) => GatewayBody::lines(lines.kept_by(permit, running)),
            None => GatewayBody::whole(held(bytes, (permit, running.map(Running::answered)))),
        })
    }
}

/// Bytes, and what lives as long as they do.
struct Held<T>(Bytes, T);

impl<T> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Keeps something until these bytes, and all that was cut out of them, are gone.
pub(crate) fn held<T: Send + 'static>(bytes: Bytes, by: T) -> Bytes {
    Bytes::from_owner(Held(bytes, by))
}

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub(crate) const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Another name of the same.
pub(crate) const JSONL: HeaderValue = HeaderValue::from_static("application/jsonl");

pub(crate) fn response(status: StatusCode, kind: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A browser is not to guess that somebody's bytes are a page, nor to give them to other pages.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    response(status, JSON, body.to_string().into())
}

/// Metadata of an answer as headers. What no header can have, such as the end of a line, is left out.
pub(crate) fn add_metadata<B: AsRef<[u8]>>(
    response: &mut Response<Bytes>,
    prefix: &str,
    metadata: &Metadata<B>,
) {
    for (key, value) in metadata.iter() {
        let name = HeaderName::try_from(format!("{prefix}{key}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            // A map of headers is full at 32 Ki.
            if response.headers_mut().try_append(name, value).is_err() {
                return;
            }
        }
    }
}
