//! What other threads leave for a shard: their calls, and everything else that they have to say.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use ringcall_core::{
    CallId, Cause, CloseReason, Encoded, Failure, Handle, Instant, Outcome, Outgoing, Payload,
    Refused, Status, TransportError,
};

use super::{Due, Inner, Ticket};
use crate::client::{
    Called, ConnectSlot, Connecting, Destination, Entry, LocalClient, RemoteEnd, RemoteSlot, Route,
    Security, Services, Skew, Waits, Watched,
};
use crate::serve::{Mount, Router, Sleeper};
use crate::shard::SleepUntil;
use crate::shard::mail::{Notice, RemoteCall, RemoteOpening};

/// Calls of other threads that have not ended, by place.
#[derive(Default)]
pub(super) struct RemoteCalls {
    calls: Vec<Option<RemoteEntry>>,
    free: Vec<u32>,
}

struct RemoteEntry {
    end: RemoteEnd,
    to: Destination,
    handle: Handle,
    /// Unknown while the call waits.
    id: Option<CallId>,
    deadline: Instant,
    called: Called,
    /// To make it again, if its caller cannot.
    again: Option<(Outgoing, Encoded)>,
}

impl RemoteCalls {
    fn add(&mut self, end: RemoteEnd, to: Destination, deadline: Instant, called: Called) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() as u32 - 1
        });
        end.set_index(index);
        let handle = Handle { index: 0, generation: 0 };
        let entry = RemoteEntry { end, to, handle, id: None, deadline, called, again: None };
        self.calls[index as usize] = Some(entry);
        index
    }

    fn sent(&mut self, index: u32, handle: Handle, id: CallId) {
        if let Some(Some(entry)) = self.calls.get_mut(index as usize) {
            (entry.handle, entry.id) = (handle, Some(id));
        }
    }

    /// Keeps what it takes to make a call again, if its caller cannot.
    fn keep(&mut self, index: u32, outgoing: Outgoing, payload: Encoded) {
        if let Some(entry) = self.entry(index)
            && !entry.end.can_repeat()
        {
            entry.called = Called::from(&outgoing);
            entry.again = Some((outgoing, payload));
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut RemoteEntry> {
        self.calls.get_mut(index as usize)?.as_mut()
    }

    fn is_abandoned(&self, index: u32) -> bool {
        let entry = self.calls.get(index as usize);
        entry.and_then(Option::as_ref).is_some_and(|entry| entry.end.is_abandoned())
    }

    pub(super) fn take(&mut self, index: u32) -> Option<RemoteEnd> {
        let entry = self.calls[index as usize].take()?;
        self.free.push(index);
        Some(entry.end)
    }
}

/// Somebody on another thread, who is woken when the time has come, or the shard ends.
struct Counting(Arc<Sleeper>);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Inner {
    pub(super) fn take_calls(self: &Rc<Self>) {
        let mut any = false;
        while let Some(call) = self.remote.next_call() {
            any = true;
            self.take_call(call);
        }
        if any {
            self.remote.admit_crowd();
        }
    }

    fn take_call(self: &Rc<Self>, call: RemoteCall) {
        let RemoteCall { to, mut outgoing, deadline, waits, payload, end } = call;
        let client = match to {
            Destination::Client(number) => self.remote_client(number),
            Destination::Peer(handle) => Some(self.local_peer(handle)),
        };
        let Some(client) = client else { return end.shut_down() };
        if end.is_abandoned() {
            return;
        }
        // The time of this turn may be a little older than the call, which would seem to have more left.
        let now = self.now();
        let due = Due { now, at: deadline.min(now + outgoing.timeout) };
        let handle = client.connection().handle();
        let may_go = client.connection().skew().adapt_for(&mut outgoing, &payload);
        let called = Called::from(&outgoing);
        let index = self.remote_calls.borrow_mut().add(end, to, due.at, called);
        let ticket = Ticket::Remote(index as usize);
        if !may_go {
            return self.call_later(client, outgoing, due.at, payload, ticket, Some(Waits::Table));
        }
        let called = match self.call(handle, &outgoing, due, &payload, ticket) {
            Ok(id) if !waits => self.at_once(handle, id),
            called => called,
        };
        match called {
            Ok(id) => {
                let mut calls = self.remote_calls.borrow_mut();
                calls.sent(index, handle, id);
                calls.keep(index, outgoing, payload);
            }
            Err(Refused { ticket, failure }) if !waits => {
                self.complete(ticket, Outcome::Failed(failure));
            }
            Err(Refused { ticket, failure }) => {
                match client.connection().judge(failure, outgoing.wait_for_ready) {
                    Waits::Not(failure) => self.complete(ticket, Outcome::Failed(failure)),
                    waits => {
                        self.call_later(client, outgoing, due.at, payload, ticket, Some(waits));
                    }
                }
            }
        }
    }

    fn remote_client(&self, number: u32) -> Option<LocalClient> {
        self.remote_clients.borrow().get(number as usize).cloned().flatten()
    }

    /// Sees to it that a call from another thread that certainly did not run is made again; says whether it
    /// has not ended yet.
    pub(super) fn repeat(self: &Rc<Self>, index: u32, failure: &Failure) -> bool {
        let mut calls = self.remote_calls.borrow_mut();
        let Some(entry) = calls.entry(index) else { return false };
        let client = match entry.to {
            Destination::Client(number) => self.remote_client(number),
            Destination::Peer(handle) => Some(self.local_peer(handle)),
        };
        let Some(client) = client else { return false };
        let is_other = matches!(entry.to, Destination::Client(_))
            && client.connection().may_repeat(entry.handle, failure);
        if !is_other && !client.connection().skew().learn(failure, entry.called) {
            return false;
        }
        // What is compressed cannot be said in another codec: it would be refused again.
        let is_stuck = |(_, payload): &(Outgoing, Encoded)| payload.transcode().is_none();
        if !is_other && entry.again.as_ref().is_some_and(is_stuck) {
            return false;
        }
        let deadline = entry.deadline;
        let Some((outgoing, payload)) = entry.again.take() else {
            // Its caller has the argument.
            entry.end.repeat_until(deadline);
            return false;
        };
        entry.id = None;
        drop(calls);
        if let Some(audience) = client.connection().audience() {
            // Its callback knows its number, and nobody here does.
            audience.repeat(&outgoing, 0, self.now());
        }
        self.call_later(client, outgoing, deadline, payload, Ticket::Remote(index as usize), None);
        true
    }

    /// The body of a call whose argument is only borrowed, to be sent later.
    pub(crate) fn encode<P: Payload>(
        &self,
        call: &mut Outgoing,
        accepted: u8,
        payload: &P,
    ) -> Result<(Encoded, usize), Failure> {
        self.outbox.encode_call(call, || accepted, payload)
    }

    /// Makes a call as soon as its connection takes it, or fails it at its deadline.
    pub(crate) fn call_later(
        self: &Rc<Self>,
        client: LocalClient,
        mut outgoing: Outgoing,
        deadline: Instant,
        payload: Encoded,
        mut ticket: Ticket,
        mut waits: Option<Waits>,
    ) {
        let shard = Rc::clone(self);
        self.spawn(async move {
            loop {
                if let Some(waits) = waits {
                    client.room(waits, deadline).await;
                }
                let handle = client.connection().handle();
                let index =
                    if let Ticket::Remote(index) = ticket { Some(index as u32) } else { None };
                if index.is_some_and(|index| shard.remote_calls.borrow().is_abandoned(index)) {
                    let failure = Failure::not_sent(Cause::Cancelled);
                    return shard.complete(ticket, Outcome::Failed(failure));
                }
                let skew = client.connection().skew();
                if !skew.adapt_for(&mut outgoing, &payload) && shard.now() < deadline {
                    waits = Some(Waits::Table);
                    continue;
                }
                match shard.call(handle, &outgoing, shard.due_at(deadline), &payload, ticket) {
                    Ok(id) => {
                        if let Some(index) = index {
                            let mut calls = shard.remote_calls.borrow_mut();
                            calls.sent(index, handle, id);
                            calls.keep(index, outgoing, payload);
                        }
                        return;
                    }
                    Err(refused) => {
                        ticket = refused.ticket;
                        match client.connection().judge(refused.failure, outgoing.wait_for_ready) {
                            Waits::Not(failure) => {
                                return shard.complete(ticket, Outcome::Failed(failure));
                            }
                            // Core does not look at the time while there is no connection.
                            _ if shard.now() >= deadline => {
                                let failure = Failure::not_sent(Cause::Expired);
                                return shard.complete(ticket, Outcome::Failed(failure));
                            }
                            again => waits = Some(again),
                        }
                    }
                }
            }
        });
    }

    pub(super) fn take_notices(self: &Rc<Self>) {
        while let Some(notice) = self.remote.next_notice() {
            match notice {
                Notice::Cancel(slot) => self.cancel_remote(&slot),
                Notice::Open(opening) => self.open_remote(*opening),
                Notice::Connect(route, security, services, slot) => {
                    self.connect_remote(route, security, services, slot);
                }
                Notice::Found(number, addresses) => self.found(number, addresses),
                Notice::WakeUp(client) => {
                    if let Some(client) = self.remote_client(client) {
                        self.wake_up(client.connection());
                    }
                }
                Notice::Watch(handle) => {
                    if self.is_there(handle) {
                        self.remote.peer(handle).reads(self.compressions(handle));
                    } else {
                        self.remote.end_peer(handle, CloseReason::Local);
                    }
                }
                Notice::Release(client) => {
                    let mut clients = self.remote_clients.borrow_mut();
                    let released = clients.get_mut(client as usize).and_then(Option::take);
                    drop(clients);
                    drop(released);
                }
                Notice::Adopt(socket) => self.adopt(socket),
                Notice::Reply { handle, request, header, payload } => {
                    self.ended_running(handle, request);
                    if header.codec.has_names() {
                        self.count_fallback(handle, 1, 0);
                    }
                    match header.status {
                        Status::EXPIRED => self.refuse_expired(handle, request),
                        _ => self.answer_with(handle, request, header, &payload),
                    }
                }
                Notice::Begun(handle, tie) => self.tell_begun(handle, tie),
                Notice::Timer(after, sleeper) => {
                    let mut sleep = SleepUntil::new(self, self.now() + after);
                    let counting = Counting(sleeper);
                    self.spawn(poll_fn(move |cx| match counting.0.poll_gone(cx) {
                        Poll::Ready(()) => Poll::Ready(()),
                        Poll::Pending => Pin::new(&mut sleep).poll(cx),
                    }));
                }
                Notice::Goodbye(how, begun) => {
                    self.say_goodbye(how);
                    // Nobody waits for it any more if that took too long.
                    let _ = begun.map(|begun| begun.send(()));
                }
                Notice::Limits(limits, rates) => self.set_limits(&limits, rates),
                Notice::Group(group, grace) => self.move_to_group(group, grace),
                Notice::Records(to) => {
                    // Whoever asked may have gone.
                    let _ = to.send(self.records());
                }
                Notice::Listen(place, to) => {
                    // Whoever asked may have gone.
                    let _ = to.send(self.listen_only(place));
                }
                Notice::HandOver(to) => {
                    let _ = to.send(self.share_listener());
                }
            }
        }
    }

    /// Tells the callers whose calls were waiting to be made: what would have made them is gone.
    pub(super) fn end_remote_calls(&self) {
        let places = self.remote_calls.borrow().calls.len() as u32;
        for index in 0..places {
            let failure = Failure::not_sent(Cause::Shutdown);
            self.complete(Ticket::Remote(index as usize), Outcome::Failed(failure));
        }
    }

    fn cancel_remote(&self, slot: &Arc<RemoteSlot>) {
        let (handle, id) = {
            let calls = self.remote_calls.borrow();
            match calls.calls.get(slot.index() as usize) {
                // The place may have been used again.
                Some(Some(RemoteEntry { end, handle, id: Some(id), .. })) if end.is_of(slot) => {
                    (*handle, *id)
                }
                _ => return,
            }
        };
        if let Some(ticket) = self.cancel(handle, id) {
            self.complete(ticket, Outcome::Failed(Failure::unknown(Cause::Cancelled)));
        }
    }

    fn open_remote(self: &Rc<Self>, opening: RemoteOpening) {
        let RemoteOpening { to, outgoing, payload, bridge } = opening;
        let client = match to {
            Destination::Client(number) => self.remote_client(number),
            Destination::Peer(handle) => Some(self.local_peer(handle)),
        };
        match client {
            Some(client) => self.spawn(bridge.carry(client, outgoing, payload)),
            None => bridge.shut_down(),
        }
    }

    fn connect_remote(
        self: &Rc<Self>,
        route: Route,
        security: Security,
        services: Services,
        slot: Arc<ConnectSlot>,
    ) {
        let (observers, config) = (services.observers.clone(), services.config.clone());
        let config = config.map(|config| self.own_config(*config)).transpose();
        let (services, config) = match self.mount(services).and_then(|it| Ok((it, config?))) {
            Ok((services, config)) => (services.map(Rc::new), config),
            Err(error) => {
                let cause = Cause::Closed(CloseReason::Transport(error));
                return slot.complete(Err(Failure::not_sent(cause)));
            }
        };
        let shard = Rc::clone(self);
        let client = LocalClient::new(self, route, security, services, config, &observers);
        if slot.is_lazy() {
            return slot.complete(Ok(self.enter_remote(client)));
        }
        let connecting = Connecting::new(slot);
        self.spawn(async move {
            let connected = client.first().await;
            connecting.complete(connected.map(|()| shard.enter_remote(client)));
        });
    }

    /// Gives a client a number for other threads.
    fn enter_remote(&self, client: LocalClient) -> (Entry, Watched, Arc<Skew>) {
        let watched = client.connection().watched().clone();
        let skew = Arc::clone(client.connection().skew());
        let mut clients = self.remote_clients.borrow_mut();
        let index = clients.iter().position(Option::is_none).unwrap_or_else(|| {
            clients.push(None);
            clients.len() - 1
        });
        clients[index] = Some(client);
        (Entry::new(&self.remote, index as u32), watched, skew)
    }

    fn mount(self: &Rc<Self>, services: Services) -> Result<Option<Router>, TransportError> {
        if services.is_empty() {
            return Ok(None);
        }
        let mut mount = Mount::apart(self);
        services.add_to(&mut mount).map_err(|error| {
            log::error!("{error}");
            TransportError::Unsupported
        })?;
        Ok(Some(mount.finish()))
    }
}
