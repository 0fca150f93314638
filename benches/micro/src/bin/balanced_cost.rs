//! Makes so many balanced calls, for counting their instructions without a benchmark around them:
//!
//! ```text
//! $ for calls in 10000 20000; do valgrind --tool=callgrind target/release/balanced_cost $calls; done
//! ```
//!
//! The difference, divided by 10 000, is a call. A second argument says over what instead: `routed`, with ten rules, or
//! `direct`, one connection.
#![allow(clippy::print_stdout, reason = "it says what it did")]

use ringcall_benches::balanced::Hundred;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let calls = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let what = arguments.next().unwrap_or_default();
    let answered = match &what[..] {
        "routed" => Hundred::routed().balanced(calls),
        "direct" => Hundred::new().direct(calls),
        _ => Hundred::new().balanced(calls),
    };
    println!("{answered} of {calls} answered");
}
