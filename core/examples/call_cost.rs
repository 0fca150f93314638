//! What one call costs the core, there and back, in instructions: two connections, bytes handed over in
//! memory, 64 bytes of body each way, 16 calls a batch.
//!
//! ```text
//! $ cargo build --release -p ringcall-core --example call_cost
//! $ for n in 10000 20000; do
//! >   valgrind --tool=callgrind --callgrind-out-file=cost.$n target/release/examples/call_cost $n
//! >   callgrind_annotate --inclusive=yes --threshold=100 cost.$n | grep Wire::copy
//! > done
//! ```
//!
//! The difference of the two totals, divided by 10 000, is one call. `Wire::copy` in it is what the kernel
//! would do.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use ringcall_buf::{Arena, BLOCK_BYTES, Chunk};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Batch, Call, Codec, Config, Connection, Event, Instant, Memory, Outcome, Side, Status,
};

const BATCH: u64 = 16;

fn main() {
    let calls: u64 = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("a number"));
    let now = Instant::from_nanos(1_000_000_000);
    let memory = Memory::default();
    let config = Rc::new(Config::new().validate().expect("the defaults make sense"));
    let mut client = Connection::<u64>::new(Side::Client, config.clone(), memory.clone(), now);
    let mut server = Connection::<u64>::new(Side::Server, config, memory.clone(), now);
    let mut wires = [Wire::new(&memory), Wire::new(&memory)];
    let mut batch = Batch::new(64 * 1024);
    let body = memory.pool().copy(&[7; 64]);
    let call = Call {
        method: 1,
        in_signature: 2,
        out_signature: 3,
        deadline: now + Duration::from_secs(1),
        codec: Codec::RAW,
        compression: 0,
        priority: 0,
        attempt: 0,
        flags: 0,
    };
    let (mut made, mut ended) = (0, 0);
    while ended < calls {
        if client.is_open() {
            for _ in 0..BATCH.min(calls - made) {
                // What a program knows only when it runs.
                let (now, call) = (black_box(now), black_box(&call));
                client.call(now, call, &body, made).expect("there is room");
                made += 1;
            }
        }
        wires[0].carry(now, &mut client, &mut server, &mut batch);
        loop {
            // Events are looked at where they are: moving one costs more than parsing it.
            match &server.poll_event(now) {
                Some(Event::Request(request)) => {
                    let header = ReplyHeader { signature: 3, ..ReplyHeader::new(Status::OK) };
                    server.reply(now, request.id, header, &request.body).expect("it is waited for");
                }
                Some(_) => {}
                None => break,
            }
        }
        wires[1].carry(now, &mut server, &mut client, &mut batch);
        loop {
            match &client.poll_event(now) {
                Some(Event::Completed(ticket, Outcome::Reply(reply))) => {
                    assert_eq!((*ticket, reply.body.len()), (ended, 64));
                    ended += 1;
                }
                Some(_) => {}
                None => break,
            }
        }
    }
    assert_eq!(server.counters().requests_answered, calls);
}

/// Carries bytes as a socket would: one copy, which is the kernel's.
struct Wire {
    arena: Arena,
    carried: usize,
}

impl Wire {
    fn new(memory: &Memory) -> Wire {
        Wire { arena: Arena::new(memory.pool(), BLOCK_BYTES), carried: 8 }
    }

    fn carry(
        &mut self,
        now: Instant,
        from: &mut Connection<u64>,
        to: &mut Connection<u64>,
        batch: &mut Batch,
    ) {
        from.poll_transmit(now, batch);
        if batch.is_empty() {
            return;
        }
        let chunk = self.copy(batch);
        batch.clear();
        from.handle_transmitted(now, chunk.len());
        to.handle_received(now, chunk);
    }

    /// What the kernel would do.
    #[inline(never)]
    fn copy(&mut self, batch: &Batch) -> Chunk {
        let room = self.arena.spare(batch.len(), self.carried % 16);
        let mut at = 0;
        for segment in batch.segments() {
            let bytes = segment.as_slice().expect("memory");
            room[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        self.carried += at;
        self.arena.commit(at)
    }
}
