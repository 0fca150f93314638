//! Metadata of answers, between the handler that adds it and the answer that carries it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use ringcall_core::frame::ExtensionWriter;
use ringcall_core::{Handle, RequestId};

use super::incoming::CancelFlag;

/// Calls of a shard whose answers have metadata; the others are not in it, so that they pay for a look at
/// whether it is empty. A call leaves it with its answer.
#[derive(Default)]
pub(crate) struct ReplyMetadata(RefCell<HashMap<(Handle, RequestId), Added>>);

enum Added {
    /// By a handler on the shard.
    Here(ExtensionWriter),
    /// By a handler's context that may be on another thread.
    Elsewhere(Arc<CancelFlag>),
}

impl ReplyMetadata {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(crate) fn add(&self, handle: Handle, request: RequestId, key: &str, value: &[u8]) {
        let mut calls = self.0.borrow_mut();
        let new = || Added::Here(ExtensionWriter::new());
        match calls.entry((handle, request)).or_insert_with(new) {
            Added::Here(writer) => crate::metadata::push_entry(writer, key, value),
            Added::Elsewhere(flag) => flag.add_metadata(key, value),
        }
    }

    /// What another thread may add to.
    pub(crate) fn share(&self, handle: Handle, request: RequestId) -> Arc<CancelFlag> {
        let mut calls = self.0.borrow_mut();
        let added =
            calls.entry((handle, request)).or_insert_with(|| Added::Elsewhere(Arc::default()));
        match added {
            Added::Elsewhere(flag) => Arc::clone(flag),
            Added::Here(writer) => {
                let flag = Arc::new(CancelFlag::with_metadata(std::mem::take(writer)));
                *added = Added::Elsewhere(Arc::clone(&flag));
                flag
            }
        }
    }

    /// What was added so far, for the beginning of an answer; more may follow.
    pub(crate) fn take_first(&self, handle: Handle, request: RequestId) -> Vec<u8> {
        match self.0.borrow_mut().get_mut(&(handle, request)) {
            Some(Added::Here(writer)) => std::mem::take(writer).finish(),
            Some(Added::Elsewhere(flag)) => flag.take_metadata(),
            None => Vec::new(),
        }
    }

    /// What was added, for the last frame of an answer.
    pub(crate) fn take(&self, handle: Handle, request: RequestId) -> Option<Vec<u8>> {
        let added = self.0.borrow_mut().remove(&(handle, request))?;
        let written = match added {
            Added::Here(writer) => writer.finish(),
            Added::Elsewhere(flag) => flag.take_metadata(),
        };
        Some(written).filter(|written| !written.is_empty())
    }
}
