//! Calls that pass the filters of a server on their way to their handlers.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringcall_core::{Status, StatusClass};

use super::access::Principal;
use super::context::ShardClock;
use super::incoming::{Facts, Incoming, Origin};
use super::mount::Method;
use super::slots::{Slots, Work};
use crate::Metadata;
use crate::client::{LocalClient, Peer, Within};
use crate::filter::{CallEnd, Filter};
use crate::metadata::{BadMetadataKey, expect_key};
use crate::shard::{Inner, OpenStream};

/// A call on its way to its handler, as filters see it. Its argument was not looked at yet.
pub struct ServerCall {
    facts: Facts,
    method: &'static str,
    metadata: Metadata,
    shard: Rc<Inner>,
    principal: Option<Principal>,
    /// A filter has said who it is.
    is_principal_new: bool,
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
    /// When the key is not one: [`try_reply_metadata`](Self::try_reply_metadata) is for keys of others.
    #[track_caller]
    pub fn reply_metadata(&self, key: &str, value: impl AsRef<[u8]>) {
        expect_key(self.try_reply_metadata(key, value));
    }

    /// The same for a key that may be none, such as a header of somebody else that is passed on.
    ///
    /// # Errors
    /// When it is none; nothing is added then.
    pub fn try_reply_metadata(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), BadMetadataKey> {
        let Facts { handle, request, .. } = self.facts;
        self.shard.reply_metadata.add(handle, request, key, value.as_ref())
    }

    /// Who calls, as the server's hooks or a filter before this one have found, see
    /// [`Context::principal`](crate::Context::principal).
    #[must_use]
    pub fn principal<T: Any>(&self) -> Option<&T> {
        self.principal.as_ref()?.get()
    }

    /// Says who calls: for filters that ask for it themselves, such as at another server. Handlers and the filters that
    /// come later read it, instead of what was known before. It costs what [`Access::allow_as`](crate::Access::allow_as)
    /// does.
    pub fn set_principal<T: Any + Send + Sync>(&mut self, principal: T) {
        self.principal = Some(Principal::new(principal));
        self.is_principal_new = true;
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

pub(crate) struct Filters<F: Filter<ServerCall>> {
    filter: F,
    slots: Slots<F::Before, Passing>,
}

impl<F: Filter<ServerCall>> Filters<F> {
    pub(crate) fn new(filter: F) -> Filters<F> {
        Filters { filter, slots: Slots::default() }
    }
}

/// A call that waits for its filters.
struct Passing {
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
            principal: shard.principal(facts.handle, facts.request),
            is_principal_new: false,
        };
        let slot = match self.slots.build(|| Ok(self.filter.before(seen))) {
            Ok(slot) => slot,
            Err(unbuilt) => return unbuilt.answer(&shard, &facts),
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
        self.slots.start(slot, &shard, &facts, Passing { method, call, early });
    }

    fn ended(&self, method: &'static str, status: Status) {
        let end = CallEnd::new(method, Some(status));
        if catch_unwind(AssertUnwindSafe(|| self.filter.ended(&end))).is_err() {
            log::error!("a filter panicked when it was told the end of a call of {method}");
        }
    }
}

impl Work<Result<ServerCall, Status>> for Passing {
    fn ended(self, shard: &Rc<Inner>, facts: &Facts, passed: Result<ServerCall, Status>) {
        let Passing { method, mut call, mut early } = self;
        match passed {
            Ok(seen) => {
                call.facts.deadline = seen.facts.deadline;
                if seen.is_principal_new
                    && let Some(principal) = seen.principal
                {
                    shard.set_principal(facts.handle, facts.request, principal);
                }
                // The handler finds it.
                early.0 = None;
                method.run(&mut call);
            }
            Err(status) => {
                let is_failure =
                    matches!(status.class(), StatusClass::Refused | StatusClass::Unknown);
                let status = if is_failure { status } else { Status::FORBIDDEN };
                shard.refuse(facts.handle, facts.request, status);
            }
        }
    }
}
