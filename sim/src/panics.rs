//! Panics in a simulation are its results, not the terminal's.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// While a simulation runs: what the last panic of this thread said, or nothing yet.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a simulation on this thread. Its panics are not printed.
///
/// # Errors
/// What the panic said that ended it, and where it was.
pub fn catch<R>(run: impl FnOnce() -> R) -> Result<R, String> {
    listen();
    SAID.set(Some(String::new()));
    // What it was in the middle of is not looked at again.
    let outcome = panic::catch_unwind(AssertUnwindSafe(run));
    let said = SAID.take().unwrap_or_default();
    outcome.map_err(|_| said)
}

/// What a panic said that somebody within [`catch`] has caught. It is forgotten then.
#[must_use]
pub fn take_caught() -> Option<String> {
    SAID.with_borrow_mut(|said| said.as_mut().filter(|said| !said.is_empty()).map(std::mem::take))
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that is ending is in no simulation.
            let is_ours = SAID.try_with(|said| said.borrow().is_some()).unwrap_or(false);
            if !is_ours {
                return before(info);
            }
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("a panic without words");
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            SAID.set(Some(format!("{text} ({})", place.unwrap_or_default())));
        }));
    });
}
