//! Pages that name tests: what they name is looked up in the sources.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, missing_debug_implementations, reason = "a module of tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rows of each group of `docs/FAULTS.md`.
pub const GROUPS: [(char, u32); 8] =
    [('A', 19), ('B', 15), ('C', 17), ('D', 16), ('E', 26), ('F', 12), ('G', 21), ('H', 9)];

/// A function that a page names.
#[derive(Clone, Copy, Debug)]
pub struct Cited {
    pub file: &'static str,
    pub name: &'static str,
}

/// What a text has in backticks: `file::name`, or a name alone for the file before it.
pub fn cited(text: &'static str) -> Vec<Cited> {
    let (mut file, mut all) = (None, Vec::new());
    for part in text.split('`').skip(1).step_by(2) {
        let (path, name) = part.split_once("::").map_or((file, part), |(p, name)| (Some(p), name));
        file = path;
        all.push(Cited { file: path.unwrap_or_else(|| panic!("{part} has no file")), name });
    }
    all
}

impl Cited {
    /// Whether it is a test of its file.
    pub fn is_test(self) -> bool {
        is_test(&self.source(), self.name)
    }

    /// Whether its file has such a function.
    pub fn is_function(self) -> bool {
        let function = format!("fn {}(", self.name);
        self.source().lines().any(|line| line.contains(&function))
    }

    fn source(self) -> String {
        let source = fs::read_to_string(root().join(self.file));
        source.unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("core is a folder of it").to_owned()
}

/// Whether it is a test there: a function, or what `closes_with!` makes one of.
pub fn is_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let at = lines.iter().position(|line| line.starts_with(&function));
    let attributes = at.map(|at| lines[..at].iter().rev().take_while(|line| line.starts_with('#')));
    attributes.is_some_and(|mut lines| lines.any(|line| *line == "#[test]"))
        || lines.iter().any(|line| line.starts_with(&format!("{name}: \"Found: ")))
}

/// All Rust files of a folder and those in it.
pub fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The members of the workspace.
pub fn members() -> Vec<PathBuf> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has one");
    let listed = manifest.lines().skip_while(|line| *line != "members = [").skip(1);
    let member = |line: &str| Some(root().join(line.split('"').nth(1)?));
    listed.map_while(|line| (line != "]").then(|| member(line))).flatten().collect()
}

/// Asserts that what a page links to is there: files, and headings in them.
#[track_caller]
pub fn assert_links_lead_somewhere(page: &str, folder: &str) {
    for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if link.starts_with("http") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let path = root().join(folder).join(file);
        let text = match file {
            "" => page.to_owned(),
            _ if path.is_dir() => continue,
            _ => fs::read_to_string(&path).unwrap_or_else(|error| panic!("{link}: {error}")),
        };
        let is_there =
            heading.is_empty() || text.lines().any(|line| anchor(line) == Some(heading.to_owned()));
        assert!(is_there, "{link} leads nowhere");
    }
}

/// What a heading is linked by.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}
