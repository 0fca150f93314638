//! Bodies in a codec with names that could not be read: why, for the log of whoever refuses them. Of what they carry nothing
//! is said, only of the type that they should have been.

use core::cell::Cell;
use core::fmt::Display;

use crate::Invalid;

thread_local! {
    /// Why the body that was read last was none. [`Invalid`] carries nothing, so that a body that can be read is
    /// not moved in odd pieces.
    static REASON: Cell<Option<String>> = const { Cell::new(None) };
}

/// Reasons are cut off after so many characters.
const CHARS_MAX: usize = 200;

/// A body is about to be read.
pub(crate) fn begin() {
    drop(REASON.take());
}

/// It cannot be read, for this reason: a sentence, and nothing of what is in it.
#[cold]
pub(crate) fn because(reason: &str) -> Invalid {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    REASON.set(Some(reason.chars().take(CHARS_MAX).map(shown).collect()));
    Invalid
}

/// The same for what serde says, or else this.
#[cold]
pub(crate) fn because_of(error: &impl Display, otherwise: &str) -> Invalid {
    because(&about_the_type(&error.to_string()).unwrap_or_else(|| otherwise.to_owned()))
}

/// Why the body that was read last on this thread, in a codec with names, was none; once.
#[must_use]
pub fn take_reason() -> Option<String> {
    REASON.take()
}

/// What one of serde's own errors says of the type that was wanted: names of its fields and variants, what was expected. The
/// values that it met are left out, and so are errors that anybody else has made.
fn about_the_type(text: &str) -> Option<String> {
    let text = without_place(text);
    if matches!(text, "nested too deeply" | "takes too much memory") {
        return Some(text.to_owned());
    }
    for begin in ["missing field `", "duplicate field `"] {
        if let Some(field) = text.strip_prefix(begin) {
            return Some(format!("{begin}{field}"));
        }
    }
    let met = [
        ("unknown field `", "a field that is not known"),
        ("unknown variant `", "a variant that is not known"),
        ("invalid type: ", "a value of another type"),
        ("wrong msgpack marker ", "a value of another type"),
        ("invalid value: ", "a value that it cannot have"),
        ("invalid length ", "another length"),
    ];
    let (_, met) = met.into_iter().find(|(begin, _)| text.starts_with(begin))?;
    let has_none = text.ends_with("there are no fields") || text.ends_with("there are no variants");
    // What was met comes before it, and may say the same.
    let expected = text.rsplit_once(", expected ").filter(|_| !has_none);
    Some(expected.map_or_else(|| met.to_owned(), |(_, what)| format!("{met}, expected {what}")))
}

/// Errors of JSON say where they are, behind all else. Those of MessagePack do not, and what they met may say the same before that.
fn without_place(text: &str) -> &str {
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    let place = text.rsplit_once(" at line ").filter(|(_, place)| {
        place
            .split_once(" column ")
            .is_some_and(|(line, column)| is_number(line) && is_number(column))
    });
    place.map_or(text, |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_carries_is_no_part_of_the_reason() {
        let said = |text: &str| about_the_type(text).unwrap_or_default();
        assert_eq!(said("missing field `price` at line 1 column 2"), "missing field `price`");
        assert_eq!(
            said(
                "invalid type: string \"secret, expected secret\", expected u32 at line 1 column 9"
            ),
            "a value of another type, expected u32"
        );
        assert_eq!(
            said("unknown variant `secret`, expected `Cash` or `Card`"),
            "a variant that is not known, expected `Cash` or `Card`"
        );
        assert_eq!(
            said("unknown field `a, expected secret`, there are no fields"),
            "a field that is not known"
        );
        // MessagePack says no place, and what it met may look like one.
        for place in [" at line ", " at line 1 column 2", " at line 1 column 2`"] {
            let met = format!("unknown variant `a, expected secret{place}`, expected `Cash`");
            assert_eq!(said(&met), "a variant that is not known, expected `Cash`");
        }
        assert_eq!(said("wrong msgpack marker FixStr(6)"), "a value of another type");
        assert_eq!(said("secret"), "");
        assert_eq!(because_of(&"secret", "no JSON"), Invalid);
        assert_eq!(take_reason().as_deref(), Some("no JSON"));
        assert_eq!(take_reason(), None);
        let _invalid = because(&format!("a\u{1b}[2J\n{}", "x".repeat(10_000)));
        let reason = take_reason().unwrap();
        assert!(reason.starts_with("a [2J x") && reason.len() == CHARS_MAX, "{reason}");
    }
}
