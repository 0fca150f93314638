//! What the macros say about what they do not accept (`ui`, beside each file). What they accept is in `accepted`.

use std::process::Command;

/// Whose words the files are in. `TRYBUILD=overwrite cargo test --test ui` writes them again.
const RUSTC: &str = "rustc 1.95.0 ";

#[test]
fn what_macros_say() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().expect("there is a compiler").stdout;
    match String::from_utf8_lossy(&version) {
        // Nothing that passes is among them: so they and what they need are checked only, and not built.
        version if version.starts_with(RUSTC) => {
            trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
        }
        #[expect(clippy::print_stderr)]
        version => eprintln!("skipped: the errors are those of {RUSTC}, this is {version}"),
    }
}
