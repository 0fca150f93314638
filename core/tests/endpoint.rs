//! An endpoint over a transport that does nothing by itself.

mod harness;

use std::collections::VecDeque;
use std::rc::Rc;

use harness::{Peer, raw_call};
use ringcall_buf::Chunk;
use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Address, Batch, ByteLayer, CloseReason, Config, Endpoint, EndpointEvent, Event, Handle,
    Instant, Listener, Memory, MemoryLimits, Plain, Receive, Segment, SendQueue, Side, SplitMix64,
    Status, Transport, TransportError, TransportEvent,
};

const HANDLE: Handle = Handle { index: 0, generation: 1 };

/// Connections, which a test moves the bytes of.
#[derive(Default)]
struct Scripted {
    /// By which of them.
    sent: Vec<(u32, Segment)>,
    adopted: u32,
    events: VecDeque<TransportEvent<()>>,
    is_paused: bool,
    /// Those that need not receive aligned.
    unaligned: Vec<Handle>,
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
        self.adopted += 1;
        Ok(Handle { index: self.adopted - 1, ..HANDLE })
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        let mut segments = Vec::new();
        batch.drain_into(&mut segments);
        self.sent.extend(segments.into_iter().map(|segment| (handle.index, segment)));
        true
    }

    fn receive_unaligned(&mut self, handle: Handle) {
        self.unaligned.push(handle);
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
    deliver_to(end, HANDLE, peer, now);
}

fn deliver_to(end: &mut End, handle: Handle, peer: &mut Peer, now: Instant) {
    let bytes = peer.transmit(now, usize::MAX);
    let mut buffer = peer.memory.pool().take(bytes.len());
    buffer.extend_from_slice(&bytes);
    end.transport_mut().events.push_back(TransportEvent::Received(handle, buffer.freeze()));
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
        sent.into_iter().for_each(|(_, segment)| there.push(segment));
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

/// Takes and gives the bytes as they are, but copies what it takes, as encryption does.
struct Copying;

impl ByteLayer for Copying {
    fn open(&mut self, chunk: Chunk, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason> {
        plain(chunk);
        Ok(())
    }

    fn seal(&mut self, _: &mut Batch) -> Result<(), CloseReason> {
        Ok(())
    }

    fn wants_seal(&self) -> bool {
        false
    }

    fn can_land(&self) -> bool {
        false
    }

    fn can_file(&self) -> bool {
        false
    }
}

/// A transport goes to some length for that.
#[test]
fn what_a_layer_copies_need_not_lie_aligned() {
    let now = Instant::from_nanos(1_000_000_000);
    let config = Rc::new(Config::new().validate().unwrap());
    let address: Address = "127.0.0.1:1".parse().unwrap();
    let mut end = Endpoint::<_, Copying, u64>::new(Scripted::default(), Memory::default(), now);
    let adopted = end.adopt(now, (), &config, Copying).unwrap();
    let connected = end.connect(now, &address, &config, Copying).unwrap();
    assert_eq!(end.transport().unaligned, [adopted, connected]);
    let mut end = End::new(Scripted::default(), Memory::default(), now);
    end.adopt(now, (), &config, Plain).unwrap();
    end.connect(now, &address, &config, Plain).unwrap();
    assert!(end.transport().unaligned.is_empty());
}

/// Two accepted connections, and who is at the other end of each.
fn two_accepted(now: Instant) -> (End, [Handle; 2], [Peer; 2]) {
    let memory = Memory::new(MemoryLimits::default());
    let mut end = End::new(Scripted::default(), memory, now);
    let config = Rc::new(Config::new().validate().unwrap());
    let handles = [(); 2].map(|()| end.adopt(now, (), &config, Plain).unwrap());
    let mut peers = [(); 2].map(|()| Peer::new(Side::Client, Config::new(), now));
    for (handle, peer) in handles.into_iter().zip(&mut peers) {
        deliver_to(&mut end, handle, peer, now);
    }
    turn(&mut end, now);
    for (index, segment) in std::mem::take(&mut end.transport_mut().sent) {
        let mut there = harness::Batch::new(usize::MAX);
        there.push(segment);
        peers[index as usize].receive(now, &there.bytes, true, &mut SplitMix64::new(1));
    }
    (end, handles, peers)
}

/// Whose calls come in this turn, where those of one connection take long.
fn callers(end: &mut End, slow: Handle, now: Instant) -> Vec<Handle> {
    let mut callers = Vec::new();
    end.reap(now);
    while let Some(event) = end.poll_event(now) {
        let EndpointEvent::Connection(handle, Event::Request(_)) = event else { continue };
        callers.push(handle);
        if handle == slow {
            end.took_long(handle);
        }
    }
    end.flush(now);
    callers
}

#[test]
fn calls_that_take_long_are_one_a_turn_behind_all_others() {
    let now = Instant::from_nanos(1_000_000_000);
    let (mut end, [slow, quick], mut peers) = two_accepted(now);
    let call = |peer: &mut Peer, ticket| {
        peer.connection.call(now, &raw_call(now), &bytes::Bytes::new(), ticket).unwrap();
    };
    (0..4).for_each(|ticket| call(&mut peers[0], ticket));
    (0..2).for_each(|ticket| call(&mut peers[1], ticket));
    deliver_to(&mut end, slow, &mut peers[0], now);
    deliver_to(&mut end, quick, &mut peers[1], now);
    // That they do is not known before.
    assert_eq!(callers(&mut end, slow, now), [slow, quick, quick, slow]);
    call(&mut peers[1], 2);
    deliver_to(&mut end, quick, &mut peers[1], now);
    assert_eq!(callers(&mut end, slow, now), [quick, slow]);
    assert!(end.has_work());
    assert_eq!(callers(&mut end, slow, now), [slow]);
    assert_eq!(callers(&mut end, slow, now), []);
    assert!(!end.has_work());
}

/// However many frames one of them has at once.
#[test]
fn a18_connections_take_turns_of_64_frames() {
    let now = Instant::from_nanos(1_000_000_000);
    let (mut end, [many, one], mut peers) = two_accepted(now);
    for (peer, count) in peers.iter_mut().zip([900, 1]) {
        for ticket in 0..count {
            peer.connection.call(now, &raw_call(now), &bytes::Bytes::new(), ticket).unwrap();
        }
    }
    deliver_to(&mut end, many, &mut peers[0], now);
    deliver_to(&mut end, one, &mut peers[1], now);
    end.reap(now);
    let mut order = Vec::new();
    while let Some(event) = end.poll_event(now) {
        let EndpointEvent::Connection(handle, Event::Request(_)) = event else { continue };
        order.push(handle);
    }
    assert_eq!(order.len(), 901);
    assert_eq!(order.iter().position(|handle| *handle == one), Some(64));
}

/// A burst's blocks go back to the system, also when nothing more happens; what is kept for ever is little.
#[test]
fn free_blocks_that_nobody_needs_are_released() {
    const MIB: usize = 1 << 20;
    let mut now = Instant::from_nanos(1_000_000_000);
    let memory = Memory::new(MemoryLimits::default());
    let mut end = End::new(Scripted::default(), memory.clone(), now);
    assert_eq!(end.next_timeout(), None);
    drop((0..512).map(|_| memory.pool().take(128 * 1024)).collect::<Vec<_>>());
    let kept = || memory.pool().stats().kept_bytes;
    assert_eq!(kept(), 64 * MIB);
    let mut looks = Vec::new();
    while let Some(next) = end.next_timeout() {
        assert!(next > now, "it would look again and again");
        now = next;
        turn(&mut end, now);
        looks.push(kept() / MIB);
    }
    // They were lent in the first of these times.
    assert_eq!(looks, [64, 32, 16, 8, 4, 2, 1]);
}
