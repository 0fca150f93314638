//! What the macros accept (`ui/pass`), and what they say about the rest (`ui`, beside each file).

use std::process::Command;

/// Whose words the files are in. `TRYBUILD=overwrite cargo test --test ui` writes them again.
const RUSTC: &str = "rustc 1.95.0 ";

#[test]
fn what_macros_say() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().expect("there is a compiler").stdout;
    match String::from_utf8_lossy(&version) {
        version if version.starts_with(RUSTC) => cases.compile_fail("tests/ui/*.rs"),
        #[expect(clippy::print_stderr)]
        version => eprintln!(
            "only what passes was tried: the errors are those of {RUSTC}, this is {version}"
        ),
    }
}
