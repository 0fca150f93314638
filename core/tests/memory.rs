//! What connections hold together has a bound: who holds little is served, who holds much is refused, and in the end
//! those that hold the most are closed.

mod harness;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use harness::raw::{Frame, Raw, request};
use harness::{Peer, raw_call};
use ringcall_core::frame::{Kind, ReplyHeader, request_flags};
use ringcall_core::{
    Address, Batch, ChunkMut, CloseCode, CloseReason, Codec, Config, Encoding, Endpoint,
    EndpointEvent, Event, Handle, Instant, ItemError, Listener, Memory, MemoryLimits, Plain,
    Receive, Segment, SendQueue, Side, SplitMix64, Status, Transport, TransportError,
    TransportEvent,
};

const MIB: usize = 1 << 20;

fn memory(total_bytes: usize) -> Memory {
    let mut limits = MemoryLimits::default();
    limits.total_bytes = Some(total_bytes);
    Memory::new(limits)
}

fn server(memory: &Memory) -> Raw {
    Raw::with_memory(Side::Server, Config::new(), memory).open()
}

/// Makes calls that are not answered until one is refused; returns how many were not.
fn until_refused(raw: &mut Raw, body: &[u8]) -> u32 {
    for slot in 0..1024 {
        raw.send(&[request(slot, body)]);
        match raw.statuses().pop() {
            None => {}
            Some(status) => {
                assert_eq!(status, Status::OVERLOADED);
                return slot;
            }
        }
    }
    panic!("nothing was refused");
}

#[test]
fn e26_who_holds_little_is_served_while_others_are_refused() {
    let memory = memory(MIB);
    let (mut greedy, mut modest) = (server(&memory), server(&memory));
    let accepted = until_refused(&mut greedy, &[7; 10_000]);
    assert!(memory.is_short() && !memory.is_full());
    assert!(memory.pool().held_bytes() < MIB / 10 * 9, "nothing would be left for others");
    assert_eq!(greedy.requests.len(), accepted as usize);
    assert_eq!(greedy.connection.counters().requests_short_of_memory, 1);
    assert_eq!(greedy.closed, None);
    for generation in 1..100 {
        modest.send(&[request(0, &[8; 100]).id(harness::raw::nth_id(0, generation))]);
        modest.answer_all();
        assert_eq!(modest.statuses(), [Status::OK]);
    }
    // What it has had is over: there is room again.
    greedy.answer_all();
    assert!(!memory.is_short());
    greedy.sent();
    greedy.send(&[request(1000, &[7; 10_000])]);
    greedy.answer_all();
    assert_eq!(greedy.statuses(), [Status::OK]);
}

#[test]
fn e26_large_bodies_and_new_slots_are_refused_before_they_take_memory() {
    let memory = memory(MIB);
    let mut raw = server(&memory);
    let accepted = until_refused(&mut raw, &[7; 10_000]);
    let before = memory.pool().held_bytes();
    let mut slots = (accepted + 1..1024).rev();
    raw.send(&[request(slots.next().unwrap(), b"small")]);
    assert_eq!(raw.statuses(), [Status::OVERLOADED]);
    assert_eq!(memory.pool().held_bytes(), before);
    raw.send(&[request(accepted, &[1; 16]).cut(512 * 1024)]);
    assert_eq!(raw.statuses(), [Status::OVERLOADED]);
    assert!(memory.pool().held_bytes() < before + 1024, "{before}");
    assert_eq!((raw.connection.counters().requests_short_of_memory, raw.closed), (3, None));
}

#[test]
fn e26_credit_is_kept_back_from_who_holds_too_much() {
    let memory = memory(8 * MIB);
    let (mut raw, _others) = (server(&memory), [server(&memory), server(&memory)]);
    let before = until_refused(&mut raw, &[7; 32 * 1024]);
    assert!(before > 90, "{before}");
    let is_credit = |frame: &Frame| frame.is(Kind::Credit);
    // More than a quarter of the window, and more is held than there is room for.
    let rest = raw.requests.split_off(66);
    raw.answer_all();
    let ballast = memory.pool().take(4 * MIB);
    assert!(memory.is_short());
    assert!(!raw.sent().iter().any(is_credit));
    raw.peer.requests = rest;
    raw.answer_all();
    drop(ballast);
    assert!(!memory.is_short());
    assert!(raw.sent().iter().any(is_credit));
}

#[test]
fn e26_items_are_sent_as_they_are_read() {
    let memory = memory(MIB);
    let mut raw = server(&memory);
    raw.send(&[request(0, b"").flags(request_flags::ITEMS_OUT)]);
    let id = raw.requests[0].id;
    let (now, ok) = (raw.now, ReplyHeader::new(Status::OK));
    raw.connection.begin_items(now, id, ok, &[]).unwrap();
    raw.sent();
    let item = Bytes::from_static(&[5; 4096]);
    let encoding = Encoding { codec: Codec::RAW, compression: 0, signature: 0 };
    let fill = |raw: &mut Raw| {
        let mut sent = 0;
        loop {
            match raw.peer.connection.send_item(now, id.into(), encoding, &item) {
                Ok(()) => sent += 1,
                Err(error) => {
                    assert_eq!(error, ItemError::Blocked);
                    return sent;
                }
            }
        }
    };
    let ballast = memory.pool().reserve(850_000);
    assert!(memory.is_short());
    let few = fill(&mut raw);
    assert!((1..60).contains(&few), "{few}");
    raw.sent();
    assert_eq!(raw.writable.len(), 1);
    assert!((1..60).contains(&fill(&mut raw)));
    drop(ballast);
    raw.sent();
    let many = fill(&mut raw);
    assert!(many >= 60, "{many}");
}

// ---- an endpoint ----

/// Connections of which a test moves the bytes; what some are sent stays on its way.
#[derive(Default)]
struct Scripted {
    next: u32,
    sent: HashMap<Handle, Vec<Segment>>,
    stuck: Vec<Handle>,
    /// Memory of bodies that is to be received into.
    landing: HashMap<Handle, (ChunkMut, usize)>,
    closed: Vec<Handle>,
    events: VecDeque<TransportEvent<()>>,
}

impl Transport for Scripted {
    type Socket = ();

    fn listen(&mut self, _: &Address) -> Result<Listener, TransportError> {
        Err(TransportError::BadAddress)
    }

    fn local_address(&self, _: Listener) -> Option<Address> {
        None
    }

    fn unlisten(&mut self, _: Listener) {}

    fn connect(&mut self, _: &Address) -> Result<Handle, TransportError> {
        Err(TransportError::BadAddress)
    }

    fn adopt(&mut self, (): ()) -> Result<Handle, TransportError> {
        self.next += 1;
        Ok(Handle { index: self.next - 1, generation: 1 })
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        batch.drain_into(self.sent.entry(handle).or_default());
        !self.stuck.contains(&handle)
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        if let Receive::Land(buffer, len) = how {
            self.landing.insert(handle, (buffer, len));
        }
    }

    fn shutdown(&mut self, _: Handle) {}

    fn close(&mut self, handle: Handle) {
        self.sent.remove(&handle);
        self.closed.push(handle);
        self.events.push_back(TransportEvent::Released(handle));
    }

    fn reap(&mut self, events: &mut Vec<TransportEvent<()>>) {
        events.extend(self.events.drain(..));
    }
}

/// A server's endpoint and its clients.
struct Hall {
    now: Instant,
    end: Endpoint<Scripted, Plain, u64>,
    guests: Vec<(Handle, Peer)>,
    /// Why connections ended.
    ended: Vec<(Handle, CloseReason)>,
}

impl Hall {
    fn new(memory: Memory, guests: usize) -> Hall {
        let now = Instant::from_nanos(1_000_000_000);
        let mut end = Endpoint::new(Scripted::default(), memory, now);
        let config = Rc::new(Config::new().validate().unwrap());
        let guests = (0..guests)
            .map(|_| {
                let handle = end.adopt(now, (), &config, Plain).unwrap();
                (handle, Peer::new(Side::Client, Config::new(), now))
            })
            .collect();
        let mut hall = Hall { now, end, guests, ended: Vec::new() };
        (0..3).for_each(|_| hall.turn(0));
        assert!(hall.guests.iter().all(|(_, guest)| guest.established));
        hall
    }

    /// Everybody hears what was said, and each call is answered with so many bytes.
    fn turn(&mut self, answer: usize) {
        let Hall { now, end, guests, ended } = self;
        for (handle, guest) in guests.iter_mut() {
            let bytes = guest.transmit(*now, usize::MAX);
            if !bytes.is_empty() {
                let chunk = guest.memory.pool().copy(&bytes);
                end.transport_mut().events.push_back(TransportEvent::Received(*handle, chunk));
            }
        }
        end.reap(*now);
        while let Some(event) = end.poll_event(*now) {
            match event {
                EndpointEvent::Connection(handle, Event::Request(request)) => {
                    let body = vec![1; answer].into();
                    let header = ReplyHeader::new(Status::OK);
                    let _ = end.reply::<Bytes>(*now, handle, request.id, header, &body);
                }
                EndpointEvent::Connection(handle, Event::Closed(reason)) => {
                    ended.push((handle, reason));
                }
                _ => {}
            }
        }
        end.flush(*now);
        for (handle, guest) in guests {
            if end.transport().stuck.contains(handle) {
                continue;
            }
            let mut there = harness::Batch::new(usize::MAX);
            let sent = end.transport_mut().sent.remove(handle).unwrap_or_default();
            sent.into_iter().for_each(|segment| there.push(segment));
            guest.receive(*now, &there.bytes, true, &mut SplitMix64::new(1));
        }
    }

    fn call(&mut self, guest: usize) {
        self.call_with(guest, 0);
    }

    /// A call with an argument of so many bytes.
    fn call_with(&mut self, guest: usize, len: usize) {
        let now = self.now;
        let body = Bytes::from(vec![1; len]);
        self.guests[guest].1.connection.call(now, &raw_call(now), &body, 1).unwrap();
    }

    /// These bytes of a guest arrive.
    fn hear(&mut self, guest: usize, mut bytes: &[u8]) {
        let (handle, guest) = &self.guests[guest];
        let pool = guest.memory.pool().clone();
        let handle = *handle;
        while !bytes.is_empty() {
            let transport = self.end.transport_mut();
            let (n, event) = match transport.landing.remove(&handle) {
                Some((mut buffer, len)) => {
                    let n = len.min(bytes.len());
                    buffer.extend_from_slice(&bytes[..n]);
                    (n, TransportEvent::Landed(handle, buffer, n))
                }
                None => (bytes.len(), TransportEvent::Received(handle, pool.copy(bytes))),
            };
            transport.events.push_back(event);
            bytes = &bytes[n..];
            self.turn(0);
        }
    }

    /// So many milliseconds pass, with a turn in each.
    fn pass(&mut self, millis: u32) {
        for _ in 0..millis {
            self.now = self.now.after_micros(1000);
            self.turn(0);
        }
    }
}

#[test]
fn e26_those_that_hold_the_most_are_closed_at_the_bound() {
    let memory = memory(9 * MIB);
    let mut hall = Hall::new(memory.clone(), 5);
    let handles: Vec<Handle> = hall.guests.iter().map(|(handle, _)| *handle).collect();
    // Four do not read; what they are answered is what they hold.
    hall.end.transport_mut().stuck = handles[1..].to_vec();
    for (guest, answer) in [(1, 2 * MIB), (2, 3 * MIB), (3, 3 * MIB + MIB / 2), (4, MIB)] {
        hall.call(guest);
        hall.turn(answer);
        assert!(hall.ended.is_empty() || guest == 4, "{:?}", hall.ended);
    }
    // The largest was enough; it was told nothing, since that would have to wait behind what is under way.
    assert_eq!(hall.ended, [(handles[3], CloseReason::MemoryShort)]);
    assert_eq!(hall.end.transport().closed, [handles[3]]);
    hall.turn(0);
    assert!(!memory.is_full());
    hall.call(0);
    hall.turn(100);
    assert_eq!(hall.guests[0].1.done.len(), 1);
}

/// A hall of two in which so many bytes may land, and what the first of them says of a body that takes all of it.
fn hall_for_one_body() -> (Hall, Vec<u8>) {
    let mut limits = MemoryLimits::default();
    limits.landing_bytes = 4 * MIB;
    let mut hall = Hall::new(Memory::new(limits), 2);
    hall.call_with(0, 4 * MIB);
    let bytes = hall.guests[0].1.transmit(hall.now, usize::MAX);
    (hall, bytes)
}

/// Found: What has gone silent in the middle of a body holds its part of the landing budget until it is given up
/// itself, and everybody who waits for that is given up before.
#[test]
fn a04_who_holds_the_budget_and_is_silent_goes_when_others_wait() {
    let (mut hall, body) = hall_for_one_body();
    hall.hear(0, &body[..100_000]);
    // As long as nobody waits there is time.
    hall.pass(5_000);
    assert_eq!(hall.ended, []);
    hall.call_with(1, MIB);
    hall.pass(50);
    assert_eq!(hall.ended, [(hall.guests[0].0, CloseReason::BodyStalled)]);
    assert_eq!(hall.guests[1].1.done.len(), 1);
    assert_eq!(hall.guests[1].1.closed, None);
}

#[test]
fn a04_who_holds_the_budget_and_trickles_goes_when_others_wait() {
    // In a tenth of a second. All of it must be here within a minute.
    for (step, stays) in [(1, false), (2_000, false), (20_000, true)] {
        let (mut hall, body) = hall_for_one_body();
        hall.hear(0, &body[..1000]);
        let mut at = 1000;
        for tenth in 0..60 {
            if tenth % 15 == 0 {
                hall.call_with(1, MIB);
            }
            hall.hear(0, &body[at..at + step]);
            at += step;
            hall.pass(100);
        }
        assert_eq!(hall.ended.is_empty(), stays, "{step}: {:?}", hall.ended);
        assert_eq!(hall.guests[1].1.closed, None);
        assert!(!hall.guests[1].1.done.is_empty());
    }
}

#[test]
fn e26_who_is_closed_for_memory_is_told() {
    let memory = memory(2 * MIB);
    let mut hall = Hall::new(memory.clone(), 2);
    hall.call(1);
    // Its calls are never answered, and others take the rest.
    let now = hall.now;
    let body = Bytes::from(vec![1; 200_000]);
    for _ in 0..3 {
        hall.guests[1].1.connection.call(now, &raw_call(now), &body, 1).unwrap();
    }
    let bytes = hall.guests[1].1.transmit(now, usize::MAX);
    let chunk = memory.pool().copy(&bytes);
    let handle = hall.guests[1].0;
    hall.end.transport_mut().events.push_back(TransportEvent::Received(handle, chunk));
    hall.end.reap(now);
    let mut requests = Vec::new();
    while let Some(event) = hall.end.poll_event(now) {
        requests.push(event);
    }
    let ballast = memory.pool().reserve(2 * MIB);
    hall.turn(0);
    assert_eq!(hall.ended, [(handle, CloseReason::MemoryShort)]);
    let why = CloseReason::GoAway(CloseCode::MEMORY_SHORT);
    assert_eq!(hall.guests[1].1.closed, Some(why));
    // Whoever holds little stays, although that was not enough.
    hall.call(0);
    hall.turn(10);
    assert_eq!((hall.guests[0].1.closed, hall.ended.len()), (None, 1));
    drop((ballast, requests));
}
