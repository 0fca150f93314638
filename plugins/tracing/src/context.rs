//! W3C trace context, as it travels.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// Version, trace id, span id, flags.
const LEN: usize = 26;
const SAMPLED: u8 = 1;

/// W3C trace context: which trace, and which span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// A span of its own, in the trace of its parent, or in one of its own.
    #[must_use]
    pub fn child_of(parent: Option<&TraceParent>) -> TraceParent {
        let span_id = random().to_be_bytes();
        match parent {
            Some(parent) => TraceParent { span_id, ..*parent },
            None => {
                let trace_id = u128::from(random()) << 64 | u128::from(random());
                TraceParent { trace_id: trace_id.to_be_bytes(), span_id, flags: SAMPLED }
            }
        }
    }

    /// What a peer sent: anything. Later versions begin like this one; ids of zero are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<TraceParent> {
        let [version, rest @ ..] = bytes.first_chunk::<LEN>()?;
        let (trace_id, rest) = rest.split_first_chunk::<16>()?;
        let (span_id, flags) = rest.split_first_chunk::<8>()?;
        let context =
            TraceParent { trace_id: *trace_id, span_id: *span_id, flags: *flags.first()? };
        let is_sound = *version != 0xff && *trace_id != [0; 16] && *span_id != [0; 8];
        is_sound.then_some(context)
    }

    /// As it travels.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[1..17].copy_from_slice(&self.trace_id);
        bytes[17..25].copy_from_slice(&self.span_id);
        bytes[25] = self.flags;
        bytes
    }

    /// The id of the trace, in hexadecimal.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        Hex(self.trace_id)
    }

    /// The id of the span, in hexadecimal.
    pub fn span_id(&self) -> impl fmt::Display + use<> {
        Hex(self.span_id)
    }
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The standard library's only source of random numbers; not zero, which is no id.
fn random() -> u64 {
    RandomState::new().hash_one(0u8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_stays_in_the_trace() {
        let parent = TraceParent::child_of(None);
        let child = TraceParent::child_of(Some(&parent));
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.span_id, parent.span_id);
        assert_eq!(TraceParent::from_bytes(&child.to_bytes()), Some(child));
        assert_eq!(child.trace_id().to_string().len(), 32);
    }

    #[test]
    fn what_is_no_context_is_none() {
        let sound = TraceParent::child_of(None).to_bytes();
        assert!(TraceParent::from_bytes(&[&sound[..], b"more"].concat()).is_some());
        assert_eq!(TraceParent::from_bytes(&sound[..25]), None);
        for zeroed in [1..17, 17..25] {
            let mut bytes = sound;
            bytes[zeroed].fill(0);
            assert_eq!(TraceParent::from_bytes(&bytes), None);
        }
        let mut bytes = sound;
        bytes[0] = 0xff;
        assert_eq!(TraceParent::from_bytes(&bytes), None);
    }
}
