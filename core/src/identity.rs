//! Who a process says it is, and who is expected of it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::sync::Arc;
use core::fmt;

/// Who a process says it is, in its HELLO: text that its operator has chosen, 1 to 256 bytes without control
/// characters. Clones are cheap.
///
/// It is a name and no proof of anything: whoever answers at an address can say any. What it is for are addresses that
/// have come to be another process's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<str>);

/// A text that is no [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIdentity;

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an identity has 1 to {} bytes and no control characters", Identity::BYTES_MAX)
    }
}

impl core::error::Error for BadIdentity {}

impl Identity {
    /// How long it may be.
    pub const BYTES_MAX: usize = 256;

    /// This text.
    ///
    /// # Errors
    /// When it is empty, longer than [`BYTES_MAX`](Self::BYTES_MAX), or has control characters.
    pub fn new(text: impl AsRef<str>) -> Result<Identity, BadIdentity> {
        Identity::from_bytes(text.as_ref().as_bytes()).ok_or(BadIdentity)
    }

    /// What somebody has said, which may be any bytes. Nothing is allocated for what is none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Identity> {
        if bytes.is_empty() || bytes.len() > Identity::BYTES_MAX {
            return None;
        }
        let text = core::str::from_utf8(bytes).ok()?;
        (!text.chars().any(char::is_control)).then(|| Identity(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Who the other side of a connection has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expected {
    /// What it has to say.
    pub identity: Identity,
    /// Whether it has to say it: one that says nothing is taken otherwise, since it may not know how.
    pub is_required: bool,
}

impl Expected {
    /// This one, or one that does not say who it is.
    #[must_use]
    pub fn new(identity: Identity) -> Expected {
        Expected { identity, is_required: false }
    }

    /// This one and nobody else.
    #[must_use]
    pub fn required(self) -> Expected {
        Expected { is_required: true, ..self }
    }

    /// Whether it may be somebody who says this.
    ///
    /// # Errors
    /// When it may not: who was expected, and who was met.
    pub fn check(&self, met: Option<&Identity>) -> Result<(), Mismatch> {
        let is_right = met.map_or(!self.is_required, |met| *met == self.identity);
        match is_right {
            true => Ok(()),
            false => Err(Mismatch { expected: self.identity.clone(), met: met.cloned() }),
        }
    }
}

/// At an address was somebody else than was expected there. Nothing was sent but the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mismatch {
    /// Who was expected.
    pub expected: Identity,
    /// Who was met; `None` if it does not say.
    pub met: Option<Identity>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { expected, met } = self;
        match met {
            Some(met) => write!(f, "expected the instance {expected:?} and met {met:?}"),
            None => write!(
                f,
                "expected the instance {expected:?} and met one that does not say who it is"
            ),
        }
    }
}

impl core::error::Error for Mismatch {}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn g07_an_identity_is_short_text() {
        assert_eq!(Identity::new("a1").unwrap().as_str(), "a1");
        assert!(Identity::new("ä".repeat(128)).is_ok());
        for bad in ["", "a\nb", "\0", &"ä".repeat(129)] {
            assert_eq!(Identity::new(bad), Err(BadIdentity), "{bad:?}");
        }
        assert_eq!(Identity::from_bytes(b"\xff"), None);
    }

    #[test]
    fn g07_who_says_nothing_is_taken_unless_it_has_to() {
        let [a, b] = ["a1", "b7"].map(|text| Identity::new(text).unwrap());
        let expected = Expected::new(a.clone());
        assert_eq!(expected.check(Some(&a)), Ok(()));
        assert_eq!(expected.check(None), Ok(()));
        let told = expected.check(Some(&b)).unwrap_err().to_string();
        assert_eq!(told, "expected the instance \"a1\" and met \"b7\"");
        let required = expected.required();
        assert_eq!(required.check(Some(&a)), Ok(()));
        let told = required.check(None).unwrap_err().to_string();
        assert_eq!(told, "expected the instance \"a1\" and met one that does not say who it is");
    }
}
