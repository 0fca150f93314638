//! Which engine a shard gets, and how a user says so.

use std::fmt;
use std::str::FromStr;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which engine moves the bytes.
///
/// The environment has the last word: `RINGCALL_TRANSPORT=auto`, `uring` or `epoll`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportChoice {
    /// io_uring where a probe finds that it works, else epoll. [`TransportInfo`] says which, and why; so
    /// does one line in the log when it had to be epoll.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// epoll.
    Epoll,
}

/// The variable that overrides a [`TransportChoice`].
const VARIABLE: &str = "RINGCALL_TRANSPORT";
/// The variable that names features of the ring to do without, to try what a lesser kernel would do.
#[cfg(feature = "uring")]
const MASK_VARIABLE: &str = "RINGCALL_URING_WITHOUT";

impl TransportChoice {
    /// What the environment says, or else this.
    pub(crate) fn resolve(self) -> Result<TransportChoice, String> {
        match std::env::var(VARIABLE) {
            Ok(text) => text.parse().map_err(|UnknownTransport(text)| {
                format!("{VARIABLE} is {text:?}: write auto, uring or epoll")
            }),
            Err(std::env::VarError::NotPresent) => Ok(self),
            Err(error) => Err(format!("{VARIABLE}: {error}")),
        }
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TransportChoice::Auto => "auto",
            TransportChoice::Uring => "uring",
            TransportChoice::Epoll => "epoll",
        })
    }
}

/// Not the name of a [`TransportChoice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTransport(String);

impl fmt::Display for UnknownTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no transport: write auto, uring or epoll", self.0)
    }
}

impl std::error::Error for UnknownTransport {}

impl FromStr for TransportChoice {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<TransportChoice, UnknownTransport> {
        match text {
            "auto" => Ok(TransportChoice::Auto),
            "uring" => Ok(TransportChoice::Uring),
            "epoll" => Ok(TransportChoice::Epoll),
            _ => Err(UnknownTransport(text.to_owned())),
        }
    }
}

/// Which engine moves the bytes, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportInfo {
    /// Its name: `uring` or `epoll`.
    pub name: &'static str,
    /// Why it was chosen, and what it has to do without.
    pub reason: String,
}

impl TransportInfo {
    pub(crate) fn new(name: &'static str, reason: String) -> TransportInfo {
        TransportInfo { name, reason }
    }
}

impl fmt::Display for TransportInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.reason)
    }
}

static FALLBACKS: AtomicU64 = AtomicU64::new(0);

/// How many shards of this process run on epoll because io_uring could not be used.
#[must_use]
pub fn transport_fallbacks() -> u64 {
    FALLBACKS.load(Ordering::Relaxed)
}

/// A ring that is smaller than it should be, for want of memory that may be locked.
#[cfg(feature = "uring")]
pub(crate) fn note_small_ring(reason: &str) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| log::warn!("using io_uring {reason}"));
}

pub(crate) fn note_fallback(reason: &str) {
    static LOGGED: Once = Once::new();
    FALLBACKS.fetch_add(1, Ordering::Relaxed);
    LOGGED.call_once(|| log::warn!("using epoll {reason}"));
}

/// What a ring can use here. Asked until there is an answer: kernels do not change while a process runs,
/// unlike how much memory and how many descriptors are left.
#[cfg(feature = "uring")]
pub(crate) fn ring_features() -> Result<ringcall_uring::Features, String> {
    use ringcall_uring::Features;
    use std::sync::OnceLock;
    static FEATURES: OnceLock<Result<Features, String>> = OnceLock::new();
    if let Some(known) = FEATURES.get() {
        return known.clone();
    }
    let wanted = match std::env::var(MASK_VARIABLE) {
        Ok(names) => Features::without(&names).map_err(|e| format!("{MASK_VARIABLE}: {e}"))?,
        Err(_) => Features::ALL,
    };
    match Features::probe(wanted) {
        Err(refusal) if refusal.is_passing() => Err(refusal.to_string()),
        probed => FEATURES.get_or_init(|| probed.map_err(|refusal| refusal.to_string())).clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_as_they_are_read() {
        for choice in [TransportChoice::Auto, TransportChoice::Uring, TransportChoice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "io_uring".parse::<TransportChoice>().unwrap_err();
        assert!(error.to_string().contains("auto, uring or epoll"));
    }
}
