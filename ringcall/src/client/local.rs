//! Calls from code that runs on the shard.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Address, Answer, CallId, Cause, Channel, Chunk, CloseReason, Failure, Handle, Instant, Outcome,
    Outgoing, Payload, Refused, TransportError,
};

use super::ToAddress;
use crate::serve::{Mount, Service};
use crate::shard::{Inner, SleepUntil, Ticket};
use crate::{CallError, ServeError};

/// A connection as its callers on the shard see it.
pub(crate) struct ClientConnection {
    handle: Handle,
    state: Cell<State>,
    /// Who waits for it to be established.
    arriving: RefCell<Vec<Waker>>,
    /// Who waits for room to call, in order.
    crowd: RefCell<VecDeque<Waker>>,
}

#[derive(Clone, Copy)]
enum State {
    Connecting,
    Ready,
    Draining,
    Closed(CloseReason),
}

impl ClientConnection {
    pub(crate) fn new(handle: Handle) -> ClientConnection {
        ClientConnection {
            handle,
            state: Cell::new(State::Connecting),
            arriving: RefCell::default(),
            crowd: RefCell::default(),
        }
    }

    /// One that calls came by.
    pub(crate) fn accepted(handle: Handle) -> ClientConnection {
        let connection = ClientConnection::new(handle);
        connection.state.set(State::Ready);
        connection
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    pub(crate) fn established(&self) {
        self.change(State::Ready);
    }

    pub(crate) fn draining(&self) {
        self.change(State::Draining);
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.change(State::Closed(reason));
    }

    fn change(&self, state: State) {
        self.state.set(state);
        let waiting = std::mem::take(&mut *self.arriving.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
        if !matches!(state, State::Ready) {
            self.admit(usize::MAX);
        }
    }

    /// Lets so many callers try again; says whether nobody waits any more.
    pub(crate) fn admit(&self, free: usize) -> bool {
        for _ in 0..free {
            let Some(waker) = self.crowd.borrow_mut().pop_front() else { return true };
            waker.wake();
        }
        self.crowd.borrow().is_empty()
    }

    /// Whether a refused call may be tried again when there is room.
    pub(crate) fn may_wait(failure: &Failure) -> bool {
        matches!(failure.cause, Cause::InFlightMax | Cause::QueueFull)
    }
}

/// Calls a server from code that runs on a shard: handlers, tasks of your own loop.
///
/// It stays on its thread. Clones are the same connection, which ends with the last of them, when its
/// calls are done. That of [`Context::local_peer`](crate::Context::local_peer) does not keep or end the
/// connection.
#[derive(Clone)]
pub struct LocalClient(Rc<Local>);

struct Local {
    shard: Rc<Inner>,
    connection: Rc<ClientConnection>,
    /// Whether the connection was opened for it; otherwise calls came by it.
    is_owner: bool,
}

impl Local {
    #[inline]
    fn call<P: Payload>(
        &self,
        call: &Outgoing,
        deadline: Instant,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        let handle = self.connection.handle;
        match self.is_owner {
            true => self.shard.call(handle, call, deadline, payload, ticket),
            false => self.shard.call_at_once(handle, call, deadline, payload, ticket),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        let now = self.shard.now();
        // The shard may be in the middle of something if this is dropped by a task's own code.
        if let Ok(mut endpoint) = self.shard.endpoint.try_borrow_mut()
            && let Some(connection) = endpoint.connection_mut(self.connection.handle)
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
    pub(crate) fn new(shard: &Rc<Inner>, connection: Rc<ClientConnection>) -> LocalClient {
        LocalClient(Rc::new(Local { shard: Rc::clone(shard), connection, is_owner: true }))
    }

    /// Calls back on a connection that calls came by. They never wait for room, see
    /// [`Peer`](crate::Peer#room).
    pub(crate) fn peer(shard: &Rc<Inner>, connection: Rc<ClientConnection>) -> LocalClient {
        LocalClient(Rc::new(Local { shard: Rc::clone(shard), connection, is_owner: false }))
    }

    pub(crate) fn is_of(&self, shard: &Rc<Inner>) -> bool {
        Rc::ptr_eq(&self.0.shard, shard)
    }

    pub(crate) fn connection(&self) -> &Rc<ClientConnection> {
        &self.0.connection
    }

    pub(crate) fn shard(&self) -> &Rc<Inner> {
        &self.0.shard
    }

    /// Waits until calls can be made.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let connection = &self.0.connection;
        match connection.state.get() {
            State::Ready => Poll::Ready(Ok(())),
            State::Connecting => {
                connection.arriving.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
            State::Draining => Poll::Ready(Err(Failure::not_sent(Cause::GoAway))),
            State::Closed(reason) => Poll::Ready(Err(Failure::not_sent(Cause::Closed(reason)))),
        }
    }

    /// Waits until a refused call may be tried again, or `until`.
    pub(crate) async fn room(&self, until: Instant) {
        let mut sleep = SleepUntil::new(&self.0.shard, until);
        let mut is_queued = false;
        std::future::poll_fn(|cx| {
            if is_queued || Pin::new(&mut sleep).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            is_queued = true;
            self.queue(cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn queue(&self, waker: &Waker) {
        self.0.connection.crowd.borrow_mut().push_back(waker.clone());
        self.0.shard.crowd(&self.0.connection);
    }

    /// Makes a call whose end is told to a callback.
    pub(crate) fn call_with<P: Payload>(
        &self,
        call: Outgoing,
        payload: &P,
        callback: impl FnOnce(Outcome) + 'static,
    ) {
        let shard = &self.0.shard;
        let deadline = shard.now() + call.timeout;
        let ticket = Ticket::Callback(Box::new(callback));
        if let Err(refused) = self.0.call(&call, deadline, payload, ticket) {
            shard.complete(refused.ticket, Outcome::Failed(refused.failure));
        }
    }
}

impl fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalClient").field(&self.0.connection.handle).finish()
    }
}

impl Channel for LocalClient {
    type Body = Chunk;
    type Pending<'a, P>
        = LocalCall<'a, P>
    where
        P: Payload + 'a;

    #[inline]
    fn call<'a, P: Payload + 'a>(&'a self, call: Outgoing, payload: P) -> LocalCall<'a, P> {
        LocalCall { client: self, call, payload, stage: Stage::New }
    }
}

/// Connects from a shard: await it.
///
/// Services that it is given are offered to the server, which calls them through its
/// [`Peer`](crate::Peer).
#[must_use = "nothing happens before it is awaited"]
pub struct LocalConnect {
    shard: Rc<Inner>,
    address: Result<Address, CallError>,
    services: Option<Result<Mount, ServeError>>,
    client: Option<LocalClient>,
}

impl LocalConnect {
    pub(crate) fn new(shard: &Rc<Inner>, address: impl ToAddress) -> LocalConnect {
        let address = address.resolve().map_err(|reason| {
            log::warn!("cannot use the address {:?}: {reason}", address.to_text());
            failed(TransportError::BadAddress).into()
        });
        LocalConnect { shard: Rc::clone(shard), address, services: None, client: None }
    }

    /// Offers a service to the server, on this connection alone. Without, the connection offers what the
    /// shard serves.
    pub fn service<S: Service>(mut self, service: S) -> LocalConnect {
        let services = self.services.unwrap_or_else(|| Ok(Mount::apart(&self.shard)));
        self.services = Some(services.and_then(|mut mount| mount.add(service).map(|()| mount)));
        self
    }

    fn start(&mut self) -> Result<LocalClient, CallError> {
        if self.shard.remote.is_gone() {
            return Err(Failure::not_sent(Cause::Shutdown).into());
        }
        let address = self.address.clone()?;
        let services = self.services.take().transpose().map_err(|error| {
            log::error!("{error}");
            failed(TransportError::Unsupported)
        })?;
        let router = services.map(Mount::finish);
        let connection = self.shard.connect(&address, router).map_err(failed)?;
        Ok(LocalClient::new(&self.shard, connection))
    }
}

fn failed(error: TransportError) -> Failure {
    Failure::not_sent(Cause::Closed(CloseReason::Transport(error)))
}

impl Future for LocalConnect {
    type Output = Result<LocalClient, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.start()?,
        };
        match client.poll_ready(cx) {
            Poll::Pending => self.client = Some(client),
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(client)),
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure.into())),
        }
        Poll::Pending
    }
}

impl fmt::Debug for LocalConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConnect").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A call made on the shard.
pub struct LocalCall<'a, P> {
    client: &'a LocalClient,
    call: Outgoing,
    payload: P,
    stage: Stage,
}

enum Stage {
    New,
    /// There was no room: tries again when there is, until its deadline.
    Crowded {
        deadline: Instant,
        sleep: SleepUntil,
    },
    Sent {
        waiter: u32,
        id: CallId,
    },
    Ended,
}

impl<P> Unpin for LocalCall<'_, P> {}

impl<P: Payload> LocalCall<'_, P> {
    /// Tries to make the call.
    fn send(&mut self, deadline: Instant, waker: &Waker) -> Poll<Failure> {
        let shard = &self.client.0.shard;
        let waiter = shard.waiters.add(waker.clone());
        let ticket = Ticket::Waiter(waiter);
        match self.client.0.call(&self.call, deadline, &self.payload, ticket) {
            Ok(id) => {
                self.stage = Stage::Sent { waiter, id };
                Poll::Pending
            }
            Err(refused) => {
                shard.waiters.remove(waiter);
                if !self.client.0.is_owner || !ClientConnection::may_wait(&refused.failure) {
                    self.stage = Stage::Ended;
                    return Poll::Ready(refused.failure);
                }
                self.client.queue(waker);
                let sleep = SleepUntil::new(shard, deadline);
                self.stage = Stage::Crowded { deadline, sleep };
                Poll::Pending
            }
        }
    }
}

impl<P: Payload> Future for LocalCall<'_, P> {
    type Output = Result<Answer<Chunk>, Failure>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shard = &this.client.0.shard;
        match &mut this.stage {
            Stage::New => {
                let deadline = shard.now() + this.call.timeout;
                this.send(deadline, cx.waker()).map(Err)
            }
            Stage::Crowded { deadline, .. } => {
                let deadline = *deadline;
                let sent = this.send(deadline, cx.waker()).map(Err);
                // The deadline must be able to wake us, too.
                if let Stage::Crowded { sleep, .. } = &mut this.stage
                    && Pin::new(sleep).poll(cx).is_ready()
                {
                    this.stage = Stage::Ended;
                    return Poll::Ready(Err(Failure::not_sent(Cause::Expired)));
                }
                sent
            }
            Stage::Sent { waiter, .. } => match shard.waiters.poll(*waiter, cx.waker()) {
                None => Poll::Pending,
                Some(outcome) => {
                    this.stage = Stage::Ended;
                    Poll::Ready(answer(outcome))
                }
            },
            Stage::Ended => Poll::Ready(Err(Failure::unknown(Cause::Cancelled))),
        }
    }
}

#[inline]
fn answer(outcome: Outcome) -> Result<Answer<Chunk>, Failure> {
    match outcome {
        // A one-way call has no answer; that it was sent is all there is to say.
        Outcome::Sent => Ok(Answer {
            header: ringcall_core::frame::ReplyHeader::new(ringcall_core::Status::OK),
            body: Chunk::empty(),
        }),
        outcome => {
            let reply = outcome.into_answer()?;
            Ok(Answer { header: reply.header, body: reply.body })
        }
    }
}

impl<P> Drop for LocalCall<'_, P> {
    fn drop(&mut self) {
        let Stage::Sent { waiter, id } = self.stage else { return };
        let shard = &self.client.0.shard;
        let handle = self.client.0.connection.handle;
        // Without a ticket the call has ended meanwhile, and its result is with the waiter.
        drop(shard.cancel(handle, id));
        shard.waiters.remove(waiter);
    }
}

impl<P> fmt::Debug for LocalCall<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCall").field("call", &self.call).finish_non_exhaustive()
    }
}
