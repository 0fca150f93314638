//! Files of shapes: a changed layout is seen when a change is reviewed, not when it is deployed.
//!
//! ```no_run
//! # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> f64; }
//! #[test]
//! fn layouts_are_those_of_the_file() {
//!     ringcall::shapes::check("shapes.txt", &[QuotesClient::service_table()]);
//! }
//! ```

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::ServiceTable;

pub use ringcall_codec_rkyv::compare::{Comparison, Verdict, compare};
pub use ringcall_codec_rkyv::described::{Described, Field, NotDescribed, Type, UserType, Variant};

/// The variable that has [`check`] write the file.
const UPDATE: &str = "RINGCALL_UPDATE_SHAPES";

/// The file of these services, as [`check`] keeps it.
#[must_use]
pub fn render(tables: &[&ServiceTable]) -> String {
    let methods = tables.iter().flat_map(|table| table.methods());
    ringcall_codec_rkyv::compare::render(methods.map(|method| {
        let signatures = method.signatures();
        (method.full_name(), signatures.in_text.as_str(), signatures.out_text.as_str())
    }))
}

/// For a test: compares the layouts of these services with those in a file, whose path is relative to the
/// crate's manifest. With `RINGCALL_UPDATE_SHAPES=1` in the environment it writes the file instead.
///
/// # Panics
/// When they differ, with what has changed and what that means for callers and servers of before; and when the
/// file cannot be read.
#[track_caller]
pub fn check(path: impl AsRef<Path>, tables: &[&ServiceTable]) {
    let path = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default().join(path);
    let now = render(tables);
    if env::var_os(UPDATE).is_some_and(|update| update != "0") {
        return std::fs::write(&path, now)
            .unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
    }
    let before = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; `{UPDATE}=1` writes the file", path.display())
    });
    if let Err(difference) = compare_with(&before, &now) {
        panic!(
            "layouts are not those of {}; `{UPDATE}=1` accepts them\n{difference}",
            path.display()
        );
    }
}

/// What has changed, if anything has.
fn compare_with(before: &str, now: &str) -> Result<(), String> {
    // A checkout may have other line ends.
    if before.lines().eq(now.lines()) {
        return Ok(());
    }
    let mut text = String::new();
    match compare(before, now) {
        Ok(comparisons) => {
            let changed = |comparison: &&Comparison| {
                !comparison.differences.is_empty() || comparison.verdict != Verdict::FastPath
            };
            for comparison in comparisons.iter().filter(changed) {
                let _ = writeln!(text, "{comparison}");
            }
        }
        Err(error) => text = format!("the file makes no sense: {error}\n"),
    }
    let (before, now): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    for line in before.iter().filter(|line| !now.contains(line)) {
        let _ = writeln!(text, "-{line}");
    }
    for line in now.iter().filter(|line| !before.contains(line)) {
        let _ = writeln!(text, "+{line}");
    }
    Err(text)
}
