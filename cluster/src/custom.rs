//! What users write themselves where settings and rules do not say enough.

use std::fmt;
use std::sync::Arc;

/// Asks whichever policy an enum has, an ordinary one or one of theirs, without a detour for ordinary ones.
macro_rules! either {
    ($any:ident, $self:ident, $policy:ident => $call:expr) => {
        match $self {
            $any::Ordinary($policy) => $call,
            $any::Custom($policy) => $call,
        }
    };
}
pub(crate) use either;

/// A function of theirs; equal to its clones.
pub(crate) struct Custom<F: ?Sized>(pub(crate) Arc<F>);

impl<F: ?Sized> Clone for Custom<F> {
    fn clone(&self) -> Custom<F> {
        Custom(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> PartialEq for Custom<F> {
    fn eq(&self, other: &Custom<F>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<F: ?Sized> Eq for Custom<F> {}

impl<F: ?Sized> fmt::Debug for Custom<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Custom")
    }
}
