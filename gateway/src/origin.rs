//! Whom a request comes from, as far as a browser tells, and which host it is for.

use http::request::Parts;
use http::uri::Authority;
use http::{StatusCode, header};

use crate::GatewayConfig;
use crate::problem::Problem;

/// Whether it is for one of the hosts that there are.
pub(crate) fn expect_host(parts: &Parts, config: &GatewayConfig) -> Result<(), Problem> {
    let host = host(parts);
    let host = host.as_ref().map_or("", Authority::host);
    if config.hosts.is_empty() || config.hosts.iter().any(|it| it.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    let message = "this gateway does not answer for that host: name it in `GatewayConfig::hosts`, or with --host";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message))
}

/// Whether it is no page of somebody else that makes this call in its reader's name.
pub(crate) fn expect_same_site(parts: &Parts, config: &GatewayConfig) -> Result<(), Problem> {
    if config.cross_site || is_same_site(parts) {
        return Ok(());
    }
    let message = "pages of other origins may not make calls here, unless `GatewayConfig::cross_site` or --cross-site says so";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", message))
}

fn is_same_site(parts: &Parts) -> bool {
    let said = parts.headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let Some(said) = said else {
        // An old browser, or none.
        let Some(origin) = parts.headers.get(header::ORIGIN) else { return true };
        let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
        return origin
            .and_then(|(_, of)| of.parse::<Authority>().ok())
            .is_some_and(|origin| host(parts).is_some_and(|host| host == origin));
    };
    matches!(said, b"same-origin" | b"none")
}

fn host(parts: &Parts) -> Option<Authority> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => parts.headers.get(header::HOST)?.to_str().ok()?.parse().ok(),
    }
}
