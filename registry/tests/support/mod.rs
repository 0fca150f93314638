//! What tests of the registry share.
#![allow(unreachable_pub, dead_code, reason = "a module of tests, of which each uses a part")]

use std::time::Duration;

/// Waits until something is so, for as long as a busy machine may take.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
