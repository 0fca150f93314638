//! `docs/FAULTS.md` says which test covers which fault: its tests exist, and none is missing.

mod cited;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cited::{Cited, GROUPS, cited, is_test, members, source_files};

const PAGE: &str = include_str!("../../docs/FAULTS.md");
/// How a row begins that needs no test, and how one that waits for what it is about.
const IMPOSSIBLE: &str = "impossible by design, because ";
const NOT_YET: &str = "not yet, comes with ";

/// The cells of each row.
fn rows() -> Vec<[&'static str; 4]> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        <[&str; 4]>::try_from(cells).unwrap_or_else(|cells| panic!("four cells: {cells:?}"))
    });
    rows.filter(|[row, ..]| *row != "row").collect()
}

/// The tests that a row names.
fn tests_of([.., covered]: [&'static str; 4]) -> Vec<Cited> {
    cited(covered)
}

/// Rows without a test of all that they say, and without a reason why it cannot happen.
fn uncovered() -> Vec<[&'static str; 4]> {
    let is_covered = |row: &[&'static str; 4]| {
        row[3].starts_with(IMPOSSIBLE) || !row[3].starts_with(NOT_YET) && !tests_of(*row).is_empty()
    };
    rows().into_iter().filter(|row| !is_covered(row)).collect()
}

/// `A3` for `a03_length_limits`, and more than one for `b02_b03_a_slot_has_one_owner`.
fn rows_of(name: &str) -> Vec<String> {
    let row = |part: &str| {
        let (group, number) = (part.chars().next()?.to_ascii_uppercase(), part.get(1..)?);
        let is_row = part.len() == 3 && GROUPS.iter().any(|(of, _)| *of == group);
        is_row.then(|| number.parse().ok()).flatten().map(|number: u32| format!("{group}{number}"))
    };
    name.split('_').map_while(row).collect()
}

#[test]
fn every_row_is_there_and_says_what_covers_it() {
    let found: Vec<String> = rows().iter().map(|[row, ..]| (*row).to_owned()).collect();
    let all =
        GROUPS.iter().flat_map(|(group, last)| (1..=*last).map(move |n| format!("{group}{n}")));
    assert_eq!(found, all.collect::<Vec<_>>());
    for row in rows() {
        let says_why = [IMPOSSIBLE, NOT_YET].iter().any(|why| row[3].starts_with(why));
        assert!(says_why || !tests_of(row).is_empty(), "{row:?}");
    }
}

/// What `cargo xtask faults` prints. Group G may wait for what the cluster does not have yet.
#[test]
#[ignore = "it is a list for people, asked for by `cargo xtask faults`"]
#[expect(clippy::print_stdout, reason = "it is a list for people")]
fn no_row_is_without_a_test_or_a_reason() {
    let (waiting, missing): (Vec<_>, Vec<_>) =
        uncovered().into_iter().partition(|[row, ..]| row.starts_with('G'));
    let names = |rows: &[[&str; 4]]| {
        rows.iter().map(|[row, case, _, why]| format!("{row}: {case}: {why}\n")).collect::<String>()
    };
    let covered = rows().len() - waiting.len() - missing.len();
    println!("{covered} of {} rows have tests or a reason.", rows().len());
    print!("Waiting for the cluster:\n{}Without either:\n{}", names(&waiting), names(&missing));
    assert!(missing.is_empty(), "{} rows have neither a test nor a reason", missing.len());
}

#[test]
fn every_test_of_the_page_exists() {
    for row in rows() {
        for test in tests_of(row) {
            assert!(test.is_test(), "{}: {test:?} is no test", row[0]);
        }
    }
}

#[test]
fn every_test_of_a_row_is_on_the_page() {
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows() {
        named.entry(row[0]).or_default().extend(tests_of(row).iter().map(|test| test.name));
    }
    let mut files = Vec::new();
    for folder in members().iter().flat_map(|member| ["src", "tests"].map(|part| member.join(part)))
    {
        if folder.exists() {
            source_files(&folder, &mut files);
        }
    }
    let mut seen = 0;
    for file in files {
        let source = fs::read_to_string(&file).expect("it is text");
        for line in source.lines().map(str::trim_start) {
            let line = line.strip_prefix("fn ").unwrap_or(line);
            let name = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            let name = name.expect("split gives one at least");
            for row in rows_of(name).iter().filter(|_| is_test(&source, name)) {
                let named = named.get(&row[..]).is_some_and(|names| names.contains(name));
                assert!(named, "{row} does not name {name} of {}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "only {seen}");
}

#[test]
fn links_lead_somewhere() {
    cited::assert_links_lead_somewhere(PAGE, "docs");
}
