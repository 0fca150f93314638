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
//! `parent_span_id`, so that a collector puts them together.
//!
//! Handlers, and the filters before them, run in the span of their call, wherever that is: what they log belongs to
//! it, and the calls that they make are its children, by whichever client. A task that a handler spawns runs in it
//! if the handler gives it [`Span::current`]. A call that says a trace of its own ([`Call::trace`]) stays in that.
//!
//! [`Call::trace`]: ringcall::Call::trace
//!
//! Neither bodies nor metadata are in a span.
//!
//! With the feature `opentelemetry`, [`Spans::opentelemetry`] sends the ids of OpenTelemetry's spans along, so that an
//! exporter shows one trace from the first caller to the last server: `examples/otlp`.
//!
//! ```
//! use std::sync::Arc;
//!
//! let server = ringcall::Server::bind("127.0.0.1:0").observer(Arc::new(ringcall_tracing::Spans::new()));
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "opentelemetry")]
mod otel;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use ringcall::observe::{Call, CallEnd, Class, Event, Observer, Role, Scope};
use ringcall::{Address, TraceContext};
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

/// Makes a span of each call.
#[derive(Default)]
pub struct Spans {
    ids: Ids,
    /// Those of calls that have not ended, by number. Each shard has its own. Whatever is done with a span calls
    /// into the program's subscriber, which may do anything, so never while this is locked.
    open: Mutex<HashMap<u64, Arc<Open>>>,
}

/// The span of a call that has not ended.
struct Open {
    span: Span,
    context: TraceContext,
}

/// Where the ids of spans come from.
#[derive(Clone, Copy, Debug, Default)]
enum Ids {
    #[default]
    Own,
    #[cfg(feature = "opentelemetry")]
    OpenTelemetry,
}

impl Spans {
    /// Spans with ids of their own, for subscribers that keep their fields.
    #[must_use]
    pub fn new() -> Spans {
        Spans::default()
    }

    /// Spans whose ids are those that the layer of `tracing-opentelemetry` has for them. The parent of a call
    /// that is served is the span of whoever called, that of a call that is made the current span, whichever it
    /// is. Without that layer in the subscriber, as [`new`](Self::new).
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn opentelemetry() -> Spans {
        Spans { ids: Ids::OpenTelemetry, open: Mutex::default() }
    }

    fn of(&self, call: u64) -> Option<Arc<Open>> {
        self.open.lock().get(&call).cloned()
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
                let begun = Arc::new(begin(call, self.ids));
                let before = self.open.lock().insert(call.number, begun);
                drop(before);
            }
            Event::CallRepeated(call) => {
                if let Some(open) = self.of(call.number) {
                    tracing::info!(parent: &open.span, "made again on another connection");
                }
            }
            Event::CallEnded(call, ended) => {
                let open = self.open.lock().remove(&call.number);
                if let Some(open) = open {
                    end(&open.span, ended);
                }
            }
            _ => {}
        }
    }

    fn for_shard(&self) -> Option<Arc<dyn Observer>> {
        Some(Arc::new(Spans { ids: self.ids, open: Mutex::default() }))
    }

    fn trace_context(&self, call: u64) -> Option<[u8; 26]> {
        self.open.lock().get(&call).map(|open| open.context.to_bytes())
    }

    fn scope(&self, call: u64) -> Option<Arc<dyn Scope>> {
        Some(Arc::new(HandlerScope { call: self.of(call)?, outer: Mutex::default() }))
    }
}

thread_local! {
    /// The trace context of the handler that runs on this thread.
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// A handler runs in its span.
struct HandlerScope {
    call: Arc<Open>,
    /// What was current before.
    outer: Mutex<Option<TraceContext>>,
}

impl Scope for HandlerScope {
    fn enter(&self) {
        self.call.span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
        *self.outer.lock() = CURRENT.replace(Some(self.call.context));
    }

    fn exit(&self) {
        CURRENT.set(self.outer.lock().take());
        self.call.span.with_subscriber(|(id, dispatch)| dispatch.exit(id));
    }
}

/// Of which span a call is part: of the handler that makes it, unless it says another trace.
fn parent_of(call: &Call<'_>) -> Option<TraceContext> {
    let said = call.trace_context.and_then(TraceContext::from_bytes).map(|(trace, _)| trace);
    let current = CURRENT.get().filter(|_| call.role == Role::Caller);
    match (said, current) {
        // A handler hands its trace down with an id that is no span.
        (Some(said), Some(current)) if said.trace_id() == current.trace_id() => Some(current),
        (Some(said), _) => Some(said),
        (None, current) => current,
    }
}

/// A span of its own, in the trace of its parent or in one of its own.
fn context_within(parent: Option<&TraceContext>) -> TraceContext {
    let span = random();
    if let Some(parent) = parent {
        return parent.child_of(span);
    }
    let trace = u128::from(random()) << 64 | u128::from(random());
    let context = TraceContext::new(trace.to_be_bytes(), span.to_be_bytes(), true);
    context.expect("neither is zero")
}

/// The standard library's only source of random numbers; not zero, which is no id.
fn random() -> u64 {
    RandomState::new().hash_one(0u8).max(1)
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which one a span is: its own, and its parent's if that is known.
struct Identity {
    context: TraceContext,
    parent: Option<[u8; 8]>,
}

impl Ids {
    fn identify(self, call: &Call<'_>, span: &Span) -> Identity {
        let parent = parent_of(call);
        #[cfg(feature = "opentelemetry")]
        if matches!(self, Ids::OpenTelemetry)
            && let Some(identity) = otel::identify(call.role, span, parent.as_ref())
        {
            return identity;
        }
        #[cfg(not(feature = "opentelemetry"))]
        let _ = span;
        let context = context_within(parent.as_ref());
        Identity { context, parent: parent.map(|parent| parent.span_id()) }
    }
}

fn begin(call: &Call<'_>, ids: Ids) -> Open {
    // What a shard's thread happens to be doing is no part of a call that it serves.
    let around = if call.role == Role::Caller { Span::current().id() } else { None };
    let name = call.method_name().unwrap_or("unknown/unknown");
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    let kind = if call.role == Role::Server { "server" } else { "client" };
    let span = info_span!(
        target: "ringcall",
        parent: around,
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
        trace_id = Empty,
        span_id = Empty,
        parent_span_id = Empty,
    );
    let Identity { context, parent } = ids.identify(call, &span);
    span.record("trace_id", display(Hex(context.trace_id())));
    span.record("span_id", display(Hex(context.span_id())));
    if let Some(parent) = parent {
        span.record("parent_span_id", display(Hex(parent)));
    }
    match call.peer {
        Some(Address::Tcp(address)) => {
            span.record("network.peer.address", display(address.ip()));
            span.record("network.peer.port", address.port());
        }
        Some(Address::Unix(path)) => {
            span.record("network.peer.address", &path[..]);
        }
        _ => {}
    }
    Open { span, context }
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
