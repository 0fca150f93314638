//! Metadata of answers, between the handler that adds it and the answer that carries it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ringcall_core::frame::ExtensionWriter;
use ringcall_core::{Handle, RequestId, Status};

use super::ServerFilter;
use super::access::{Caller, Principal};
use super::incoming::CancelFlag;
use crate::metadata::BadMetadataKey;

/// Calls of a shard whose answers have metadata, whose ends a filter wants to know, or that were let in as somebody of
/// their own; the others are not in
/// it, so that they pay for a look at whether it is empty. A call leaves it with its answer.
#[derive(Default)]
pub(crate) struct ReplyMetadata(RefCell<HashMap<(Handle, RequestId), Entry>>);

#[derive(Default)]
struct Entry {
    added: Added,
    told: Option<Told>,
    principal: Option<Principal>,
}

enum Added {
    /// By a handler on the shard.
    Here(ExtensionWriter),
    /// By a handler's context that may be on another thread.
    Elsewhere(Arc<CancelFlag>),
}

impl Default for Added {
    fn default() -> Added {
        Added::Here(ExtensionWriter::new())
    }
}

impl Added {
    fn take(&mut self) -> Vec<u8> {
        match self {
            Added::Here(writer) => std::mem::take(writer).finish(),
            Added::Elsewhere(flag) => flag.take_metadata(),
        }
    }
}

/// Filters that want to know how a call of this method ends.
pub(crate) struct Told(Rc<dyn ServerFilter>, &'static str);

impl Told {
    pub(crate) fn tell(&self, status: Status) {
        self.0.ended(self.1, status);
    }
}

impl ReplyMetadata {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    fn with<R>(&self, of: (Handle, RequestId), change: impl FnOnce(&mut Entry) -> R) -> R {
        change(self.0.borrow_mut().entry(of).or_default())
    }

    pub(crate) fn add(
        &self,
        handle: Handle,
        request: RequestId,
        key: &str,
        value: &[u8],
    ) -> Result<(), BadMetadataKey> {
        self.with((handle, request), |entry| match &mut entry.added {
            Added::Here(writer) => crate::metadata::push_entry(writer, key, value),
            Added::Elsewhere(flag) => flag.add_metadata(key, value),
        })
    }

    pub(crate) fn watch(
        &self,
        handle: Handle,
        request: RequestId,
        filters: Rc<dyn ServerFilter>,
        method: &'static str,
    ) {
        self.with((handle, request), |entry| entry.told = Some(Told(filters, method)));
    }

    pub(crate) fn set_principal(&self, handle: Handle, request: RequestId, principal: Principal) {
        self.with((handle, request), |entry| entry.principal = Some(principal));
    }

    /// Who makes a call, if that is somebody of its own.
    pub(crate) fn principal(&self, handle: Handle, request: RequestId) -> Option<Principal> {
        self.0.borrow().get(&(handle, request))?.principal.clone()
    }

    /// What another thread may add to.
    pub(crate) fn share(
        &self,
        handle: Handle,
        request: RequestId,
        caller: impl FnOnce() -> Caller,
    ) -> Arc<CancelFlag> {
        self.with((handle, request), |entry| match &mut entry.added {
            Added::Elsewhere(flag) => Arc::clone(flag),
            Added::Here(writer) => {
                let flag =
                    Arc::new(CancelFlag::new(caller()).with_metadata(std::mem::take(writer)));
                entry.added = Added::Elsewhere(Arc::clone(&flag));
                flag
            }
        })
    }

    /// What was added so far, for the beginning of an answer; more may follow.
    pub(crate) fn take_first(&self, handle: Handle, request: RequestId) -> Vec<u8> {
        let mut calls = self.0.borrow_mut();
        calls.get_mut(&(handle, request)).map(|entry| entry.added.take()).unwrap_or_default()
    }

    /// What was added, for the last frame of an answer, and who wants to know of it.
    pub(crate) fn take(
        &self,
        handle: Handle,
        request: RequestId,
    ) -> Option<(Vec<u8>, Option<Told>)> {
        let mut entry = self.0.borrow_mut().remove(&(handle, request))?;
        Some((entry.added.take(), entry.told))
    }
}
