//! What a text must be.

use super::BadRule;

/// What a text must be: of a call's metadata, a tag, a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Text {
    /// This one.
    Is(String),
    /// Begins like this.
    Begins(String),
    /// There is one.
    Present,
    /// There is none.
    Absent,
}

/// The longest text that rules may have.
const TEXT_BYTES_MAX: usize = 256;

impl Text {
    /// Shorthand for [`Text::Begins`].
    #[must_use]
    pub fn begins(text: impl Into<String>) -> Text {
        Text::Begins(text.into())
    }

    /// Whether a value is like this; `None` is no value.
    #[inline]
    #[must_use]
    pub fn matches(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Text::Is(text), Some(value)) => text.as_bytes() == value,
            (Text::Begins(text), Some(value)) => value.starts_with(text.as_bytes()),
            (Text::Present, Some(_)) | (Text::Absent, None) => true,
            _ => false,
        }
    }

    /// The same of what is empty where nothing is said.
    pub(super) fn matches_said(&self, value: &str) -> bool {
        self.matches((!value.is_empty()).then_some(value.as_bytes()))
    }

    pub(super) fn check(&self) -> Result<(), BadRule> {
        match self {
            Text::Is(text) | Text::Begins(text) => check_text(text),
            Text::Present | Text::Absent => Ok(()),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text::Is(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text::Is(text)
    }
}

/// Texts of rules are not empty, and bounded.
pub(super) fn check_text(text: &str) -> Result<(), BadRule> {
    let is_good = (1..=TEXT_BYTES_MAX).contains(&text.len());
    if is_good { Ok(()) } else { Err(BadRule::Text) }
}
