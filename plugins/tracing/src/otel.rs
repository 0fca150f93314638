//! Ids from the layer of `tracing-opentelemetry`.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use ringcall::TraceContext;
use ringcall::observe::Role;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{CURRENT, Identity};

/// Which one the layer takes a span for, after it was told its parent; `None` without such a layer, or if it
/// keeps no ids for this span.
pub(super) fn identify(role: Role, span: &Span, parent: Option<&TraceContext>) -> Option<Identity> {
    // A call of a handler has the current span as its parent already, unless it says another trace.
    let said = parent.filter(|said| {
        let around = CURRENT.get().filter(|_| role == Role::Caller);
        around.is_none_or(|around| around != **said)
    });
    if let Some(said) = said {
        let context = opentelemetry::Context::new().with_remote_span_context(remote(said));
        // A subscriber without the layer has no parent to set, and no ids either.
        span.set_parent(context).ok()?;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    let context = TraceContext::new(trace, id, context.is_sampled())?;
    Some(Identity { context, parent: said.map(TraceContext::span_id) })
}

fn remote(context: &TraceContext) -> SpanContext {
    let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (context.trace_id(), context.span_id());
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    SpanContext::new(trace, span, flags, true, TraceState::default())
}
