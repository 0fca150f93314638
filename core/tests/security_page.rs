//! `SECURITY.md` says what is defended by what: rows that there are, `unsafe` that there is.

mod cited;

use std::fs;

use cited::{GROUPS, members, root, source_files};

const PAGE: &str = include_str!("../../SECURITY.md");

/// Words such as `A4`, wherever they stand.
fn rows() -> Vec<(char, u32)> {
    let words = PAGE.split(|c: char| !c.is_ascii_alphanumeric());
    let row = |word: &str| {
        let group = word.chars().next().filter(|group| GROUPS.iter().any(|(of, _)| of == group))?;
        Some((group, word[1..].parse().ok()?))
    };
    words.filter_map(row).collect()
}

/// Crates with a number of lines that have `unsafe`.
fn inventory() -> Vec<(&'static str, usize)> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/` | "));
    let entry = |(folder, rest): (&'static str, &str)| {
        Some((folder, rest.split_once(" |")?.0.parse().ok()?))
    };
    lines.filter_map(entry).collect()
}

/// What the page's `grep` counts.
fn lines_with_unsafe(folder: &str) -> usize {
    let mut files = Vec::new();
    source_files(&root().join(folder).join("src"), &mut files);
    let has_unsafe = |line: &&str| {
        let after = line.split("unsafe ").skip(1).map(str::trim_start);
        let begins = ["{", "impl", "fn", "trait", "extern"];
        let mut found = after.filter(|after| begins.iter().any(|begin| after.starts_with(begin)));
        !line.trim_start().starts_with("//") && found.next().is_some()
    };
    let source = |file| fs::read_to_string(file).expect("it is text");
    files.iter().map(|file| source(file).lines().filter(has_unsafe).count()).sum()
}

#[test]
fn rows_that_are_named_are_there() {
    let rows = rows();
    for (group, number) in &rows {
        let is_row = GROUPS.iter().any(|(of, last)| of == group && (1..=*last).contains(number));
        assert!(is_row, "FAULTS.md has no row {group}{number}");
    }
    assert!(rows.len() > 60, "only {}", rows.len());
}

#[test]
fn the_inventory_of_unsafe_is_what_there_is() {
    for (folder, lines) in inventory() {
        assert_eq!(lines_with_unsafe(folder), lines, "lines with `unsafe` in {folder}/src");
        let library =
            fs::read_to_string(root().join(folder).join("src/lib.rs")).expect("a library");
        let is_forbidden = library.contains("#![forbid(unsafe_code)]");
        assert_eq!(is_forbidden, lines == 0, "{folder}/src/lib.rs forbids what it has not");
    }
}

/// Examples, benchmarks, targets of the fuzzer and `xtask` are nobody's dependencies.
#[test]
fn no_crate_is_left_out_of_the_inventory() {
    let listed = inventory();
    for member in members() {
        let name = member.strip_prefix(root()).expect("it is in the workspace").to_str();
        let name = name.expect("folders are text");
        let is_tool =
            ["examples", "benches", "fuzz", "xtask"].iter().any(|of| name.starts_with(of));
        assert!(is_tool || listed.iter().any(|(folder, _)| *folder == name), "{name} is missing");
    }
}

#[test]
fn links_lead_somewhere() {
    cited::assert_links_lead_somewhere(PAGE, "");
}
