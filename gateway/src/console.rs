//! The page that lists what there is and calls it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::answer::response;
use crate::gateway::header_value;

const PAGE: &str = include_str!("console.html");

/// Its own script and style, and requests to where it comes from: nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (script, style) = (hash("script"), hash("style"));
    header_value(format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ))
});

pub(crate) fn page() -> Response<Bytes> {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let mut page = response(StatusCode::OK, kind, Bytes::from_static(PAGE.as_bytes()));
    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    let referrer = HeaderName::from_static("referrer-policy");
    page.headers_mut().insert(referrer, HeaderValue::from_static("no-referrer"));
    page
}

/// Of what is in the one element of this name.
fn hash(element: &str) -> String {
    let inside = PAGE.split_once(&format!("<{element}>")).expect("the page has one").1;
    let inside = inside.split_once(&format!("</{element}>")).expect("it ends").0;
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inside)))
}
