//! What the log may say of a panic beside that there was one: never its message, which may be made of what a call carries.

use std::any::Any;
use std::fmt;

/// What to do about a panic of somebody's code, as the end of a line. Empty if nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    None,
    /// It wanted something of tokio, on a thread that is in no runtime.
    NoRuntime,
}

/// Part of what tokio says then.
const NO_RUNTIME: &str = "no reactor running";

impl Hint {
    #[cold]
    pub(crate) fn of(panic: &(dyn Any + Send)) -> Hint {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        match text.is_some_and(|text| text.contains(NO_RUNTIME)) {
            true => Hint::NoRuntime,
            false => Hint::None,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hint::None => "",
            Hint::NoRuntime => {
                ". It wants a runtime of tokio, and its thread is in none: Server::tokio (feature `tokio`) puts the \
                 threads of a server into one, and so can Server::on_each_thread; Server::service_spawned runs \
                 handlers on it"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_runtime_is_known() {
        assert_eq!(Hint::of(&"there is no reactor running, must be"), Hint::NoRuntime);
        assert_eq!(Hint::of(&"there is no reactor running".to_owned()), Hint::NoRuntime);
        assert_eq!(Hint::of(&"a secret".to_owned()), Hint::None);
        assert_eq!(Hint::of(&7), Hint::None);
        assert_eq!(Hint::None.to_string(), "");
    }
}
