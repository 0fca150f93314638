//! What the console reads.

use ringcall::Streams;
use ringcall_generic::{Catalog, Method, Service};
use serde_json::{Value, json};

use crate::GatewayConfig;

pub(crate) fn listing(catalog: &Catalog, config: &GatewayConfig) -> Value {
    let services: Vec<_> = catalog.services().iter().map(service).collect();
    json!({
        "title": config.title,
        "metadata_prefix": config.metadata_prefix,
        "deadline_ms": millis(config.deadline),
        "deadline_max_ms": millis(config.deadline_max),
        "services": services,
    })
}

fn service(service: &Service) -> Value {
    let methods: Vec<_> = service.methods().iter().map(method).collect();
    json!({ "name": service.name(), "docs": docs(service.docs()), "methods": methods })
}

fn method(method: &Method) -> Value {
    json!({
        "name": method.name(),
        "full_name": method.full_name(),
        "docs": docs(method.docs()),
        "signature": method.signature(),
        "example": method.example(),
        "deadline_ms": method.deadline().map(millis),
        "is_one_way": method.is_one_way(),
        "is_idempotent": method.is_idempotent(),
        "streams": method.streams().map(which),
        "example_item": method.example_item(),
        "takes_bytes": method.argument().is_leaf("raw"),
        "gives_bytes": method.reply().is_leaf("raw"),
    })
}

/// The word for it here and in the document.
pub(crate) fn which(streams: Streams) -> &'static str {
    match streams {
        Streams::In => "in",
        Streams::Out => "out",
        Streams::Both => "both",
    }
}

pub(crate) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A doc comment without the space that stands in front of each of its lines.
pub(crate) fn docs(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_owned()
}
