//! How settings and questions name a method.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use ringcall_core::method_id;

/// A method: by its name, `package.Service/method`, or by the number that is made of it. The same method is equal either way;
/// only of a name it can be said later which one was meant.
#[derive(Clone)]
pub struct MethodKey {
    id: u64,
    name: Option<Arc<str>>,
}

impl MethodKey {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name, if it was named by that.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl From<&str> for MethodKey {
    fn from(name: &str) -> MethodKey {
        MethodKey { id: method_id(name), name: Some(name.into()) }
    }
}

impl From<&String> for MethodKey {
    fn from(name: &String) -> MethodKey {
        name[..].into()
    }
}

impl From<String> for MethodKey {
    fn from(name: String) -> MethodKey {
        name[..].into()
    }
}

impl From<u64> for MethodKey {
    fn from(id: u64) -> MethodKey {
        MethodKey { id, name: None }
    }
}

impl PartialEq for MethodKey {
    fn eq(&self, other: &MethodKey) -> bool {
        self.id == other.id
    }
}

impl Eq for MethodKey {}

impl PartialOrd for MethodKey {
    fn partial_cmp(&self, other: &MethodKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MethodKey {
    fn cmp(&self, other: &MethodKey) -> Ordering {
        self.id.cmp(&other.id)
    }
}

/// Calls know the number only.
impl Borrow<u64> for MethodKey {
    fn borrow(&self) -> &u64 {
        &self.id
    }
}

impl fmt::Display for MethodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "method {:#018x}", self.id),
        }
    }
}

impl fmt::Debug for MethodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
