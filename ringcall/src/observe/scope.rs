//! What handlers run in, if an observer wants so.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What the handler of one call runs in, see [`Observer::scope`](super::Observer::scope): a span that is current
/// while the handler is.
///
/// It is entered around every poll of the handler, and of the filters before it, on the thread on which that
/// happens: the shard's, one of the pool, one of an executor. Scopes of several calls may lie in one another,
/// and are left in the reverse order. A panic of it is caught and logged.
pub trait Scope: Send + Sync {
    /// The handler is about to run.
    fn enter(&self);

    /// It has run, for now or to its end, or has panicked. Always on the thread of the `enter` before it.
    fn exit(&self);
}

/// Two scopes, the second in the first.
struct Both(Arc<dyn Scope>, Arc<dyn Scope>);

pub(super) fn both(outer: Arc<dyn Scope>, inner: Arc<dyn Scope>) -> Arc<dyn Scope> {
    Arc::new(Both(outer, inner))
}

impl Scope for Both {
    fn enter(&self) {
        guarded(|| self.0.enter());
        guarded(|| self.1.enter());
    }

    fn exit(&self) {
        guarded(|| self.1.exit());
        guarded(|| self.0.exit());
    }
}

/// A scope that is left when this is dropped.
pub(crate) struct Entered(Arc<dyn Scope>);

/// Enters the scope of a call, if it has one.
pub(crate) fn enter(scope: Option<Arc<dyn Scope>>) -> Option<Entered> {
    let scope = scope?;
    guarded(|| scope.enter());
    Some(Entered(scope))
}

impl Drop for Entered {
    fn drop(&mut self) {
        guarded(|| self.0.exit());
    }
}

/// Runs somebody's code: with a panic of it, calls would be lost.
fn guarded(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        log::error!("the scope of an observer panicked; the call goes on");
    }
}

impl fmt::Debug for dyn Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}
