//! Names of services, for failures: those are copied all the time, so that each name is kept once a process, for good.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ringcall_core::ServiceName;

/// What is kept for good has a bound. Failures of further services do not say which they are of.
const NAMES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 256;

static NAMES: Mutex<BTreeMap<&'static str, ServiceName>> = Mutex::new(BTreeMap::new());

/// The name of a service, if there is one, and room for it.
pub(super) fn keep(service: &str) -> Option<ServiceName> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = names.get(service) {
        return Some(*name);
    }
    if !(1..=NAME_BYTES_MAX).contains(&service.len()) || names.len() >= NAMES_MAX {
        return None;
    }
    let text: &'static str = String::leak(service.to_owned());
    let name = ServiceName::new(Box::leak(Box::new(text)));
    names.insert(text, name);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_not_all_that_there_may_be() {
        let (one, again) = (keep("s").unwrap(), keep("s").unwrap());
        assert!(std::ptr::eq(one.as_str(), again.as_str()));
        assert_eq!(keep(""), None);
        assert_eq!(keep(&"n".repeat(257)), None);
        // Others of this process have some.
        let kept = (0..2000).filter(|number| keep(&format!("many {number}")).is_some()).count();
        assert!((1..NAMES_MAX).contains(&kept), "{kept}");
        assert_eq!(keep("s"), Some(one), "who has one keeps it");
    }
}
