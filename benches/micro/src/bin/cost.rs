//! Makes so many calls of one kind, or takes so many items, for a profiler: `cost KIND COUNT`. The difference
//! of two counts is what they cost, without setting up:
//!
//! ```text
//! $ cargo build --release -p ringcall-benches --bin cost
//! $ for n in 10000 20000; do
//! >   RINGCALL_TRANSPORT=epoll valgrind --tool=callgrind --callgrind-out-file=cost.$n target/release/cost raw $n
//! > done
//! ```

#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringcall_benches::IN_FLIGHT;
use ringcall_benches::calls::Pair;
use ringcall_benches::dispatch::Dispatch;
use ringcall_benches::items::Items;
use ringcall_benches::stack::Stack;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let kind = args.next().unwrap_or_default();
    let Some(count) = args.next().and_then(|count| count.parse().ok()) else {
        return ExitCode::FAILURE;
    };
    let seen = match kind.as_str() {
        "core" => Pair::new(64).run(count),
        "codec" => Stack::new().run(count),
        "typed" => Dispatch::sums(IN_FLIGHT).run(count),
        "raw" => Dispatch::echoes(IN_FLIGHT, 64).run(count),
        "items" => Items::new().run(count),
        _ => return ExitCode::FAILURE,
    };
    std::hint::black_box(seen);
    ExitCode::SUCCESS
}
