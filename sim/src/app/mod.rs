//! The application of a node: it calls, serves, streams, cancels, and holds every endpoint to what it
//! promises.

mod client;
mod server;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringcall_core::{
    CallId, CloseReason, Config, Endpoint, EndpointEvent, Event, Handle, Instant, Listener, Plain,
    RequestId, StreamId, Transport, TransportError, Wheel,
};

use crate::ledger::CallNo;
use crate::marks::Mark;
use crate::net::LinkId;
use crate::shared::Shared;
use crate::transport::{Accepted, SimTransport, address};
use server::Running;
use streams::{HeldItem, Pump};

pub(crate) type End = Endpoint<SimTransport, Plain, CallNo>;

/// What a deadline may be missed by: timers fire at ticks, and a node's turn takes time.
const LATE_MAX: Duration = Duration::from_nanos(2 * Wheel::TICK.as_nanos() as u64);

/// How long a drain waits for what runs.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// An application, for one life of its node.
#[derive(Debug)]
pub(crate) struct App {
    /// Node and life.
    me: (usize, u32),
    config: std::rc::Rc<Config>,
    pub(crate) connections: BTreeMap<Handle, Conn>,
    pub(crate) dials: Vec<Dial>,
    /// Calls made that have not ended.
    open: BTreeMap<CallNo, Open>,
    /// When they must have.
    deadlines: BTreeSet<(Instant, CallNo)>,
    running: Vec<Running>,
    pumps: Vec<Pump>,
    held: Vec<HeldItem>,
    /// Until when no item is given back.
    pub(crate) holds_until: Instant,
    /// Calls to make again, and when.
    again: Vec<(Instant, CallNo)>,
    /// Connections of which a call was said to be over: they must turn out to be closed.
    suspects: Vec<Handle>,
    pub(crate) is_draining: bool,
    /// When a drain stops waiting for what runs.
    drains_until: Instant,
    /// Answers that probes have had, by dial.
    pub(crate) probes_ok: usize,
}

/// A connection as the application sees it.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) link: LinkId,
    pub(crate) peer: usize,
    pub(crate) is_established: bool,
    /// It takes no further calls.
    pub(crate) is_leaving: bool,
    /// Requests that were delivered.
    delivered: u64,
    /// Calls with streams, made and served.
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    call: CallNo,
    /// How many more items may come although it is over: those that had arrived by then.
    late: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    handle: Handle,
    id: CallId,
}

/// A node that is to be connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    pub(crate) target: usize,
    pub(crate) handle: Option<Handle>,
    pub(crate) next_try: Instant,
}

impl App {
    pub(crate) fn new(
        me: (usize, u32),
        config: std::rc::Rc<Config>,
        targets: &[usize],
        now: Instant,
    ) -> App {
        let dial = |&target| Dial { target, handle: None, next_try: now };
        App {
            me,
            config,
            connections: BTreeMap::new(),
            dials: targets.iter().map(dial).collect(),
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            running: Vec::new(),
            pumps: Vec::new(),
            held: Vec::new(),
            holds_until: now,
            again: Vec::new(),
            suspects: Vec::new(),
            is_draining: false,
            drains_until: Instant::FAR,
            probes_ok: 0,
        }
    }

    // ---- events ----

    pub(crate) fn take(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        event: EndpointEvent<CallNo, Accepted>,
    ) {
        match event {
            EndpointEvent::Accepted(_, socket) => {
                let handle = end.adopt(now, socket, &self.config, Plain).expect("it always can");
                self.enter(end, handle);
                if let Some(at) = self.config.drain_at(now, &mut shared.rng)
                    && let Some(connection) = end.connection_mut(handle)
                {
                    connection.drain_at(at);
                }
                if self.is_draining
                    && let Some(connection) = end.connection_mut(handle)
                {
                    connection.drain(now);
                }
            }
            EndpointEvent::Connection(handle, event) => {
                self.take_event(end, shared, now, handle, event);
            }
        }
    }

    fn enter(&mut self, end: &End, handle: Handle) {
        let (link, side) = end.transport().link(handle).expect("just opened");
        // The other node is found out by the caller's side of the network.
        let peer = end.transport().peer_of(link, side);
        let conn = Conn {
            link,
            peer,
            is_established: false,
            is_leaving: false,
            delivered: 0,
            streams: Vec::new(),
        };
        let before = self.connections.insert(handle, conn);
        assert!(before.is_none(), "{handle:?} was released");
    }

    fn take_event(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        event: Event<CallNo>,
    ) {
        let node = self.me.0;
        let conn = self.connections.get_mut(&handle);
        let conn = conn.unwrap_or_else(|| panic!("nothing follows Closed: {event:?}"));
        match event {
            Event::Established(_) => {
                assert!(!conn.is_established, "a connection is established once");
                conn.is_established = true;
                shared.note(node, "established", u64::from(handle.index), conn.link as u64);
                if self.is_draining
                    && let Some(connection) = end.connection_mut(handle)
                {
                    connection.drain(now);
                }
            }
            Event::Request(request) => self.request(end, shared, now, handle, request),
            Event::Cancelled(id, why) => self.cancelled(end, shared, now, handle, id, why),
            Event::Completed(call, outcome) => {
                self.completed(end, shared, now, handle, call, outcome);
            }
            Event::Answering(id, reply) => {
                let stream = conn.streams.iter().find(|stream| stream.id == id.into());
                let call = stream.expect("only calls with streams are answered so").call;
                assert!(reply.header.status == ringcall_core::Status::OK);
                // Its deadline was that of the answer's beginning.
                let deadline = shared.ledger.at(call).deadline;
                self.deadlines.remove(&(deadline, call));
                shared.note(node, "answering", call, 0);
            }
            Event::Item(stream, item) => self.item(end, shared, now, handle, stream, &item),
            Event::ItemsEnd(request) => self.items_end(end, shared, now, handle, request),
            Event::Writable(stream) => self.writable(shared, handle, stream),
            Event::Pong(_) => {
                shared.marks.hit(Mark::Pong);
                shared.note(node, "pong", 0, 0);
            }
            Event::GoAway(code) => {
                assert_eq!(code, ringcall_core::CloseCode::NONE, "another code closes");
                conn.is_leaving = true;
                shared.marks.hit(Mark::GoAway);
                shared.note(node, "go away", u64::from(handle.index), 0);
                self.lose_dial(shared, now, handle);
            }
            Event::Closed(reason) => self.closed(shared, now, handle, reason),
            other => panic!("an event that is not known here: {other:?}"),
        }
    }

    fn closed(&mut self, shared: &mut Shared, now: Instant, handle: Handle, reason: CloseReason) {
        let conn = self.connections.remove(&handle).expect("just seen");
        let left = self.open.iter().find(|(_, open)| open.handle == handle);
        assert!(left.is_none(), "call {left:?} did not end with its connection ({reason:?})");
        let untold = self.running.iter().find(|running| {
            running.handle == handle && !running.is_cancelled && !running.request.is_one_way()
        });
        assert!(untold.is_none(), "{untold:?} runs for nobody, and is not told");
        self.pumps.retain(|pump| pump.handle != handle);
        self.held.retain(|held| held.handle != handle);
        self.suspects.retain(|suspect| *suspect != handle);
        self.lose_dial(shared, now, handle);
        shared.note(self.me.0, "closed", conn.link as u64, u64::from(reason.code().0));
        if shared.is_loud {
            shared.say(&format!("link {} closed: {reason:?}", conn.link), self.me.0);
        }
        shared.closed.push((conn.link, self.me.0, reason));
        let mark = match reason {
            CloseReason::PeerSilent => Mark::PeerSilent,
            CloseReason::SendStalled => Mark::SendStalled,
            CloseReason::BodyStalled => Mark::BodyStalled,
            CloseReason::HandshakeTimeout => Mark::HandshakeTimeout,
            CloseReason::MemoryShort => Mark::MemoryShort,
            CloseReason::Truncated => Mark::Truncated,
            CloseReason::PeerClosed => Mark::PeerClosed,
            CloseReason::Transport(TransportError::Reset) => Mark::ResetSeen,
            CloseReason::Transport(TransportError::TimedOut) => Mark::ConnectTimeout,
            CloseReason::Transport(TransportError::Refused) => Mark::ConnectRefused,
            CloseReason::Local if !self.is_draining => Mark::Retired,
            _ => return,
        };
        shared.marks.hit(mark);
    }

    // ---- connecting ----

    fn lose_dial(&mut self, shared: &mut Shared, now: Instant, handle: Handle) {
        let wait = match shared.is_healing {
            true => 20_000_000,
            false => shared.rng.log_uniform(1_000_000, 1_000_000_000),
        };
        for dial in self.dials.iter_mut().filter(|dial| dial.handle == Some(handle)) {
            dial.handle = None;
            dial.next_try = now + Duration::from_nanos(wait);
        }
    }

    fn dial(&mut self, end: &mut End, now: Instant) {
        if self.is_draining {
            return;
        }
        for i in 0..self.dials.len() {
            let Dial { target, handle, next_try } = self.dials[i];
            if handle.is_none() && next_try <= now {
                let handle = end.connect(now, &address(target), &self.config, Plain);
                let handle = handle.expect("it always can");
                self.dials[i].handle = Some(handle);
                self.enter(end, handle);
            }
        }
    }

    // ---- time ----

    /// There is no event left that could explain anything.
    pub(crate) fn has_heard_all(&self) {
        assert!(self.suspects.is_empty(), "a call that runs can be answered");
    }

    /// What is due; says whether there is more to do at once.
    pub(crate) fn go_on(&mut self, end: &mut End, shared: &mut Shared, now: Instant) -> bool {
        self.dial(end, now);
        self.call_again(end, shared, now);
        if self.drains_until <= now {
            self.drains_until = Instant::FAR;
            self.give_all_up(end, shared, now);
        }
        self.answer_due(end, shared, now);
        self.give_back_due(end, shared, now);
        self.pump(end, shared, now)
    }

    /// When something of it is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        let dials = self.dials.iter().filter(|dial| dial.handle.is_none() && !self.is_draining);
        let running = self.running.iter().filter_map(|running| running.due);
        let held = self.held.iter().map(|held| held.due.max(self.holds_until));
        let again = self.again.iter().map(|(at, _)| *at);
        let draining = (self.drains_until != Instant::FAR).then_some(self.drains_until);
        let timers = dials.map(|dial| dial.next_try).chain(running).chain(held);
        timers.chain(again).chain(draining).min()
    }

    /// What must hold after every turn that has taken all events.
    pub(crate) fn check(&self, end: &End, shared: &Shared, now: Instant) {
        self.check_wake(end, now);
        if let Some((deadline, call)) = self.deadlines.first() {
            let entry = &shared.ledger.calls[*call as usize];
            assert!(
                *deadline + LATE_MAX >= now,
                "call {call} (flags {}) should have ended at {deadline:?}, it is {now:?}: {}",
                entry.flags,
                self.describe(end, *call)
            );
        }
        for running in self.running.iter().filter(|running| running.is_watched) {
            assert!(
                running.is_cancelled || running.deadline + LATE_MAX >= now,
                "{running:?} runs after its deadline, it is {now:?}"
            );
        }
    }

    /// A loop that waits as long as the endpoint says is there when the first deadline passes.
    fn check_wake(&self, end: &End, now: Instant) {
        let running = self.running.iter().filter(|it| it.is_watched && !it.is_cancelled);
        let handled = running.map(|running| running.deadline);
        let called = self.deadlines.first().map(|(deadline, _)| *deadline);
        let Some(due) = handled.chain(called).min().filter(|_| !end.has_work()) else { return };
        let wakes = end.next_timeout();
        assert!(
            wakes.is_some_and(|at| at <= due.max(now) + LATE_MAX),
            "a deadline is at {due:?}, and the loop may wait until {wakes:?}; it is {now:?}"
        );
    }

    fn describe(&self, end: &End, call: CallNo) -> String {
        let open = self.open.get(&call);
        let connection = open.and_then(|open| end.connection(open.handle));
        let timeout = connection.map(ringcall_core::Connection::poll_timeout);
        format!(
            "{open:?} {connection:?}, timeout {timeout:?}, the endpoint's {:?}",
            end.next_timeout()
        )
    }

    // ---- the end ----

    /// Asks every connection to drain.
    pub(crate) fn drain(&mut self, end: &mut End, now: Instant) {
        self.is_draining = true;
        self.drains_until = now + DRAIN_TIMEOUT;
        end.transport_mut().unlisten(Listener(0));
        let handles: Vec<Handle> = self.connections.keys().copied().collect();
        for handle in handles {
            let Some(connection) = end.connection_mut(handle) else { continue };
            // Others are when they are established.
            if connection.peer().is_some() {
                connection.drain(now);
            }
        }
        // What it would do again, it does not any more.
        self.again.clear();
    }

    /// The time of a drain is over: whatever runs is told to stop, and what is waited for is not any more.
    fn give_all_up(&mut self, end: &mut End, shared: &mut Shared, now: Instant) {
        let open: Vec<CallNo> = self.open.keys().copied().collect();
        for call in open {
            self.cancel_call(end, shared, now, call);
        }
        for running in &mut self.running {
            running.due = Some(now);
            running.stops = true;
        }
    }

    /// Its process is gone: nobody will be told of its calls.
    pub(crate) fn die(&mut self, shared: &mut Shared) {
        for call in self.open.keys() {
            shared.ledger.orphan(*call);
        }
    }

    /// How much it still has to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.open.is_empty()
            && self.running.is_empty()
            && self.pumps.is_empty()
            && self.held.is_empty()
            && self.again.is_empty()
    }

    /// For a failure to say.
    pub(crate) fn what_is_left(&self, end: &End) -> String {
        let App { open, running, pumps, held, again, dials, connections, .. } = self;
        let credit = connections.keys().filter_map(|&handle| {
            let connection = end.connection(handle)?;
            let (left, held) = (connection.credit_available(), connection.credit_held());
            Some((handle, left, held, connection.items_held(), connection.bytes_queued()))
        });
        let credit: Vec<_> = credit.collect();
        format!(
            "open {open:?}, running {running:?}, pumps {pumps:?}, held {}, again {again:?}, \
             dials {dials:?}, connections {connections:?}, credit left and held, items, queued {credit:?}",
            held.len()
        )
    }

    fn stream_call(&self, handle: Handle, request: RequestId) -> Option<usize> {
        self.running
            .iter()
            .position(|running| running.handle == handle && running.request == request)
    }
}
