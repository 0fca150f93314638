//! From services to a table of methods.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use ringcall_codec_rkyv::{IntoError, Message};
use ringcall_core::frame::request_flags;
use ringcall_core::{Codec, Request, Status};

use super::admit::Admitted;
use super::handler::{
    Handler, Offloaded, OffloadedResponder, OnShard, Spawned, SpawnedResponder, Spawner,
    WithResponder,
};
use super::limits::{Cost, Served};
use super::methods::MethodRows;
use super::repeats::Deduplicated;
use super::streams::{Ending, Streaming, Streams};
use super::{Handlers, Incoming, KeptReplies, MethodTable, ServerFilter, ServiceTable};
use crate::ServeError;
use crate::offload::Pool;
use crate::shard::Inner;

/// Something that can be served: what `#[service]` makes of an implementation of a trait.
pub trait Service: Sized {
    /// What is known about its methods.
    fn table(&self) -> &'static ServiceTable;

    #[doc(hidden)]
    fn mount(self, mount: &mut Mount);

    #[doc(hidden)]
    fn mount_offloaded(self, mount: &mut Mount)
    where
        Self: Send + Sync;
}

/// A service whose handlers may run on any executor: one with `#[service(send)]`.
#[diagnostic::on_unimplemented(
    message = "the handlers of `{Self}` must stay on the shard of their calls",
    label = "not a service with `send`",
    note = "write `#[ringcall::service(send)]` on its trait, whose methods then take `&SendContext` and `SharedView`"
)]
pub trait SendService: Service {
    #[doc(hidden)]
    fn mount_spawned(self, mount: &mut Mount)
    where
        Self: Send + Sync;
}

/// The methods that a shard serves, by number. Looked up with numbers that come from peers, but filled only with our
/// own, which are hashes already.
#[derive(Clone, Default)]
pub(crate) struct Router {
    /// Each at the place that its number says, or behind it. A power of two of places, at most half of them taken; none
    /// at first.
    places: Vec<Option<Rc<Method>>>,
    len: usize,
    /// What it says of them to the other side.
    rows: Rc<MethodRows>,
    /// Where they come from.
    services: Arc<[&'static ServiceTable]>,
}

impl Router {
    #[inline]
    pub(crate) fn find(&self, method: u64) -> Option<Rc<Method>> {
        let mut place = method as usize;
        loop {
            place &= self.places.len().wrapping_sub(1);
            let found = self.places.get(place)?.as_ref()?;
            if found.id == method {
                return Some(Rc::clone(found));
            }
            place += 1;
        }
    }

    /// Adds one that is not there.
    fn insert(&mut self, method: Rc<Method>) {
        if self.places.len() < 2 * (self.len + 1) {
            let places = (2 * self.places.len()).max(4);
            let before = std::mem::replace(&mut self.places, vec![None; places]);
            before.into_iter().flatten().for_each(|method| self.put(method));
        }
        self.put(method);
        self.len += 1;
    }

    fn put(&mut self, method: Rc<Method>) {
        let mask = self.places.len() - 1;
        let mut place = method.id as usize & mask;
        while self.places[place].is_some() {
            place = (place + 1) & mask;
        }
        self.places[place] = Some(method);
    }

    fn methods(&self) -> impl Iterator<Item = &Rc<Method>> {
        self.places.iter().flatten()
    }

    pub(crate) fn rows(&self) -> &Rc<MethodRows> {
        &self.rows
    }

    /// The services that have these methods, in the order in which they were added.
    pub(crate) fn services(&self) -> &Arc<[&'static ServiceTable]> {
        &self.services
    }

    /// The names of all of them.
    pub(crate) fn served(&self) -> Served {
        Served::new(self.methods().map(|method| method.full_name().to_owned()))
    }
}

/// The flags of a request that tell what kind of method it is for.
pub(crate) const KIND_FLAGS: u8 =
    request_flags::ONE_WAY | request_flags::ITEMS_IN | request_flags::ITEMS_OUT;

/// One method that a shard serves.
pub(crate) struct Method {
    id: u64,
    codec: Codec,
    in_signature: u64,
    out_signature: u64,
    /// Those of [`KIND_FLAGS`] that its requests have.
    kind: u8,
    handler: Box<dyn Handler>,
    pub(crate) table: &'static MethodTable,
    /// What its calls pass before.
    filter: Option<Rc<dyn ServerFilter>>,
    /// How long its calls keep the shard when they begin. Only known where there are limits.
    pub(crate) cost: Cell<Cost>,
}

impl Method {
    /// Whether a request can be for this method as it is here, and how. Nothing of its body is looked at.
    /// `reads` says which codecs the caller reads, if that matters.
    #[inline]
    pub(crate) fn admit(
        &self,
        request: &Request,
        reads: impl FnOnce() -> u64,
    ) -> Result<Admitted, Status> {
        let is_ours = request.in_signature == self.in_signature
            && request.out_signature == self.out_signature
            && request.codec == self.codec;
        let admitted = match is_ours {
            true => Admitted::plain(self.out_signature),
            false => self.admit_other(request, reads())?,
        };
        // Whoever calls a one-way method the other way would wait for nothing, and so on.
        if self.kind != request.flags & KIND_FLAGS {
            return Err(Status::BAD_REQUEST);
        }
        Ok(admitted)
    }

    pub(crate) fn full_name(&self) -> &'static str {
        self.table.full_name()
    }

    #[cold]
    fn admit_other(&self, request: &Request, reads: u64) -> Result<Admitted, Status> {
        self.table.admit_other(request, reads)
    }

    #[inline(always)]
    pub(crate) fn start(self: Rc<Self>, mut call: Incoming) {
        match &self.filter {
            None => self.handler.start(&mut call),
            Some(filter) => Rc::clone(filter).start(self, call),
        }
    }

    /// Starts a call that has passed the filters.
    pub(super) fn run(&self, call: &mut Incoming) {
        self.handler.start(call);
    }

    pub(super) fn has_items_in(&self) -> bool {
        self.kind & request_flags::ITEMS_IN != 0
    }
}

/// Collects the methods of services. For the code that `#[service]` makes.
pub struct Mount {
    router: Router,
    pool: Arc<Pool>,
    /// Where the handlers of a [`SendService`] go.
    spawner: Option<Spawner>,
    filter: Option<Rc<dyn ServerFilter>>,
    /// Of which methods answers are kept.
    kept: Option<Arc<KeptReplies>>,
    /// The services so far; the last one is being mounted.
    services: Vec<&'static ServiceTable>,
    taken: Option<ServeError>,
}

impl Mount {
    /// Adds to what a shard serves already.
    pub(crate) fn add_to(shard: &Rc<Inner>) -> Mount {
        let router = (*shard.router()).clone();
        let pool = Arc::clone(&shard.pool);
        Mount::new(router, pool)
    }

    fn new(router: Router, pool: Arc<Pool>) -> Mount {
        let (filter, kept) = (None, None);
        let services = router.services.to_vec();
        Mount { router, pool, spawner: None, filter, kept, services, taken: None }
    }

    /// For one connection of a shard, beside what the shard serves.
    pub(crate) fn apart(shard: &Rc<Inner>) -> Mount {
        let pool = Arc::clone(&shard.pool);
        Mount::new(Router::default(), pool)
    }

    /// What the calls of services that are added from now on pass.
    pub(crate) fn set_filter(&mut self, filter: Rc<dyn ServerFilter>) {
        self.filter = Some(filter);
    }

    /// Of which of these services answers are kept.
    pub(crate) fn set_kept(&mut self, kept: Arc<KeptReplies>) {
        self.kept = Some(kept);
    }

    pub(crate) fn add<S: Service>(&mut self, service: S) -> Result<(), ServeError> {
        self.services.push(service.table());
        service.mount(self);
        self.taken.take().map_or(Ok(()), Err)
    }

    pub(crate) fn add_with<S: Service + Send + Sync>(
        &mut self,
        service: S,
        handlers: Handlers,
    ) -> Result<(), ServeError> {
        match handlers {
            Handlers::Shard => self.add(service),
            Handlers::Offload => {
                self.services.push(service.table());
                service.mount_offloaded(self);
                self.taken.take().map_or(Ok(()), Err)
            }
        }
    }

    pub(crate) fn add_spawned<S: SendService + Send + Sync>(
        &mut self,
        service: S,
        spawner: &Spawner,
    ) -> Result<(), ServeError> {
        self.services.push(service.table());
        self.spawner = Some(Arc::clone(spawner));
        service.mount_spawned(self);
        self.spawner = None;
        self.taken.take().map_or(Ok(()), Err)
    }

    pub(crate) fn finish(mut self) -> Router {
        let methods = self.router.methods().map(|method| method.table);
        self.router.rows = Rc::new(MethodRows::of(methods));
        self.router.services = self.services.into();
        self.router
    }

    /// One of the service that is being mounted.
    fn method(&self, index: usize) -> Option<&'static MethodTable> {
        self.services.last()?.methods().get(index)
    }

    fn insert(&mut self, index: usize, handler: Box<dyn Handler>) {
        let Some(method) = self.method(index) else { return };
        if let Some(other) = self.router.find(method.id()) {
            self.taken.get_or_insert(ServeError::MethodTaken {
                method: method.full_name().to_owned(),
                by: other.table.full_name().to_owned(),
            });
            return;
        }
        let kind =
            method.stream_flags() | if method.is_one_way() { request_flags::ONE_WAY } else { 0 };
        let is_kept = |kept: &Arc<KeptReplies>| kept.settings().covers(method.full_name());
        let handler = match kind == 0 && self.kept.as_ref().is_some_and(is_kept) {
            true => Box::new(Deduplicated::new(method.id(), handler)),
            false => handler,
        };
        let entry = Method {
            id: method.id(),
            codec: method.argument_codec(),
            in_signature: method.signatures().in_signature,
            out_signature: method.signatures().out_signature,
            kind,
            handler,
            table: method,
            filter: self.filter.clone(),
            cost: Cell::default(),
        };
        self.router.insert(Rc::new(entry));
    }

    /// A method whose handler runs on the shard.
    #[doc(hidden)]
    pub fn handler<F, Fut, V, E>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<Fut, Status> + 'static,
        Fut: Future<Output = Result<V, E>> + 'static,
        V: Message,
        E: IntoError,
    {
        self.insert(index, Box::new(OnShard::new(handler)));
    }

    /// A method that takes or gives a stream of items. Its handler runs on the shard in any case, since
    /// items arrive there.
    #[doc(hidden)]
    pub fn streaming<F, Fut, V, E>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming, &Streams) -> Result<Fut, Status> + 'static,
        Fut: Future<Output = Ending<V, E>> + 'static,
        V: Message,
        E: Message,
    {
        let Some(method) = self.method(index) else { return };
        let streaming = Streaming::new(handler, method);
        self.insert(index, Box::new(streaming));
    }

    /// A method whose handler runs on the pool, where its future is built, too.
    #[doc(hidden)]
    pub fn offloaded<F, Fut, V, E>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<Fut, Status> + Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>> + 'static,
        V: Message,
        E: IntoError,
    {
        let pool = Arc::clone(&self.pool);
        self.insert(index, Box::new(Offloaded::new(handler, pool)));
    }

    /// A method whose handler runs on an executor of the user's.
    #[doc(hidden)]
    pub fn spawned<F, Fut, V, E>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<Fut, Status> + Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Message,
        E: IntoError,
    {
        let Some(spawner) = self.spawner.clone() else { return };
        self.insert(index, Box::new(Spawned::new(handler, spawner)));
    }

    /// A method that answers through a responder, called on an executor of the user's.
    #[doc(hidden)]
    pub fn spawned_responder<F>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<(), Status> + Send + Sync + 'static,
    {
        let Some(spawner) = self.spawner.clone() else { return };
        self.insert(index, Box::new(SpawnedResponder::new(handler, spawner)));
    }

    /// A method that answers through a responder, called on the shard.
    #[doc(hidden)]
    pub fn responder<F>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<(), Status> + 'static,
    {
        self.insert(index, Box::new(WithResponder::new(handler)));
    }

    /// A method that answers through a responder, called on the pool.
    #[doc(hidden)]
    pub fn offloaded_responder<F>(&mut self, index: usize, handler: F)
    where
        F: Fn(&mut Incoming) -> Result<(), Status> + Send + Sync + 'static,
    {
        let pool = Arc::clone(&self.pool);
        self.insert(index, Box::new(OffloadedResponder::new(handler, pool)));
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("methods", &self.router.len).finish_non_exhaustive()
    }
}
