//! Calls as spans of `tracing`, with W3C trace context.
//!
//! [`Spans`] is an [`Observer`]: name it to servers, shards and clients, and each call that is made or served is
//! a span of target `ringcall`, from its beginning to its end. Its fields follow OpenTelemetry's conventions for
//! remote procedure calls:
//!
//! | field | |
//! |---|---|
//! | `otel.kind`, `otel.name`, `otel.status_code` | `client` or `server`; `package.Service/method`; `ERROR` for a failure |
//! | `rpc.system`, `rpc.service`, `rpc.method` | `ringcall`, and the two parts of the name |
//! | `network.peer.address`, `network.peer.port` | the other side, if its address says something |
//! | `error.type` | the [class](ringcall::observe::Class) of an end that is no success |
//! | `rpc.response.status_code` | the status, as a number, if there was one |
//! | `ringcall.queued_us`, `ringcall.handled_us` | how long it waited at the server, and was handled |
//! | `rpc.request.size`, `rpc.response.size` | in bytes |
//! | `trace_id`, `span_id`, `parent_span_id` | W3C trace context, in hexadecimal |
//!
//! A call that is made is a child of the span that is current where it is made. A client's call carries the trace
//! context of its span to the server, whose span has the same `trace_id` and the client's span as its
//! `parent_span_id`, so that a collector puts them together. A call that has a context already, since a handler
//! hands its own down, stays in that trace.
//!
//! Neither bodies nor metadata are in a span.
//!
//! ```
//! use std::sync::Arc;
//!
//! let server = ringcall::Server::bind("127.0.0.1:0").observer(Arc::new(ringcall_tracing::Spans::new()));
//! ```

#![forbid(unsafe_code)]

mod context;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use context::TraceParent;
use parking_lot::Mutex;
use ringcall::Address;
use ringcall::observe::{Call, CallEnd, Class, Event, Observer, Role};
use tracing::field::Empty;
use tracing::{Span, info_span};

/// Makes a span of each call.
#[derive(Default)]
pub struct Spans {
    /// Those of calls that have not ended, by number. Each shard has its own.
    open: Mutex<HashMap<u64, (Span, TraceParent)>>,
}

impl Spans {
    /// Without calls.
    #[must_use]
    pub fn new() -> Spans {
        Spans::default()
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("open", &self.open.lock().len()).finish()
    }
}

impl Observer for Spans {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::CallBegun(call) => {
                let begun = begin(call);
                self.open.lock().insert(call.number, begun);
            }
            Event::CallRepeated(call) => {
                if let Some((span, _)) = self.open.lock().get(&call.number) {
                    tracing::info!(parent: span, "made again on another connection");
                }
            }
            Event::CallEnded(call, ended) => {
                let open = self.open.lock().remove(&call.number);
                if let Some((span, _)) = open {
                    end(&span, ended);
                }
            }
            _ => {}
        }
    }

    fn for_shard(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(Spans::new()))
    }

    fn trace_context(&self, call: u64) -> Option<[u8; 26]> {
        self.open.lock().get(&call).map(|(_, context)| context.to_bytes())
    }
}

fn begin(call: &Call<'_>) -> (Span, TraceParent) {
    let parent = call.trace_context.and_then(TraceParent::from_bytes);
    let context = TraceParent::child_of(parent.as_ref());
    let name = call.method_name().unwrap_or("unknown/unknown");
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let kind = if call.role == Role::Server { "server" } else { "client" };
    let span = info_span!(
        target: "ringcall",
        "call",
        otel.name = name,
        otel.kind = kind,
        otel.status_code = Empty,
        rpc.system = "ringcall",
        rpc.service = service,
        rpc.method = method,
        rpc.request.size = Empty,
        rpc.response.size = Empty,
        rpc.response.status_code = Empty,
        network.peer.address = Empty,
        network.peer.port = Empty,
        error.type = Empty,
        ringcall.queued_us = Empty,
        ringcall.handled_us = Empty,
        trace_id = %context.trace_id(),
        span_id = %context.span_id(),
        parent_span_id = Empty,
    );
    if let Some(parent) = parent {
        span.record("parent_span_id", tracing::field::display(parent.span_id()));
    }
    match call.peer {
        Some(Address::Tcp(address)) => {
            span.record("network.peer.address", tracing::field::display(address.ip()));
            span.record("network.peer.port", address.port());
        }
        Some(Address::Unix(path)) => {
            span.record("network.peer.address", &path[..]);
        }
        _ => {}
    }
    (span, context)
}

fn end(span: &Span, ended: &CallEnd) {
    let class = ended.end.class();
    if class != Class::Ok {
        span.record("error.type", class.name());
    }
    // A handler's own error is an answer like any other.
    if !matches!(class, Class::Ok | Class::Application) {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(status) = ended.end.status() {
        span.record("rpc.response.status_code", status.to_wire());
    }
    span.record("rpc.request.size", ended.request_bytes);
    span.record("rpc.response.size", ended.reply_bytes);
    span.record("ringcall.queued_us", ended.queued.as_micros() as u64);
    span.record("ringcall.handled_us", ended.handled.as_micros() as u64);
}
