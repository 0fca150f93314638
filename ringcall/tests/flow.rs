//! A long stream in constant memory. One test only, since everything in the process counts.
#![allow(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]

#[path = "suite/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use common::{Pair, over_every_pair_in_turn};
use ringcall::{Bytes, Items, Stream};

#[ringcall::service]
trait Pipe {
    async fn pull(&self, items: u64) -> impl Stream<Item = Bytes>;
    async fn push(&self, items: Items<Bytes>) -> u64;
}

const ITEM: usize = 64 << 10;
/// Both ends are in this process. Each has its stream's window and an item beyond it, in memory of the next
/// power of two; receive buffers of 64 KiB that are kept to be used again; and what it has given to the
/// kernel, at most a batch of half a MiB behind a queue of the length at which bodies are cut, 256 KiB.
const PEAK_MAX: i64 =
    2 * (2 * ((1 << 20) + 2 * ITEM as i64) + (2 << 20) + (512 << 10) + (256 << 10));

struct Plumber(Bytes);

struct Source {
    item: Bytes,
    left: u64,
}

impl Stream for Source {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        Poll::Ready(left.map(|_| self.item.clone()))
    }
}

impl Pipe for Plumber {
    async fn pull(&self, items: u64) -> impl Stream<Item = Bytes> {
        Source { item: self.0.clone(), left: items }
    }

    async fn push(&self, mut items: Items<Bytes>) -> u64 {
        let mut bytes = 0;
        while let Some(item) = items.next().await {
            bytes += item.len() as u64;
        }
        bytes
    }
}

/// 64 MiB each way; as many GiB as `RINGCALL_FLOW_GIB` says, if it does.
fn items() -> u64 {
    let gib = std::env::var("RINGCALL_FLOW_GIB").map_or(0, |n| n.parse().expect("a number"));
    (gib << 30).max(64 << 20) / ITEM as u64
}

#[test]
fn a_stream_of_any_length_needs_the_memory_of_a_short_one() {
    over_every_pair_in_turn(|pair: Pair| {
        let before = LIVE.load(Ordering::SeqCst);
        let item = Bytes::from(vec![9; ITEM]);
        let server = pair.start(pair.bind().service(Plumber(item.clone()).into_pipe()));
        let blocking = pair.blocking(&server);
        let client = PipeClient::new(blocking.local());
        for items in [64, items()] {
            let pulled = peak(before, || {
                blocking.run(async {
                    let mut bytes = 0;
                    let mut stream = client.pull(&items).await.unwrap();
                    while let Some(item) = stream.next().await {
                        bytes += item.unwrap().len() as u64;
                    }
                    assert_eq!(bytes, items * ITEM as u64);
                });
            });
            let pushed = peak(before, || {
                blocking.run(async {
                    let mut upload = client.push().await.unwrap();
                    for _ in 0..items {
                        upload.send(&item).await.unwrap();
                    }
                    assert_eq!(upload.finish().await.unwrap().to_native(), items * ITEM as u64);
                });
            });
            println!("{items} items of 64 KiB: {pulled} bytes at most pulling, {pushed} pushing");
            // With TLS what waits is there twice: as it was, and sealed.
            let most = if pair.is_secured { PEAK_MAX * 2 } else { PEAK_MAX };
            assert!(pulled <= most && pushed <= most, "{pulled} {pushed} of {most}");
        }
    });
}

/// How many bytes more than `before` there were at most while something was done.
fn peak(before: i64, work: impl FnOnce()) -> i64 {
    PEAK.store(LIVE.load(Ordering::SeqCst), Ordering::SeqCst);
    work();
    PEAK.load(Ordering::SeqCst) - before
}

static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator. (test: this one)
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size() as i64, Ordering::SeqCst) + layout.size() as i64;
        PEAK.fetch_max(live, Ordering::SeqCst);
        // SAFETY: the caller's promise. (test: this one)
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::SeqCst);
        // SAFETY: the caller's promise. (test: this one)
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
