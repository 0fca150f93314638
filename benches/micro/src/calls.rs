//! Core alone: raw calls there and back between two connections.

use std::rc::Rc;
use std::time::Duration;

use ringcall_buf::{Arena, BLOCK_BYTES};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Batch, Call, Chunk, Codec, Config, Connection, Event, Instant, Memory, Outcome, Side, Status,
};

use crate::IN_FLIGHT;

/// Two connections whose bytes are handed over in memory.
#[derive(Debug)]
pub struct Pair {
    client: Connection<u64>,
    server: Connection<u64>,
    wires: [Wire; 2],
    batch: Batch,
    call: Call,
    body: Chunk,
    now: Instant,
}

impl Pair {
    /// Two connections that have exchanged calls already, with bodies of so many bytes each way.
    #[must_use]
    pub fn new(body_bytes: usize) -> Pair {
        let now = Instant::from_nanos(1_000_000_000);
        let memory = Memory::default();
        let config = Rc::new(Config::new().validate().expect("the defaults make sense"));
        let mut pair = Pair {
            client: Connection::new(Side::Client, Rc::clone(&config), memory.clone(), now),
            server: Connection::new(Side::Server, config, memory.clone(), now),
            wires: [Wire::new(&memory), Wire::new(&memory)],
            batch: Batch::new(64 * 1024),
            call: Call {
                method: 1,
                in_signature: 2,
                out_signature: 3,
                deadline: now + Duration::from_secs(1),
                codec: Codec::RAW,
                compression: 0,
                priority: 0,
                attempt: 0,
                flags: 0,
            },
            body: memory.pool().copy(&vec![7; body_bytes]),
            now,
        };
        while !pair.client.is_open() {
            pair.turn();
        }
        pair.run(4 * IN_FLIGHT);
        pair
    }

    /// Makes so many calls, [`IN_FLIGHT`] at a time, each answered with its own body. Returns how many
    /// bytes of replies there were.
    pub fn run(&mut self, calls: u64) -> u64 {
        let (mut made, mut ended, mut bytes) = (0, 0, 0);
        while ended < calls {
            for _ in 0..IN_FLIGHT.min(calls - made) {
                self.client.call(self.now, &self.call, &self.body, made).expect("there is room");
                made += 1;
            }
            while ended < made {
                let (replies, reply_bytes) = self.turn();
                ended += replies;
                bytes += reply_bytes;
            }
        }
        bytes
    }

    /// Carries there, answers, carries back. Returns how many replies came, and how many bytes of them.
    #[inline]
    fn turn(&mut self) -> (u64, u64) {
        let Pair { client, server, wires: [there, back], batch, now, .. } = self;
        there.carry(*now, client, server, batch);
        loop {
            // Events are looked at where they are: moving one costs more than parsing it.
            match &server.poll_event(*now) {
                Some(Event::Request(request)) => {
                    let header = ReplyHeader { signature: 3, ..ReplyHeader::new(Status::OK) };
                    server.reply(*now, request.id, header, &request.body).expect("it is awaited");
                }
                Some(_) => {}
                None => break,
            }
        }
        back.carry(*now, server, client, batch);
        let (mut replies, mut bytes) = (0, 0);
        loop {
            match &client.poll_event(*now) {
                Some(Event::Completed(_, Outcome::Reply(reply))) => {
                    replies += 1;
                    bytes += reply.body.len() as u64;
                }
                Some(Event::Completed(_, outcome)) => panic!("no reply: {outcome:?}"),
                Some(_) => {}
                None => return (replies, bytes),
            }
        }
    }
}

/// Carries bytes as a socket would: one copy, which is the kernel's.
#[derive(Debug)]
struct Wire {
    arena: Arena,
    carried: usize,
}

impl Wire {
    fn new(memory: &Memory) -> Wire {
        Wire { arena: Arena::new(memory.pool(), BLOCK_BYTES), carried: 8 }
    }

    #[inline]
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
        let room = self.arena.spare(batch.len(), self.carried % 16);
        let mut at = 0;
        for segment in batch.segments() {
            let bytes = segment.as_slice().expect("memory");
            room[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        batch.clear();
        from.handle_transmitted(now, at);
        self.carried += at;
        to.handle_received(now, self.arena.commit(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_brings_its_body_back() {
        for body_bytes in [0, 64, 1000, 65_000] {
            let mut pair = Pair::new(body_bytes);
            assert_eq!(pair.run(50), 50 * body_bytes as u64);
            assert_eq!(pair.server.counters().requests_answered, 50 + 4 * IN_FLIGHT);
        }
    }

    #[test]
    fn a_small_body_is_not_copied() {
        let mut pair = Pair::new(64);
        pair.run(1000);
        assert_eq!(pair.client.counters().copied_bytes(), 0);
        assert_eq!(pair.server.counters().copied_bytes(), 0);
    }
}
