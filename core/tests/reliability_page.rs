//! `docs/RELIABILITY.md` promises: each promise names the tests that hold it, and they exist.

mod cited;

use cited::cited;

const PAGE: &str = include_str!("../../docs/RELIABILITY.md");

/// A promise: its heading, and the text behind it.
fn promises() -> Vec<(&'static str, &'static str)> {
    PAGE.split("\n## ").skip(1).map(|part| part.split_once('\n').expect("it has a text")).collect()
}

/// The paragraph of a promise that begins with this word.
fn paragraph(text: &'static str, word: &str) -> &'static str {
    let begins = format!("**{word}.** ");
    let mut found = text.split("\n\n").filter_map(|part| part.trim().strip_prefix(&begins[..]));
    let paragraph = found.next().unwrap_or_else(|| panic!("no {word}: {text}"));
    assert!(found.next().is_none(), "{word} twice: {text}");
    paragraph
}

#[test]
fn promises_are_numbered_and_say_what_they_are_not() {
    for (number, (heading, text)) in promises().into_iter().enumerate() {
        assert!(heading.starts_with(&format!("R{}. ", number + 1)), "{heading}");
        assert!(paragraph(text, "Not promised").len() > 20, "{heading}");
        assert!(text.trim_start().starts_with(|c: char| c != '*'), "{heading} has no promise");
    }
    assert!(promises().len() >= 20);
}

#[test]
fn every_promise_is_held_by_tests_that_exist() {
    for (heading, text) in promises() {
        let tests = cited(paragraph(text, "Tests"));
        assert!(!tests.is_empty(), "{heading} is held by nothing");
        for test in tests {
            assert!(test.is_test(), "{heading}: {test:?} is no test");
        }
    }
}

#[test]
fn what_the_simulator_checks_is_there() {
    for (heading, text) in promises() {
        let oracles = paragraph(text, "Simulator");
        if let Some(why) = oracles.strip_prefix("None: ") {
            assert!(!why.is_empty(), "{heading}");
            continue;
        }
        for oracle in cited(oracles) {
            assert!(oracle.is_function(), "{heading}: {oracle:?} is not there");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    cited::assert_links_lead_somewhere(PAGE, "docs");
}
