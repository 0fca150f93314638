//! Texts of others, so that a terminal shows them and does nothing else.

use std::fmt::Write as _;
use std::time::Duration;

/// The text with what a terminal would act on replaced: control characters, and those that turn the direction of what
/// follows. Ends of lines and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn is_harmless(c: char) -> bool {
    matches!(c, '\n' | '\t') || !(c.is_control() || is_invisible(c))
}

/// Marks and overrides of direction, and ends of lines that are none for a terminal.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

/// The same for a text that has one line.
pub(crate) fn one_line(text: &str) -> String {
    harmless(text).replace(['\n', '\t'], " ")
}

/// The first line, of docs for example, and not all of a long one.
pub(crate) fn first_line(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    let line = one_line(text.trim().lines().next().unwrap_or_default().trim());
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// JSON with what a terminal would act on escaped, which means the same: outside of texts JSON has none of it.
pub(crate) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match is_harmless(c) {
            true => text.push(c),
            // All of them are of the plane that has four digits, but for what no text of JSON has.
            false => drop(write!(text, "\\u{:04x}", u32::from(c))),
        }
    }
    text
}

/// A word of a command line for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/:@-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A time with three digits or so: `83.1 µs`.
pub(crate) fn time(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    match ns {
        ..1e3 => format!("{ns} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        assert_eq!(harmless("a\u{1b}[2J\u{9b}b\r\u{202e}c\u{7f}\n\tä"), "a�[2J�b��c�\n\tä");
        assert_eq!(one_line("a\nb\tc"), "a b c");
        assert_eq!(first_line("\n  the first\nthe second"), "the first");
        assert_eq!(first_line(&"ä".repeat(200)).chars().count(), 101);
    }

    #[test]
    fn json_means_the_same_when_it_is_escaped() {
        let value = serde_json::json!({ "a\u{9b}": "\u{1b}[2J\u{7f}\u{202e}\n\t ä" });
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(is_harmless), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_shell_takes_a_word_as_it_is() {
        assert_eq!(quoted("demo.Echo/echo"), "demo.Echo/echo");
        assert_eq!(quoted("a;b"), "'a;b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn times_have_few_digits() {
        let shown =
            [12, 83_100, 1_204_000, 12_345_000_000].map(|ns| time(Duration::from_nanos(ns)));
        assert_eq!(shown, ["12 ns", "83.1 µs", "1.20 ms", "12.35 s"]);
    }
}
