//! Calls that pass the filters of a server on their way to their handlers.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use ringcall_core::{Status, StatusClass};

use super::context::ShardClock;
use super::handler::panicked;
use super::incoming::{Facts, Incoming, Origin, Running};
use super::mount::Method;
use crate::Metadata;
use crate::client::{LocalClient, Peer, Within};
use crate::filter::{CallEnd, Filter};
use crate::shard::{Inner, OpenStream, Task};

/// A call on its way to its handler, as filters see it. Its argument was not looked at yet.
pub struct ServerCall {
    facts: Facts,
    method: &'static str,
    metadata: Metadata,
    shard: Rc<Inner>,
}

impl ServerCall {
    /// `package.Service/method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// The call's metadata and context.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Adds an entry of metadata to the answer, see
    /// [`Context::reply_metadata`](crate::Context::reply_metadata).
    ///
    /// # Panics
    /// When the key is not one.
    pub fn reply_metadata(&self, key: &str, value: impl AsRef<[u8]>) {
        let Facts { handle, request, .. } = self.facts;
        self.shard.reply_metadata.add(handle, request, key, value.as_ref());
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.facts.deadline.since(self.shard.now())
    }

    /// Gives the handler this much time at most.
    pub fn limit(&mut self, time: Duration) {
        self.facts.deadline = self.facts.deadline.min(self.shard.now() + time);
    }

    /// 0 is the most ordinary.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.facts.priority
    }

    /// 0 for the first attempt.
    #[must_use]
    pub fn attempt(&self) -> u8 {
        self.facts.attempt
    }

    /// The other side of the connection that the call came by.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::new(self.shard.remote.peer(self.facts.handle))
    }

    /// A channel for calls that the filter makes, such as to ask who the caller is: as
    /// [`Context::client`](crate::Context::client).
    pub fn client<C: Clone>(&self, channel: &C) -> Within<C, ShardClock> {
        super::context::within(&self.shard, &self.facts, &self.metadata, channel)
    }

    /// The other side, for calls on this shard, see [`Context::local_peer`](crate::Context::local_peer).
    #[must_use]
    pub fn local_peer(&self) -> LocalClient {
        self.shard.local_peer(self.facts.handle)
    }
}

impl fmt::Debug for ServerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCall")
            .field("method", &self.method)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// The filters of a shard, behind one pointer.
pub(crate) trait ServerFilter {
    fn start(self: Rc<Self>, method: Rc<Method>, call: Incoming);

    fn ended(&self, method: &'static str, status: Status);
}

/// How many futures are kept to be used again.
const SLOTS_KEPT: usize = 1024;

type Slots<F> = RefCell<Vec<Pin<Box<Slot<F>>>>>;

pub(crate) struct Filters<F: Filter<ServerCall>> {
    filter: F,
    slots: Slots<F>,
}

impl<F: Filter<ServerCall>> Filters<F> {
    pub(crate) fn new(filter: F) -> Filters<F> {
        Filters { filter, slots: RefCell::default() }
    }
}

pin_project! {
    /// Room for a call that passes filters; used again.
    struct Slot<F: Filter<ServerCall>> {
        #[pin]
        future: Option<F::Before>,
        call: Option<Passing>,
        // It was not ready at once, so that the shard knows of it.
        is_kept: bool,
        // Where it goes when the call has passed; `None` there, or it would keep its home alive.
        home: Option<Rc<Filters<F>>>,
    }
}

/// A call that waits for its filters.
struct Passing {
    shard: Rc<Inner>,
    method: Rc<Method>,
    call: Incoming,
    /// Its items, which may come before the handler begins.
    early: Early,
}

struct Early(Option<Rc<OpenStream>>);

impl Drop for Early {
    fn drop(&mut self) {
        // Unless a handler has it now.
        if let Some(stream) = self.0.take() {
            stream.close();
        }
    }
}

impl<F: Filter<ServerCall>> ServerFilter for Filters<F> {
    fn start(self: Rc<Self>, method: Rc<Method>, call: Incoming) {
        let Origin::Shard(shard) = &call.origin else { return };
        let (shard, facts) = (Rc::clone(shard), call.facts);
        let seen = ServerCall {
            facts,
            method: method.full_name(),
            metadata: Metadata::new(call.extensions.clone()),
            shard: Rc::clone(&shard),
        };
        let future = match catch_unwind(AssertUnwindSafe(|| self.filter.before(seen))) {
            Ok(future) => future,
            Err(_) => return panicked(&shard, &facts),
        };
        if F::TELLS_ENDS {
            let filters = Rc::clone(&self) as Rc<dyn ServerFilter>;
            shard.reply_metadata.watch(facts.handle, facts.request, filters, method.full_name());
        }
        let early = Early(method.has_items_in().then(|| {
            let stream = OpenStream::new(&shard, facts.handle);
            stream.register(facts.request.into());
            stream
        }));
        let taken = self.slots.borrow_mut().pop();
        let mut slot = taken.unwrap_or_else(|| {
            Box::pin(Slot { future: None, call: None, is_kept: false, home: None })
        });
        {
            let mut slot = slot.as_mut().project();
            slot.future.set(Some(future));
            *slot.call = Some(Passing { shard: Rc::clone(&shard), method, call, early });
            *slot.is_kept = false;
            *slot.home = Some(self);
        }
        let Some(index) = shard.executor.poll_first(|cx| slot.as_mut().poll(cx)) else {
            return slot.recycle();
        };
        *slot.as_mut().project().is_kept = true;
        shard.keep_running(facts.handle, facts.request, facts.deadline, Running::Task(index));
        shard.executor.put(index, slot);
    }

    fn ended(&self, method: &'static str, status: Status) {
        let end = CallEnd::new(method, Some(status));
        if catch_unwind(AssertUnwindSafe(|| self.filter.ended(&end))).is_err() {
            log::error!("a filter panicked when it was told the end of a call of {method}");
        }
    }
}

impl<F: Filter<ServerCall>> Task for Slot<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let passing = this.call.as_ref();
        let entered = passing.and_then(|passing| passing.shard.enter(&passing.call.facts));
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        drop(entered);
        let passed = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(passed)) => Ok(passed),
            Err(panic) => Err(panic),
        };
        let Some(Passing { shard, method, mut call, mut early }) = this.call.take() else {
            return Poll::Ready(());
        };
        let facts = call.facts;
        if *this.is_kept {
            shard.ended_running(facts.handle, facts.request);
        }
        match passed {
            Ok(Ok(seen)) => {
                call.facts.deadline = seen.facts.deadline;
                // The handler finds it.
                early.0 = None;
                method.run(call);
            }
            Ok(Err(status)) => {
                let is_failure =
                    matches!(status.class(), StatusClass::Refused | StatusClass::Unknown);
                let status = if is_failure { status } else { Status::FORBIDDEN };
                shard.refuse(facts.handle, facts.request, status);
            }
            Err(_) => panicked(&shard, &facts),
        }
        Poll::Ready(())
    }

    fn recycle(mut self: Pin<Box<Self>>) {
        let home = {
            let mut this = self.as_mut().project();
            this.future.set(None);
            // Of a call that was cancelled.
            *this.call = None;
            this.home.take()
        };
        let Some(home) = home else { return };
        let mut slots = home.slots.borrow_mut();
        if slots.len() < SLOTS_KEPT {
            slots.push(self);
        }
    }
}
