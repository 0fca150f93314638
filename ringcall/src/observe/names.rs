//! The names of methods by their numbers.

use std::collections::HashMap;

use parking_lot::RwLock;

/// Names live as long as the process; there is one for each method of each service that is compiled in.
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
