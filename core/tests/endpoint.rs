//! An endpoint over a transport that does nothing by itself.

mod harness;

use std::collections::VecDeque;
use std::rc::Rc;

use harness::{Peer, raw_call};
use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Address, Batch, Config, Endpoint, EndpointEvent, Event, Handle, Instant, Listener, Memory,
    MemoryLimits, Plain, Receive, Segment, SendQueue, Side, SplitMix64, Status, Transport,
    TransportError, TransportEvent,
};

const HANDLE: Handle = Handle { index: 0, generation: 1 };

/// One connection, which a test moves the bytes of.
#[derive(Default)]
struct Scripted {
    sent: Vec<Segment>,
    events: VecDeque<TransportEvent<()>>,
    is_paused: bool,
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
        self.events.push_back(TransportEvent::Connected(HANDLE));
        Ok(HANDLE)
    }

    fn adopt(&mut self, (): ()) -> Result<Handle, TransportError> {
        Ok(HANDLE)
    }

    fn send(&mut self, _: Handle, batch: &mut Batch) -> bool {
        batch.drain_into(&mut self.sent);
        true
    }

    fn receive(&mut self, _: Handle, how: Receive) {
        self.is_paused = matches!(how, Receive::Pause);
    }

    fn shutdown(&mut self, _: Handle) {}

    fn close(&mut self, _: Handle) {}

    fn reap(&mut self, events: &mut Vec<TransportEvent<()>>) {
        events.extend(self.events.drain(..));
    }
}

type End = Endpoint<Scripted, Plain, u64>;

/// A turn; gives the requests that came with it.
fn turn(end: &mut End, now: Instant) -> Vec<ringcall_core::Request> {
    let mut requests = Vec::new();
    end.reap(now);
    while let Some(event) = end.poll_event(now) {
        if let EndpointEvent::Connection(_, Event::Request(request)) = event {
            requests.push(request);
        }
    }
    end.flush(now);
    requests
}

/// What the peer has to say, as it arrives.
fn deliver(end: &mut End, peer: &mut Peer, now: Instant) {
    let bytes = peer.transmit(now, usize::MAX);
    let mut buffer = peer.memory.pool().take(bytes.len());
    buffer.extend_from_slice(&bytes);
    end.transport_mut().events.push_back(TransportEvent::Received(HANDLE, buffer.freeze()));
}

/// With as many one-way calls as there may be, nothing is read. The end of one sends nothing, which was taken for
/// no reason to go on, so that a connection whose other side waited as well stood still for ever.
#[test]
fn reading_goes_on_when_a_one_way_call_ends() {
    let now = Instant::from_nanos(1_000_000_000);
    let memory = Memory::new(MemoryLimits::default());
    let mut end = End::new(Scripted::default(), memory, now);
    let config = Rc::new(Config::new().in_flight_max(1).validate().unwrap());
    let address: Address = "127.0.0.1:1".parse().unwrap();
    end.connect(now, &address, &config, Plain).unwrap();
    let mut peer = Peer::new(Side::Server, Config::new(), now);
    for _ in 0..3 {
        turn(&mut end, now);
        let sent = std::mem::take(&mut end.transport_mut().sent);
        let mut there = harness::Batch::new(usize::MAX);
        sent.into_iter().for_each(|segment| there.push(segment));
        peer.receive(now, &there.bytes, true, &mut SplitMix64::new(1));
        deliver(&mut end, &mut peer, now);
    }
    let mut call = raw_call(now);
    call.flags = request_flags::ONE_WAY;
    peer.connection.call(now, &call, &bytes::Bytes::new(), 1).unwrap();
    deliver(&mut end, &mut peer, now);
    let requests = turn(&mut end, now);
    assert!(requests.len() == 1 && end.transport().is_paused);
    end.reply(now, HANDLE, requests[0].id, ReplyHeader::new(Status::OK), &bytes::Bytes::new())
        .unwrap();
    end.flush(now);
    turn(&mut end, now);
    assert!(!end.transport().is_paused);
}
