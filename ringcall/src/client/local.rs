//! Calls from code that runs on the shard.

mod call;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Answer, Backoff, CallId, Cause, Channel, Chunk, Clock, CloseCode, CloseReason, Config, Entropy,
    Expected, Failure, Handle, Instant, Mismatch, Outcome, Outgoing, OwnedChannel, Payload,
    Refused, Status, TransportError,
};

use super::skew::Skew;
use super::{ConnectionState, Credentials, Route, Security, Target, ToAddress, Watched};
use crate::ServeError;
use crate::observe::{Audience, Observers, Ongoing};
use crate::serve::{Mount, Router, Service};
use crate::shard::{Due, Inner, MachineClock, SleepUntil, Ticket};
use call::LocalCall;
pub(crate) use call::failure_of;

/// A connection as its callers on the shard see it. A client's is another one after each loss and each
/// goodbye.
pub(crate) struct ClientConnection {
    /// Absent if calls came by it: then it is not replaced.
    route: Option<Route>,
    security: Security,
    /// What is offered on it, instead of what the shard serves.
    services: Option<Rc<Router>>,
    /// Its settings, instead of the shard's.
    config: Option<Rc<Config>>,
    /// The one for new calls. Others that this client had may still finish theirs.
    handle: Cell<Handle>,
    /// Its server has asked to leave it.
    is_leaving: Cell<bool>,
    watched: Watched,
    skew: Arc<Skew>,
    backoff: Cell<Backoff>,
    /// As it was when the last attempt succeeded.
    backoff_before: Cell<Backoff>,
    /// Who waits for the state to change.
    arriving: RefCell<Vec<Waker>>,
    /// Who waits for room to call, in order.
    crowd: RefCell<VecDeque<Waker>>,
    /// Who is told of its calls.
    audience: Option<Arc<Audience>>,
}

/// No connection has it.
const NONE: Handle = Handle { index: u32::MAX, generation: u32::MAX };

/// What a call that a connection did not take waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waits {
    /// Calls before it must end.
    Room,
    /// The connection must be in another state than this one.
    Change(ConnectionState),
    /// The other side's table of methods must arrive, or not come.
    Table,
    /// Nothing: this is its end.
    Not(Failure),
}

/// What the end of a connection is to its client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Closed {
    /// Nothing: it has another one.
    Left,
    /// Another one is wanted in its place.
    Lost,
    /// An attempt to have one did not succeed.
    Failed,
}

impl ClientConnection {
    pub(crate) fn new(
        route: Route,
        security: Security,
        services: Option<Rc<Router>>,
        config: Option<Rc<Config>>,
        audience: Option<Arc<Audience>>,
    ) -> ClientConnection {
        let connection = ClientConnection::with(Some(route), security, services, audience);
        ClientConnection { config, ..connection }
    }

    /// One that calls came by.
    pub(crate) fn accepted(handle: Handle, audience: Option<Arc<Audience>>) -> ClientConnection {
        let connection = ClientConnection::with(None, Security::default(), None, audience);
        connection.handle.set(handle);
        connection.watched.set(ConnectionState::Ready);
        connection
    }

    fn with(
        route: Option<Route>,
        security: Security,
        services: Option<Rc<Router>>,
        audience: Option<Arc<Audience>>,
    ) -> ClientConnection {
        ClientConnection {
            route,
            security,
            services,
            config: None,
            handle: Cell::new(NONE),
            is_leaving: Cell::new(false),
            watched: Watched::new(ConnectionState::Idle),
            skew: Arc::default(),
            backoff: Cell::default(),
            backoff_before: Cell::default(),
            arriving: RefCell::default(),
            crowd: RefCell::default(),
            audience,
        }
    }

    pub(crate) fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    pub(crate) fn services(&self) -> Option<&Rc<Router>> {
        self.services.as_ref()
    }

    pub(crate) fn config(&self) -> Option<&Rc<Config>> {
        self.config.as_ref()
    }

    #[inline]
    pub(crate) fn audience(&self) -> &Option<Arc<Audience>> {
        &self.audience
    }

    #[inline]
    pub(crate) fn handle(&self) -> Handle {
        self.handle.get()
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// What is known of the types of the other side.
    #[inline]
    pub(crate) fn skew(&self) -> &Arc<Skew> {
        &self.skew
    }

    // ---- what happens to it ----

    /// Attempts begin, one for each of its addresses.
    pub(crate) fn tries(&self, now: Instant) {
        self.update(|backoff| backoff.tries(now));
        if self.watched.state() == ConnectionState::Idle {
            self.change(ConnectionState::Connecting);
        }
    }

    /// It has another connection, which is being opened.
    pub(crate) fn opens(&self, handle: Handle) {
        self.is_leaving.set(false);
        self.handle.set(handle);
    }

    /// All of them have failed, the last one so.
    pub(crate) fn failed(&self, reason: CloseReason) {
        self.update(Backoff::failed);
        // Who was asked on the last connection will not say: nobody is to wait for that.
        self.skew.learn_table(None);
        self.change(ConnectionState::Broken(reason));
    }

    pub(crate) fn established(&self, handle: Handle, compressions: u8) {
        if handle == self.handle.get() {
            self.watched.reads(compressions);
            self.backoff_before.set(self.backoff.get());
            self.update(Backoff::succeeded);
            self.change(ConnectionState::Ready);
        }
    }

    /// The server asks to leave; says whether another connection is wanted.
    pub(crate) fn draining(&self, handle: Handle) -> bool {
        if handle != self.handle.get() || self.is_leaving.replace(true) {
            return false;
        }
        self.change(ConnectionState::Draining);
        true
    }

    /// A connection is over.
    pub(crate) fn closed(&self, handle: Handle, reason: CloseReason) -> Closed {
        if handle != self.handle.get() {
            return Closed::Left;
        }
        self.handle.set(NONE);
        if self.is_leaving.get() {
            // The next one was asked for when its server said goodbye.
            return Closed::Left;
        }
        let is_denied = reason == CloseReason::GoAway(CloseCode::DENIED);
        if self.watched.state() == ConnectionState::Ready && !is_denied {
            self.change(ConnectionState::Connecting);
            return Closed::Lost;
        }
        if is_denied {
            // It was taken for a success when the server answered.
            self.backoff.set(self.backoff_before.get());
        }
        Closed::Failed
    }

    /// One that calls came by is over.
    pub(crate) fn left(&self, reason: CloseReason) {
        self.change(ConnectionState::Broken(reason));
        self.end();
    }

    /// Nobody will open another one.
    pub(crate) fn end(&self) {
        self.skew.learn_table(None);
        self.watched.end();
        self.wake();
    }

    pub(crate) fn next_try(&self, rng: &mut impl Entropy) -> Instant {
        self.backoff.get().next_try(rng)
    }

    fn update(&self, change: impl FnOnce(&mut Backoff)) {
        let mut backoff = self.backoff.get();
        change(&mut backoff);
        self.backoff.set(backoff);
    }

    fn change(&self, state: ConnectionState) {
        self.watched.set(state);
        self.wake();
    }

    fn wake(&self) {
        self.wake_waiting();
        if self.watched.state() != ConnectionState::Ready {
            self.admit(usize::MAX);
        }
    }

    // ---- who waits for it ----

    /// More is known of the other side.
    pub(crate) fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.arriving.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Lets so many callers try again; says whether nobody waits any more.
    pub(crate) fn admit(&self, free: usize) -> bool {
        for _ in 0..free {
            let Some(waker) = self.crowd.borrow_mut().pop_front() else { return true };
            waker.wake();
        }
        self.crowd.borrow().is_empty()
    }

    /// A caller waits no more; says whether it did, and was not let in already.
    pub(crate) fn leave_crowd(&self, waker: &Waker) -> bool {
        let mut crowd = self.crowd.borrow_mut();
        let place = crowd.iter().position(|other| other.will_wake(waker));
        place.and_then(|place| crowd.remove(place)).is_some()
    }

    /// What becomes of a call that was not taken.
    pub(crate) fn judge(&self, failure: Failure, wait_for_ready: bool) -> Waits {
        match failure.cause {
            Cause::InFlightMax | Cause::QueueFull => Waits::Room,
            _ if self.route.is_none() => Waits::Not(failure),
            Cause::NotReady | Cause::GoAway | Cause::Closed(_) => match self.watched.state() {
                ConnectionState::Broken(reason) if !wait_for_ready || self.watched.is_final() => {
                    Waits::Not(Failure::not_sent(Cause::Closed(reason)))
                }
                state => Waits::Change(state),
            },
            _ => Waits::Not(failure),
        }
    }

    /// Whether a call that ended so certainly did not run, only because of its connection: then it is made
    /// again on the next one.
    pub(crate) fn may_repeat(&self, handle: Handle, failure: &Failure) -> bool {
        failure.is_safe_to_retry()
            && match failure.cause {
                Cause::NotReady | Cause::GoAway | Cause::Closed(_) => true,
                Cause::Status(Status::DRAINING) => {
                    handle != self.handle.get() || self.is_leaving.get()
                }
                _ => false,
            }
    }

    fn queue_for_change(&self, waker: &Waker) {
        let mut arriving = self.arriving.borrow_mut();
        // One that is polled again and again before anything happens is kept once.
        if !arriving.last().is_some_and(|last| last.will_wake(waker)) {
            arriving.push(waker.clone());
        }
    }
}

/// Calls a server from code that runs on a shard: handlers, tasks of your own loop.
///
/// It stays on its thread. Clones use the same connection, which ends with the last of them, when its
/// calls are done. One that is lost, or whose server asks to leave, is replaced: see [`ConnectionState`].
///
/// Calls that certainly did not run because their connection ended, or that a stopping server refused, are
/// made again on the next one until their deadline; others never are. A call with a callback is told
/// instead.
///
/// That of [`Context::local_peer`](crate::Context::local_peer) is the connection that a call came by: it does
/// not keep, end or replace it.
#[derive(Clone)]
pub struct LocalClient(Rc<Local>);

struct Local {
    shard: Rc<Inner>,
    connection: Rc<ClientConnection>,
    /// Whether the connection was opened for it; otherwise calls came by it.
    is_owner: bool,
}

impl Local {
    #[inline(always)]
    fn call<P: Payload>(
        &self,
        call: &Outgoing,
        due: Due,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        if call.compression != 0 {
            return self.call_packed(*call, due, payload, ticket);
        }
        self.call_as_it_is(call, due, payload, ticket)
    }

    #[cold]
    fn call_packed<P: Payload>(
        &self,
        mut call: Outgoing,
        due: Due,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        match self.shard.encode(&mut call, self.connection.watched.compressions(), payload) {
            Ok((payload, _)) => self.call_as_it_is(&call, due, &payload, ticket),
            Err(failure) => Err(Refused { ticket, failure }),
        }
    }

    #[inline(always)]
    fn call_as_it_is<P: Payload>(
        &self,
        call: &Outgoing,
        due: Due,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        let handle = self.connection.handle();
        let id = self.shard.call(handle, call, due, payload, ticket)?;
        match self.is_owner {
            true => Ok(id),
            false => self.shard.at_once(handle, id),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        let now = self.shard.now();
        self.connection.end();
        // The shard may be in the middle of something if this is dropped by a task's own code.
        if let Ok(mut endpoint) = self.shard.endpoint.try_borrow_mut()
            && let Some(connection) = endpoint.connection_mut(self.connection.handle())
        {
            if connection.is_open() {
                connection.go_away(now, true);
            } else {
                connection.close(now, CloseReason::Local);
            }
            self.shard.left_work();
        }
    }
}

impl LocalClient {
    pub(crate) fn new(
        shard: &Rc<Inner>,
        route: Route,
        security: Security,
        services: Option<Rc<Router>>,
        config: Option<Rc<Config>>,
        observers: &Observers,
    ) -> LocalClient {
        let audience = shard.audience(observers, route.peer().clone());
        let connection = ClientConnection::new(route, security, services, config, audience);
        let connection = Rc::new(connection);
        LocalClient(Rc::new(Local { shard: Rc::clone(shard), connection, is_owner: true }))
    }

    /// Calls back on a connection that calls came by. They never wait for room, see
    /// [`Peer`](crate::Peer#room).
    pub(crate) fn peer(shard: &Rc<Inner>, connection: Rc<ClientConnection>) -> LocalClient {
        LocalClient(Rc::new(Local { shard: Rc::clone(shard), connection, is_owner: false }))
    }

    /// Whether a call that finds no room waits for it, see [`Peer`](crate::Peer#room).
    pub(crate) fn waits_for_room(&self) -> bool {
        self.0.is_owner
    }

    pub(crate) fn is_of(&self, shard: &Rc<Inner>) -> bool {
        Rc::ptr_eq(&self.0.shard, shard)
    }

    /// How its connection is doing.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.0.connection.watched.state()
    }

    /// Whom the last attempt to connect met instead of the instance that was [expected](LocalConnect::expecting): there
    /// if the state is [`Broken`](ConnectionState::Broken) for
    /// [`CloseReason::WrongInstance`](crate::CloseReason::WrongInstance).
    #[must_use]
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.0.connection.watched.mismatch()
    }

    /// Waits until the state is another than `from`, and gives it. One that never changes again is given at
    /// once.
    pub fn changed(&self, from: ConnectionState) -> impl Future<Output = ConnectionState> + use<> {
        self.0.connection.watched.changed(from)
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn last_failure(&self) -> Option<CloseReason> {
        self.0.connection.watched.last_failure()
    }

    /// Waits until calls can be made, however long that takes.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn ready(&self) -> impl Future<Output = Result<(), Failure>> + use<> {
        self.0.shard.wake_up(&self.0.connection);
        self.0.connection.watched.ready()
    }

    pub(crate) fn connection(&self) -> &Rc<ClientConnection> {
        &self.0.connection
    }

    /// How bodies may be compressed that the other side reads.
    pub(crate) fn compressions(&self) -> u8 {
        self.0.connection.watched.compressions()
    }

    /// How long a body may be that this side reads.
    pub(crate) fn message_bytes_max(&self) -> usize {
        let Local { shard, connection, is_owner } = &*self.0;
        match (connection.config(), is_owner) {
            (Some(config), _) => config.largest_message(),
            (None, true) => shard.message_bytes_max(true),
            // A client may have opened it, with settings of its own.
            (None, false) => shard.message_bytes_max_of(connection.handle()),
        }
    }

    pub(crate) fn shard(&self) -> &Rc<Inner> {
        &self.0.shard
    }

    /// Makes the first attempt to connect, and waits for what comes of it.
    pub(crate) async fn first(&self) -> Result<(), Failure> {
        let watched = &self.0.connection.watched;
        self.0.shard.wake_up(&self.0.connection);
        let mut state = watched.state();
        loop {
            match state {
                ConnectionState::Ready => return Ok(()),
                ConnectionState::Broken(reason) => {
                    return Err(Failure::not_sent(Cause::Closed(reason)));
                }
                _ => state = watched.changed(state).await,
            }
        }
    }

    /// Waits until a call that was not taken may be tried again, or `until`.
    pub(crate) async fn room(&self, waits: Waits, until: Instant) {
        let mut sleep = SleepUntil::new(&self.0.shard, until);
        let mut is_queued = false;
        std::future::poll_fn(|cx| {
            if is_queued || Pin::new(&mut sleep).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            is_queued = true;
            // It may have changed since it was looked at: a task is first polled a while after it was made.
            let is_over = match waits {
                Waits::Change(seen) => seen != self.state(),
                Waits::Table => !self.connection().skew().is_asking(),
                _ => false,
            };
            if is_over {
                return Poll::Ready(());
            }
            self.queue(waits, cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn queue(&self, waits: Waits, waker: &Waker) {
        let connection = &self.0.connection;
        match waits {
            Waits::Room => {
                connection.crowd.borrow_mut().push_back(waker.clone());
                self.0.shard.crowd(connection);
            }
            Waits::Change(_) | Waits::Table => {
                connection.queue_for_change(waker);
                self.0.shard.wake_up(connection);
            }
            Waits::Not(_) => {}
        }
    }

    /// Makes a call whose end is told to a callback.
    pub(crate) fn call_with<P: Payload>(
        &self,
        call: Outgoing,
        payload: &P,
        callback: impl FnOnce(Outcome) + 'static,
    ) {
        let shard = &self.0.shard;
        let due = shard.due_in(call.timeout);
        if let Some(audience) = self.0.connection.audience() {
            return self.call_watched(audience, call, due, payload, callback);
        }
        self.call_for(call, due, payload, shard.ticket_for(callback));
    }

    /// The same, and tells observers.
    #[cold]
    fn call_watched(
        &self,
        audience: &Arc<Audience>,
        call: Outgoing,
        due: Due,
        payload: &dyn Payload,
        callback: impl FnOnce(Outcome) + 'static,
    ) {
        let shard = &self.0.shard;
        let ongoing = Ongoing::begin(audience, &call, due.now, payload);
        let payload = ongoing.measure(payload);
        let ongoing = Rc::new(RefCell::new(ongoing));
        let (ending, clock) = (Rc::clone(&ongoing), Rc::downgrade(shard));
        let ticket = shard.ticket_for(move |outcome| {
            let now = clock.upgrade().map_or_else(|| MachineClock.now(), |shard| shard.now());
            ending.borrow_mut().end_with(now, &outcome);
            callback(outcome);
        });
        self.call_for(call, due, &payload, ticket);
        ongoing.borrow_mut().sends(payload.bytes());
    }

    fn call_for<P: Payload>(&self, mut call: Outgoing, due: Due, payload: &P, ticket: Ticket) {
        let shard = &self.0.shard;
        let may_go = self.0.connection.skew.adapt(&mut call);
        let called = match may_go {
            true => self.0.call(&call, due, payload, ticket),
            false => Err(Refused { ticket, failure: Failure::not_sent(Cause::NotReady) }),
        };
        let Err(refused) = called else { return };
        let waits = match may_go {
            true => self.0.connection.judge(refused.failure, call.wait_for_ready),
            false => Waits::Table,
        };
        let failure = match waits {
            // Who cannot wait is told that there is no room.
            Waits::Room => refused.failure,
            Waits::Not(failure) => failure,
            waits @ (Waits::Change(_) | Waits::Table) => {
                match shard.encode(&mut call, self.compressions(), payload) {
                    Ok((body, _)) => {
                        let waits = Some(waits);
                        let client = self.clone();
                        return shard.call_later(client, call, due.at, body, refused.ticket, waits);
                    }
                    Err(failure) => failure,
                }
            }
        };
        shard.complete(refused.ticket, Outcome::Failed(failure));
    }
}

impl fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalClient")
            .field("target", &self.0.connection.route.as_ref().map(Route::target))
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Channel for LocalClient {
    type Body = Chunk;
    type Pending<'a, P>
        = LocalCall<&'a LocalClient, P>
    where
        P: Payload + Clone + 'a;

    #[inline]
    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> LocalCall<&'a LocalClient, P> {
        LocalCall::new(self, call, payload)
    }

    #[inline(always)]
    fn take_answer<'a, P>(pending: Pin<&mut Self::Pending<'a, P>>) -> Option<Answer<Self::Body>>
    where
        Self: 'a,
        P: Payload + Clone + 'a,
    {
        pending.get_mut().take_answer()
    }
}

impl OwnedChannel for LocalClient {
    type Owned<P>
        = LocalCall<LocalClient, P>
    where
        P: Payload + Clone;

    #[inline]
    fn call_owned<P: Payload + Clone>(
        self,
        call: Outgoing,
        payload: P,
    ) -> LocalCall<LocalClient, P> {
        LocalCall::new(self, call, payload)
    }
}

/// Connects from a shard: await it.
///
/// Services that it is given are offered to the server, which calls them through its
/// [`Peer`](crate::Peer).
#[must_use = "nothing happens before it is awaited"]
pub struct LocalConnect {
    shard: Rc<Inner>,
    target: Result<Target, Failure>,
    security: Security,
    services: Option<Result<Mount, ServeError>>,
    config: Option<Config>,
    attempt: Option<Attempt>,
}

type Attempt = Pin<Box<dyn Future<Output = Result<LocalClient, Failure>>>>;

impl LocalConnect {
    pub(crate) fn new(shard: &Rc<Inner>, address: impl ToAddress) -> LocalConnect {
        let security = Security::of_address(&address.to_text());
        let target = address.target().map_err(|reason| {
            log::warn!("cannot use the address {:?}: {reason}", address.to_text());
            failed(TransportError::BadAddress)
        });
        LocalConnect {
            shard: Rc::clone(shard),
            target,
            security,
            services: None,
            config: None,
            attempt: None,
        }
    }

    /// Offers a service to the server, on this connection and those that replace it. Without, they offer
    /// what the shard serves, or nothing if it is [asked](crate::Server::authorize) there who may call.
    pub fn service<S: Service>(mut self, service: S) -> LocalConnect {
        let services = self.services.unwrap_or_else(|| Ok(Mount::apart(&self.shard)));
        self.services = Some(services.and_then(|mut mount| mount.add(service).map(|()| mount)));
        self
    }

    /// Speaks TLS. The server must have a certificate for the host that is connected to, or for
    /// [`TlsClient::server_name`](crate::TlsClient::server_name).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::TlsClient) -> LocalConnect {
        self.security.tls = Some(tls);
        self
    }

    /// Shows the server who this is. Without TLS everybody on the way reads it.
    pub fn credentials(mut self, credentials: Credentials) -> LocalConnect {
        self.security.credentials = Some(credentials);
        self
    }

    /// Connects to this instance only: one that says it is another is left in the handshake, before any call is
    /// sent, with [`CloseReason::WrongInstance`](crate::CloseReason::WrongInstance), and tried again later. It is no
    /// proof of who the server is; its certificate is, with TLS.
    pub fn expecting(mut self, expected: Expected) -> LocalConnect {
        self.security.expected = Some(expected);
        self
    }

    /// The settings of this client's connections, instead of the shard's: limits, windows, keepalive. Those of
    /// the protocol that the shard knows better, such as what it inflates, stay as they are. A setting that makes
    /// no sense lets connecting fail, and the log says which.
    pub fn config(mut self, config: Config) -> LocalConnect {
        self.config = Some(config);
        self
    }

    /// The client, whose connection is opened when it is first needed.
    pub(crate) fn start(&mut self) -> Result<LocalClient, Failure> {
        if self.shard.remote.is_gone() {
            return Err(Failure::not_sent(Cause::Shutdown));
        }
        let target = self.target.clone()?;
        let services = self.services.take().transpose().map_err(|error| {
            log::error!("{error}");
            failed(TransportError::Unsupported)
        })?;
        let services = services.map(|mount| Rc::new(mount.finish()));
        let config = self.config.take().map(|config| self.shard.own_config(config)).transpose();
        let (config, security) = (config.map_err(failed)?, self.security.clone());
        let (observers, route) = (Observers::default(), Route::new(target));
        Ok(LocalClient::new(&self.shard, route, security, services, config, &observers))
    }
}

fn failed(error: TransportError) -> Failure {
    Failure::not_sent(Cause::Closed(CloseReason::Transport(error)))
}

impl Future for LocalConnect {
    type Output = Result<LocalClient, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.attempt.is_none() {
            let client = self.start()?;
            self.attempt = Some(Box::pin(async move { client.first().await.map(|()| client) }));
        }
        match &mut self.attempt {
            Some(attempt) => attempt.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for LocalConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConnect").field("target", &self.target).finish_non_exhaustive()
    }
}
