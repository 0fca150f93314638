//! W3C trace context.

use std::fmt;
use std::str::FromStr;

/// Which trace a call belongs to, and which span of it: W3C trace context, without its state, which
/// [`Metadata::trace_state`](crate::Metadata::trace_state) has.
///
/// As text it is the header `traceparent`:
///
/// ```
/// use ringcall::TraceContext;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let trace: TraceContext = text.parse()?;
/// assert!(trace.is_sampled());
/// assert_eq!(trace.to_string(), text);
/// # Ok::<(), ringcall::BadTraceContext>(())
/// ```
///
/// Whoever serves a call with one hands it down: the calls of
/// [`Context::client`](crate::Context::client) have the same trace, and span ids of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// The bytes or text are not a trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTraceContext;

impl fmt::Display for BadTraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a W3C trace context")
    }
}

impl std::error::Error for BadTraceContext {}

/// Version, trace, span, flags.
const LEN: usize = 1 + 16 + 8 + 1;
const SAMPLED: u8 = 1;

impl TraceContext {
    /// From its parts; `None` if an id is zero, which means none.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Option<TraceContext> {
        let flags = if is_sampled { SAMPLED } else { 0 };
        TraceContext { trace_id, span_id, flags }.checked()
    }

    /// The id of the whole trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span that makes the call.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace with another span: what a call of this span's should say. Zero counts as one.
    #[must_use]
    pub fn child_of(&self, span: u64) -> TraceContext {
        TraceContext { span_id: span.max(1).to_be_bytes(), ..*self }
    }

    /// As it travels: version, trace id, span id, flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[1..17].copy_from_slice(&self.trace_id);
        bytes[17..25].copy_from_slice(&self.span_id);
        bytes[25] = self.flags;
        bytes
    }

    /// From what travelled, with the text of `tracestate` behind it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<(TraceContext, &str)> {
        let (fixed, state) = bytes.split_first_chunk::<LEN>()?;
        let [version, rest @ ..] = fixed;
        let (trace_id, rest) = rest.split_first_chunk()?;
        let (span_id, flags) = rest.split_first_chunk()?;
        let trace = TraceContext { trace_id: *trace_id, span_id: *span_id, flags: flags[0] };
        let trace = trace.checked().filter(|_| *version != 0xff)?;
        Some((trace, std::str::from_utf8(state).unwrap_or_default()))
    }

    fn checked(self) -> Option<TraceContext> {
        (self.trace_id != [0; 16] && self.span_id != [0; 8]).then_some(self)
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceContext;

    fn from_str(text: &str) -> Result<TraceContext, BadTraceContext> {
        parse_traceparent(text.as_bytes()).ok_or(BadTraceContext)
    }
}

/// `00-…-…-01`. Later versions may say more behind it.
fn parse_traceparent(text: &[u8]) -> Option<TraceContext> {
    let (fixed, more) = text.split_at_checked(55)?;
    let ([b'-'], [b'-'], [b'-']) = (&fixed[2..3], &fixed[35..36], &fixed[52..53]) else {
        return None;
    };
    let [version] = hex(&fixed[..2])?;
    let may_go_on = version != 0 && more.first() == Some(&b'-');
    if version == 0xff || !(more.is_empty() || may_go_on) {
        return None;
    }
    let (trace_id, span_id) = (hex(&fixed[3..35])?, hex(&fixed[36..52])?);
    let [flags] = hex(&fixed[53..])?;
    TraceContext { trace_id, span_id, flags }.checked()
}

/// Lower case, as the specification demands.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn trace_contexts_round_trip(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool, state: String) {
            let Some(trace) = TraceContext::new(trace_id, span_id, sampled) else { return Ok(()) };
            assert_eq!(trace.to_string().parse(), Ok(trace));
            let bytes = [&trace.to_bytes()[..], state.as_bytes()].concat();
            assert_eq!(TraceContext::from_bytes(&bytes), Some((trace, &state[..])));
        }

        #[test]
        fn any_text_is_read(text: String) {
            let read: Result<TraceContext, _> = text.parse();
            assert!(read.is_err() || text.len() >= 55);
        }
    }

    #[test]
    fn what_the_specification_forbids_is_no_trace_context() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(BadTraceContext), "{bad}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(later.parse::<TraceContext>().is_ok());
    }
}
