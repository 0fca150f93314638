//! Calls over memory for valgrind to count: what a call costs between builds that disagree.
//!
//! ```text
//! $ valgrind --tool=callgrind target/release/fallback rkyv|messagepack|json CALLS
//! ```
#![allow(clippy::print_stdout, reason = "it says what it did")]

use ringcall_benches::stack::Stack;
use ringcall_core::Codec;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let codec = match arguments.next().as_deref() {
        Some("messagepack") => Codec::MESSAGEPACK,
        Some("json") => Codec::JSON,
        _ => Codec::RKYV,
    };
    let calls = arguments.next().and_then(|calls| calls.parse().ok()).unwrap_or(10_000);
    println!("{}", Stack::with(codec).run(calls));
}
