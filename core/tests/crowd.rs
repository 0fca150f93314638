//! Streams that wait for a pool which their reader leaves empty. One test only, since all of its memory counts.
#![allow(unsafe_code, reason = "an allocator that counts")]

mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use harness::raw::{Raw, nth_id, plain, request};
use ringcall_core::frame::{Credit, CreditPool, CreditUnit, Kind, ReplyHeader, request_flags};
use ringcall_core::{Config, ItemError, Side, Status};

/// Found: The connection remembered every stream that had ever waited for as long as the pool stayed empty, beside all
/// that is counted.
#[test]
fn c14_streams_that_have_ended_are_not_remembered() {
    let mut raw = Raw::new(Side::Server, Config::new()).open_with(|hello| {
        (hello.message_bytes_max, hello.replies_window) = (1024, 2048);
    });
    let mut next = 0;
    // The pool has room for 64 items, of which none is ever given back.
    for _ in 0..64 {
        assert_eq!(stream_once(&mut raw, next), Ok(()));
        next += 1;
    }
    // One waits all the time, and is in front.
    raw.send(&[request(1, b"").flags(request_flags::ITEMS_OUT)]);
    let waiting = raw.requests.pop().unwrap().id;
    let now = raw.now;
    raw.peer.begin(now, waiting).unwrap();
    assert_eq!(raw.peer.item(now, waiting, b"x"), Err(ItemError::Blocked));
    let mut before = 0;
    for n in 0..50_000 {
        assert_eq!(stream_once(&mut raw, next), Err(ItemError::Blocked));
        next += 1;
        if n == 1000 {
            before = LIVE.get();
        }
    }
    assert!(LIVE.get() < before + 4096, "{} bytes more", LIVE.get() - before);
    // It is still there.
    raw.send(&[plain(Kind::Credit).patch(0, &items_credit(1))]);
    assert_eq!(raw.writable, [waiting.into()]);
    assert_eq!(raw.peer.item(now, waiting, b"x"), Ok(()));
}

fn items_credit(amount: u64) -> [u8; 16] {
    Credit { amount, pool: CreditPool::Replies, unit: CreditUnit::Items }.encode()
}

/// A call that is answered with one item, or with none if that has to wait.
fn stream_once(raw: &mut Raw, generation: u32) -> Result<(), ItemError> {
    raw.send(&[request(0, b"").id(nth_id(0, generation)).flags(request_flags::ITEMS_OUT)]);
    let id = raw.requests.pop().expect("it is a call").id;
    raw.began.clear();
    let now = raw.now;
    raw.peer.begin(now, id).expect("it asks for items");
    let sent = raw.peer.item(now, id, b"x");
    let end = ReplyHeader::new(Status::OK);
    raw.connection.reply(now, id, end, &bytes::Bytes::new()).expect("it runs");
    raw.sent();
    sent
}

thread_local! {
    /// Of this thread, so that no other one is counted.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator; the test here runs on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as i64);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as i64);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
