//! The names of methods by their numbers.

use std::collections::HashMap;

use parking_lot::RwLock;

/// Names live as long as the process; there is one for each method of each service that is compiled in, and for some
/// of those that are called without their types.
static NAMES: RwLock<Option<HashMap<u64, &'static str>>> = RwLock::new(None);

/// `package.Service/method` for a method's number, if a service or a client of this process has it.
#[must_use]
pub fn method_name(method: u64) -> Option<&'static str> {
    NAMES.read().as_ref()?.get(&method).copied()
}

/// A service's table was made, which happens once.
pub(crate) fn remember(method: u64, name: &str) {
    let mut names = NAMES.write();
    let names = names.get_or_insert_default();
    names.entry(method).or_insert_with(|| Box::leak(name.into()));
}

/// How many names of methods that nobody has compiled in are kept, which others may have chosen: some 8 MiB at most.
const FOREIGN_MAX: usize = 16 * 1024;

/// What is said of the method of that number, which this program may not have: its name, unless too many were called before.
pub(crate) fn known_name(method: u64, name: &str) -> &'static str {
    const TOO_MANY: &str = "?/?";
    if let Some(names) = NAMES.read().as_ref() {
        if let Some(known) = names.get(&method) {
            return known;
        }
        // Told here, so that calls of yet another method do not keep each other waiting for good.
        if names.len() >= FOREIGN_MAX {
            return TOO_MANY;
        }
    }
    let mut names = NAMES.write();
    let names = names.get_or_insert_default();
    // Those that are compiled in count as well: they are few.
    if names.len() >= FOREIGN_MAX {
        return TOO_MANY;
    }
    names.entry(method).or_insert_with(|| Box::leak(name.into()))
}
