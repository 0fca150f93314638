//! Mutants that are a change of one source, made in a copy: product code knows nothing of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{cargo, cargo_within};

const TABLE: &str = include_str!("../../mutants.txt");
/// The copy of the sources.
const COPY: &str = "target/mutants/copy";
/// What is built of it, as seen from there.
const TARGET: &str = "../changed";
/// A test that runs longer does not end any more: its mutant is noticed.
const SECONDS: &str = "180";

/// A mutant.
pub(super) struct Change {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    file: &'static str,
    /// What `cargo test` is told: packages, features, the program.
    program: &'static str,
    test: &'static str,
    before: String,
    after: String,
}

/// Those of the table, see its head.
pub(super) fn all() -> Result<Vec<Change>, String> {
    let paragraphs = TABLE.split("\n\n").filter(|it| it.starts_with('['));
    paragraphs.map(|it| parsed(it).ok_or_else(|| format!("this is no mutant:\n{it}"))).collect()
}

fn parsed(paragraph: &'static str) -> Option<Change> {
    let mut lines = paragraph.lines();
    let (name, what) = lines.next()?.strip_prefix('[')?.split_once("] ")?;
    let file = lines.next()?;
    let (program, test) = lines.next()?.rsplit_once(' ')?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for line in lines {
        match line.split_at_checked(2)? {
            ("- ", text) => before.push(text),
            ("+ ", text) => after.push(text),
            _ => return None,
        }
    }
    let (before, after) = (before.join("\n"), after.join("\n"));
    Some(Change { name, what, file, program, test, before, after })
}

/// Makes the copy and runs the tests of all these mutants in it: whoever fails anyway would notice whatever is changed.
pub(super) fn all_holds_unchanged(changes: &[Change]) -> Result<(), String> {
    if changes.is_empty() {
        return Ok(());
    }
    copy_sources()?;
    let programs: BTreeSet<&str> = changes.iter().map(|it| it.program).collect();
    programs.into_iter().try_for_each(build)?;
    let tests: BTreeSet<_> = changes.iter().map(|it| (it.program, it.test)).collect();
    let wrong = |(program, test): (&str, &str)| match passes(program, test) {
        Ok(true) => None,
        Ok(false) => Some(format!("with every defence in place there fails {program} {test}")),
        Err(why) => Some(why),
    };
    let wrong: Vec<String> = tests.into_iter().filter_map(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

impl Change {
    /// Who notices it.
    pub(super) fn noticed(&self) -> Result<Option<String>, String> {
        let copy = Path::new(COPY).join(self.file);
        let source = read(&copy)?;
        write(&copy, &self.applied(&source)?)?;
        let passes = build(self.program).and_then(|()| passes(self.program, self.test));
        write(&copy, &source)?;
        Ok((!passes?).then(|| format!("`{}`: `{}`", self.program, self.test)))
    }

    fn applied(&self, source: &str) -> Result<String, String> {
        match source.matches(&self.before).count() {
            1 => Ok(source.replacen(&self.before, &self.after, 1)),
            found => Err(format!("{} has {found} times: {}", self.file, self.before)),
        }
    }
}

/// Apart from running: what does not compile is noticed by nobody.
fn build(program: &str) -> Result<(), String> {
    let mut build = in_copy(cargo(&["test", "--quiet", "--no-run"]), program);
    let output = build.output().map_err(|error| format!("{build:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("it does not build: {said}")) }
}

fn passes(program: &str, test: &str) -> Result<bool, String> {
    let mut run = in_copy(cargo_within(SECONDS, &["test", "--quiet"]), program);
    run.args(["--", "--exact", test]).stderr(Stdio::null());
    let output = run.output().map_err(|error| format!("{run:?}: {error}"))?;
    // None passes as well where the name is wrong.
    let is_one = String::from_utf8_lossy(&output.stdout).contains(" 1 passed;");
    match output.status.success() {
        true if !is_one => Err(format!("{program} has no test {test}")),
        passes => Ok(passes),
    }
}

/// All is built far more often than it is run.
fn in_copy(mut cargo: Command, program: &str) -> Command {
    cargo.current_dir(COPY).args(["--target-dir", TARGET]).args(program.split(' '));
    cargo.args(["--config", "profile.dev.package.ringcall-cluster.opt-level=0"]);
    cargo.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo
}

/// Brings the copy up to date. Only what differs is written, or all would be built again.
fn copy_sources() -> Result<(), String> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = list.output().map_err(|error| format!("{list:?}: {error}"))?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let files: BTreeSet<&Path> =
        listed.split_terminator('\0').map(Path::new).filter(|file| file.exists()).collect();
    for file in &files {
        let copy = Path::new(COPY).join(file);
        let source = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if fs::read(&copy).is_ok_and(|there| there == source) {
            continue;
        }
        let folder = copy.parent().expect("it is in the copy");
        fs::create_dir_all(folder)
            .and_then(|()| fs::copy(file, &copy))
            .map_err(|error| format!("{}: {error}", copy.display()))?;
    }
    remove_others(Path::new(COPY), &files)
}

/// What is in the copy and no source any more would still be built.
fn remove_others(folder: &Path, files: &BTreeSet<&Path>) -> Result<(), String> {
    for path in entries(folder)? {
        let source = path.strip_prefix(COPY).expect("it is in the copy");
        if path.is_dir() {
            remove_others(&path, files)?;
        } else if !files.contains(source) {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).and_then(|all| all.map(|it| Ok(it?.path())).collect());
    entries.map_err(|error| format!("{}: {error}", folder.display()))
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    /// All sources of tests, one behind the other.
    fn all_sources(folder: &Path, sources: &mut String) {
        for path in entries(folder).unwrap() {
            let is_source = path.extension().is_some_and(|it| it == "rs");
            if path.is_dir() && !path.ends_with("target") {
                all_sources(&path, sources);
            } else if is_source {
                sources.push_str(&read(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_change_finds_its_text_and_its_test() {
        let mut sources = String::new();
        all_sources(root(), &mut sources);
        for change in all().unwrap() {
            let source = read(&root().join(change.file)).unwrap();
            let changed = change.applied(&source).unwrap();
            assert_ne!(changed, source, "{} changes nothing", change.name);
            let test = change.test.rsplit("::").next().unwrap();
            assert!(sources.contains(&format!("fn {test}(")), "{}: no {test}", change.name);
        }
    }

    #[test]
    fn every_name_is_one_mutants() {
        let changes = all().unwrap();
        let switches = super::super::MUTANTS.iter().map(|it| it.0);
        let names: Vec<&str> = switches.chain(changes.iter().map(|it| it.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
