//! `docs/FAULTS.md` says which test covers which fault: its tests exist, and none is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/FAULTS.md");
/// The rows of each group.
const GROUPS: [(char, u32); 8] =
    [('A', 19), ('B', 15), ('C', 17), ('D', 15), ('E', 26), ('F', 12), ('G', 19), ('H', 9)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a folder of it").to_owned()
}

/// The cells of each row.
fn rows() -> Vec<[&'static str; 4]> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        <[&str; 4]>::try_from(cells).unwrap_or_else(|cells| panic!("four cells: {cells:?}"))
    });
    rows.filter(|[row, ..]| *row != "row").collect()
}

/// The tests that a row names, as file and name.
fn tests_of([row, .., covered]: [&'static str; 4]) -> Vec<(&'static str, &'static str)> {
    let (mut file, mut tests) = (None, Vec::new());
    for text in covered.split('`').skip(1).step_by(2) {
        let (path, name) = text.split_once("::").map_or((file, text), |(p, name)| (Some(p), name));
        file = path;
        tests.push((path.unwrap_or_else(|| panic!("{row}: {text} has no file")), name));
    }
    tests
}

/// Whether it is a test there: a function, or what `closes_with!` makes one of.
fn is_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| line.starts_with(&function));
    let attributes = at.map(|at| lines[..at].iter().rev().take_while(|line| line.starts_with('#')));
    attributes.is_some_and(|mut lines| lines.any(|line| *line == "#[test]"))
        || lines.iter().any(|line| line.starts_with(&format!("{name}: \"Found: ")))
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
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
        let why = ["impossible by design, because ", "not yet, comes with "];
        let says_why = why.iter().any(|why| row[3].starts_with(why));
        assert!(says_why || !tests_of(row).is_empty(), "{row:?}");
    }
}

#[test]
fn every_test_of_the_page_exists() {
    for row in rows() {
        for (file, name) in tests_of(row) {
            let source = fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|error| panic!("{}: {file}: {error}", row[0]));
            assert!(is_test(&source, name), "{}: {file} has no test {name}", row[0]);
        }
    }
}

#[test]
fn every_test_of_a_row_is_on_the_page() {
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows() {
        named.entry(row[0]).or_default().extend(tests_of(row).iter().map(|(_, name)| *name));
    }
    let mut files = Vec::new();
    let crates = [
        "buf",
        "cluster",
        "codec-rkyv",
        "compression",
        "core",
        "macros",
        "net",
        "plugins/metrics",
        "ringcall",
        "sim",
        "tls",
        "transport-epoll",
    ];
    for crate_ in crates {
        for folder in ["src", "tests"].map(|folder| root().join(crate_).join(folder)) {
            if folder.exists() {
                source_files(&folder, &mut files);
            }
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
    assert!(seen > 70, "only {seen}");
}
