//! A payload with TLVs that routing adds.

use std::sync::Arc;

use ringcall_core::{Extended, Payload};

/// What a payload carries instead of its extensions: its own, and behind them those of routing; or nothing.
#[derive(Clone)]
pub(super) struct Carried(Option<Arc<[u8]>>);

impl AsRef<[u8]> for Carried {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

pub(super) type Carrying<P> = Extended<P, Carried>;

/// One behind the other: both are padded.
#[inline]
pub(super) fn joined(
    routing: Option<Arc<[u8]>>,
    operation: Option<&Arc<[u8]>>,
) -> Option<Arc<[u8]>> {
    match (routing, operation) {
        (routing, None) => routing,
        (None, Some(operation)) => Some(Arc::clone(operation)),
        (Some(routing), Some(operation)) => {
            Some(routing.iter().chain(&**operation).copied().collect())
        }
    }
}

/// With `added` behind what it has. That costs an allocation if both have something.
#[inline]
pub(super) fn carrying<P: Payload>(payload: P, added: Option<Arc<[u8]>>) -> Carrying<P> {
    let extensions = added.map(|added| match payload.extensions() {
        [] => added,
        // Both are padded, so they can follow each other.
        own => own.iter().chain(&*added).copied().collect(),
    });
    Extended { payload, extensions: Carried(extensions) }
}
