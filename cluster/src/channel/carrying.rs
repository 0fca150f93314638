//! A payload with TLVs that routing adds.

use std::any::Any;
use std::sync::Arc;

use ringcall_core::{Codec, EncodeError, External, Payload, Transcode, Writer};

/// A payload with extensions instead of its own, or with its own.
#[derive(Clone)]
pub(super) struct Carrying<P> {
    payload: P,
    extensions: Option<Arc<[u8]>>,
}

impl<P: Payload> Carrying<P> {
    /// With `added` behind what it has. That costs an allocation if both have something.
    #[inline]
    pub(super) fn new(payload: P, added: Option<Arc<[u8]>>) -> Carrying<P> {
        let extensions = added.map(|added| match payload.extensions() {
            [] => added,
            // Both are padded, so they can follow each other.
            own => own.iter().chain(&*added).copied().collect(),
        });
        Carrying { payload, extensions }
    }
}

impl<P: Payload> Payload for Carrying<P> {
    #[inline]
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        self.payload.encode(codec, signature, out)
    }

    fn transcode(&self) -> Option<Transcode> {
        self.payload.transcode()
    }

    #[inline]
    fn landing(&self) -> Option<External> {
        self.payload.landing()
    }

    #[inline]
    fn extensions(&self) -> &[u8] {
        self.extensions.as_deref().unwrap_or_else(|| self.payload.extensions())
    }

    fn argument(&self) -> Option<&dyn Any> {
        self.payload.argument()
    }
}
