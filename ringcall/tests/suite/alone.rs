//! Tests that run in a process of their own: this program again, told which test to run.

use std::process::Command;

/// Set in a process that runs one test only.
const ALONE: &str = "RINGCALL_TEST_ALONE";

/// What tells this program to run one test; `module` is the `module_path!()` of the test.
pub(crate) fn only(module: &str, test: &str) -> [String; 3] {
    let (_this_program, module) = module.split_once("::").expect("tests are in modules");
    [format!("{module}::{test}"), "--exact".to_owned(), "--nocapture".to_owned()]
}

/// Whether this process runs one test only.
pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// What that test says, if it passes; else the same as an error.
pub(crate) fn run(command: &mut Command) -> std::io::Result<Result<String, String>> {
    let output = command.env(ALONE, "1").output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let has_passed = output.status.success() && said.contains("1 passed");
    Ok(if has_passed { Ok(said) } else { Err(format!("{}: {said}", output.status)) })
}

/// Runs a test where what it does to its process harms no other.
pub(crate) fn in_its_own_process(module: &str, test: &str, body: impl FnOnce()) {
    if is_alone() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    if let Err(why) = run(command.args(only(module, test))).unwrap() {
        panic!("{why}");
    }
}
