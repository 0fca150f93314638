//! How many instructions the parts take, counted by valgrind:
//! `cargo bench -p ringcall-benches --bench instructions --features instructions`.
//!
//! Benchmarks of calls make [`CALLS`] of them, so a thousandth of what is reported is one call. The kernel's
//! instructions are not counted.

#![allow(missing_docs, reason = "made by macros")]

use std::hint::black_box;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use ringcall_benches::IN_FLIGHT;
use ringcall_benches::balanced::Hundred;
use ringcall_benches::calls::Pair;
use ringcall_benches::dispatch::Dispatch;
use ringcall_benches::frames::{Front, decode_request, encode_request};
use ringcall_benches::items::Items;
use ringcall_benches::messages::{Book, Desk, Order, book, order};
use ringcall_benches::stack::Stack;
use ringcall_benches::timers::Timers;
use ringcall_core::Codec;

const CALLS: u64 = 1000;

/// At most so many instructions for the bare protocol, there and back: a little more than it takes, so that
/// it does not creep up. Core's own budget of 800 is held by `core/examples/call_cost.rs`; the README says
/// why the two differ.
const CORE_LIMIT: u64 = 900;

// What was set up is given back, so that its end is not counted.

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(
    Callgrind::default().hard_limits([(EventKind::Ir, CORE_LIMIT * CALLS)])
))]
#[bench::raw_64(Pair::new(64))]
fn core_only(mut pair: Pair) -> (Pair, u64) {
    let bytes = pair.run(black_box(CALLS));
    (pair, bytes)
}

#[library_benchmark]
#[bench::order_104(Stack::new())]
#[bench::order_104_messagepack(Stack::with(Codec::MESSAGEPACK))]
#[bench::order_104_json(Stack::with(Codec::JSON))]
fn core_codec_futures(mut stack: Stack) -> (Stack, u64) {
    let sum = stack.run(black_box(CALLS));
    (stack, sum)
}

// On epoll everywhere, so that the count is the same on every machine.
#[library_benchmark(config = LibraryBenchmarkConfig::default().env("RINGCALL_TRANSPORT", "epoll"))]
#[bench::order_104(Dispatch::sums(IN_FLIGHT))]
#[bench::raw_64(Dispatch::echoes(IN_FLIGHT, 64))]
fn dispatch(mut dispatch: Dispatch) -> (Dispatch, u64) {
    let sum = dispatch.run(black_box(CALLS));
    (dispatch, sum)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().env("RINGCALL_TRANSPORT", "epoll"))]
#[bench::tick_64(Items::new())]
fn items(mut items: Items) -> (Items, u64) {
    let sum = items.run(black_box(CALLS));
    (items, sum)
}

#[library_benchmark]
#[bench::hundred(Hundred::new())]
#[bench::hundred_ten_rules(Hundred::routed())]
fn balanced(mut hundred: Hundred) -> (Hundred, u64) {
    let answered = hundred.balanced(black_box(CALLS));
    (hundred, answered)
}

#[library_benchmark]
#[bench::request(3)]
fn encode_front(slot: u32) -> Front {
    encode_request(black_box(slot))
}

#[library_benchmark]
#[bench::request(encode_request(3))]
fn decode_front(front: Front) -> u64 {
    let (head, header) = decode_request(black_box(&front)).expect("it is long enough");
    u64::from(head.length) + header.method
}

#[library_benchmark]
#[bench::thousand(Timers::new(1000))]
fn arm_and_cancel(mut timers: Timers) -> (Timers, u64) {
    let seen = timers.arm_and_cancel(black_box(CALLS));
    (timers, seen)
}

#[library_benchmark]
#[bench::thousand(Timers::new(1000))]
fn arm_and_fire(mut timers: Timers) -> (Timers, u64) {
    let sum = timers.fire_all();
    (timers, sum)
}

#[library_benchmark]
#[bench::order_104(Desk::new(order()))]
fn encode_small(mut desk: Desk<Order>) -> (Desk<Order>, usize) {
    let len = desk.encode().len();
    (desk, len)
}

#[library_benchmark]
#[bench::order_104(Desk::new(order()))]
fn check_small(desk: Desk<Order>) -> (Desk<Order>, usize) {
    let len = desk.check().as_bytes().len();
    (desk, len)
}

#[library_benchmark]
#[bench::book_65k(Desk::new(book()))]
fn encode_large(mut desk: Desk<Book>) -> (Desk<Book>, usize) {
    let len = desk.encode().len();
    (desk, len)
}

#[library_benchmark]
#[bench::book_65k(Desk::new(book()))]
fn check_large(desk: Desk<Book>) -> (Desk<Book>, usize) {
    let len = desk.check().as_bytes().len();
    (desk, len)
}

library_benchmark_group!(
    name = calls,
    benchmarks = [core_only, core_codec_futures, dispatch, items, balanced]
);
library_benchmark_group!(
    name = parts,
    benchmarks = [
        encode_front,
        decode_front,
        arm_and_cancel,
        arm_and_fire,
        encode_small,
        check_small,
        encode_large,
        check_large
    ]
);
main!(library_benchmark_groups = [calls, parts]);
