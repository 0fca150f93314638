//! Messages that cannot be encoded: why, for the log. Their callers are told that they cannot, not what is wrong.

use core::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use ringcall_core::EncodeError;

thread_local! {
    /// Why the message that is being encoded cannot be. Errors of rkyv carry nothing here, so that it costs nothing to
    /// be able to fail.
    static REASON: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// A part of the message cannot be encoded, for this reason: a sentence, and nothing of what is in it.
#[cold]
pub(crate) fn because(reason: &'static str) {
    REASON.set(Some(reason));
}

/// A message of this type could not be encoded. The first of each type is logged: what is wrong with one is often wrong
/// with many.
#[cold]
pub(crate) fn failed<T>() -> EncodeError {
    static TOLD: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let reason = REASON.take().unwrap_or("the archiving of one of its fields has failed");
    let name = core::any::type_name::<T>();
    if TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(name) {
        log::warn!("a `{name}` could not be encoded: {reason} (said once of each type)");
    }
    EncodeError::Failed
}
