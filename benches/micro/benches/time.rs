//! How long the parts take: `cargo bench -p ringcall-benches --bench time`.
//!
//! Every benchmark of calls reports the time of one call, with [`IN_FLIGHT`] of them under way.

use std::hint::black_box;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use ringcall_benches::balanced::Hundred;
use ringcall_benches::calls::Pair;
use ringcall_benches::compression::Press;
use ringcall_benches::dispatch::Dispatch;
use ringcall_benches::messages::{Desk, Summed, book, order};
use ringcall_benches::stack::Stack;
use ringcall_benches::timers::Timers;
use ringcall_benches::{IN_FLIGHT, frames};
use ringcall_compression::Compression;
use ringcall_core::Codec;

criterion_group!(all, frames, timers, messages, compression, calls, balanced);
criterion_main!(all);

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    let (request, reply) = (frames::encode_request(3), frames::encode_reply(3));
    group.bench_function("encode_request", |b| b.iter(|| frames::encode_request(black_box(3))));
    group.bench_function("decode_request", |b| {
        b.iter(|| frames::decode_request(black_box(&request)))
    });
    group.bench_function("encode_reply", |b| b.iter(|| frames::encode_reply(black_box(3))));
    group.bench_function("decode_reply", |b| b.iter(|| frames::decode_reply(black_box(&reply))));
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wheel");
    let mut timers = Timers::new(1000);
    bench_many(&mut group, "arm_and_cancel", |times| timers.arm_and_cancel(times));
    group.bench_function("arm_and_fire_1000", |b| b.iter(|| timers.fire_all()));
}

fn messages(c: &mut Criterion) {
    bench_message(c, "message_104B", Desk::new(order()));
    bench_message(c, "message_65KB", Desk::new(book()));
}

fn bench_message<M: Summed>(c: &mut Criterion, name: &str, mut desk: Desk<M>) {
    let mut group = c.benchmark_group(name);
    group.bench_function("encode", |b| b.iter(|| desk.encode()));
    group.bench_function("encode_to_bytes", |b| b.iter(|| desk.encode_to_bytes()));
    group.bench_function("encode_messagepack", |b| b.iter(|| desk.encode_messagepack()));
    group.bench_function("encode_postcard", |b| b.iter(|| desk.encode_postcard()));
    group.bench_function("check", |b| b.iter(|| desk.check()));
    let view = desk.check();
    group.bench_function("read", |b| b.iter(|| Desk::<M>::read(black_box(&view))));
    group.bench_function("check_and_own", |b| b.iter(|| desk.check_and_own()));
    group.bench_function("decode_messagepack", |b| b.iter(|| desk.decode_messagepack()));
    group.bench_function("decode_postcard", |b| b.iter(|| desk.decode_postcard()));
}

fn compression(c: &mut Criterion) {
    let mut group = c.benchmark_group("text_64KiB");
    for algorithm in Compression::ALL {
        let press = Press::new(algorithm);
        group.bench_function(format!("compress_{algorithm}"), |b| b.iter(|| press.compress()));
        group.bench_function(format!("inflate_{algorithm}"), |b| b.iter(|| press.inflate()));
    }
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("call");
    for (name, body_bytes) in [("core_raw_64B", 64), ("core_raw_65KB", 65_000)] {
        let mut pair = Pair::new(body_bytes);
        bench_many(&mut group, name, |calls| pair.run(calls));
    }
    let mut stack = Stack::new();
    bench_many(&mut group, "core_codec_futures", |calls| stack.run(calls));
    for (name, codec) in [("fallback", Codec::MESSAGEPACK), ("fallback_json", Codec::JSON)] {
        let mut stack = Stack::with(codec);
        bench_many(&mut group, name, |calls| stack.run(calls));
    }
    let mut dispatch = Dispatch::sums(IN_FLIGHT);
    bench_many(&mut group, "dispatch", |calls| dispatch.run(calls));
    for (name, body_bytes) in [("dispatch_raw_64B", 64), ("dispatch_raw_65KB", 65_000)] {
        let mut dispatch = Dispatch::echoes(IN_FLIGHT, body_bytes);
        bench_many(&mut group, name, |calls| dispatch.run(calls));
    }
}

/// What a balanced channel over a hundred instances adds: the difference of the two.
fn balanced(c: &mut Criterion) {
    let mut group = c.benchmark_group("balanced");
    let mut hundred = Hundred::new();
    bench_many(&mut group, "direct", |calls| hundred.direct(calls));
    bench_many(&mut group, "hundred", |calls| hundred.balanced(calls));
    let mut routed = Hundred::routed();
    bench_many(&mut group, "hundred_ten_rules", |calls| routed.balanced(calls));
}

/// Times something that repeats itself as often as it is told.
fn bench_many(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut run: impl FnMut(u64) -> u64,
) {
    group.bench_function(name, |b| {
        b.iter_custom(|times| {
            let start = WallTime.start();
            black_box(run(black_box(times)));
            WallTime.end(start)
        });
    });
}
