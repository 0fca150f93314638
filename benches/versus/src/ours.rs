//! ringcall itself, in all the ways to drive it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use ringcall::IntoOwned;
use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::fleet::{HostReport, Readiness};
use ringcall::cluster::{Balanced, Clients, Connector, LocalClients, Settings};
use ringcall::{
    BlockingClient, Body, Bytes, CallOptions, Channel, Config, Encoded, LocalClient, ServeError,
    Server, Shard, ShardConfig, Stream, View, WaitPolicy, each,
};
use ringcall_core::SharedPool;

use crate::Result;
use crate::cases::{Case, Message};
use crate::certificates::Certificates;
use crate::hosted::Host;
use crate::meter::{self, Caller, Measured, Watch, mismatch, work};
use crate::payload::{
    ArchivedLeg, ArchivedOrder, Leg, LegRef, Order, OrderRef, Payload, compare_bytes,
};
use crate::peers::caller_runtime;
use crate::subjects::{announce, skip};

/// Which ringcall.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) engine: Engine,
    pub(crate) client: ClientKind,
    pub(crate) bodies: Bodies,
    /// TLS 1.3 between the two.
    pub(crate) tls: bool,
}

/// Chosen a process, by `RINGCALL_TRANSPORT`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Epoll,
    Uring,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// Tasks of a shard.
    Shard,
    /// `BlockingClient`: one call after the other, or futures in its `run`.
    Blocking,
    /// The `Client` that works from any thread, awaited on a tokio runtime.
    CrossThread,
    /// A shard that another runtime drives, on both sides.
    Hosted(Host),
}

/// What methods take and return.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// A view of a message, and a reply that owns no more than it has to.
    Typed,
    /// Messages that are owned, both.
    Owned,
    /// Bytes as they are, and nested messages that go back as they came.
    Raw,
}

impl Engine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Engine::Epoll => "epoll",
            Engine::Uring => "uring",
        }
    }

    fn check(self, is: &str) -> Result<()> {
        if self.name() == is {
            return Ok(());
        }
        skip(format!("asked for the {} engine and got {is}", self.name()))
    }
}

// ---- the service ----

#[ringcall::message]
#[derive(Clone)]
struct Blob {
    data: Bytes,
}

#[ringcall::service(name = "versus.Echo")]
trait Echo {
    async fn blob(&self, blob: View<Blob>) -> Blob;
    async fn raw(&self, body: Body) -> Bytes;
    async fn order(&self, order: View<Order>) -> Encoded<Order>;
    async fn owned_blob(&self, blob: Blob) -> Blob;
    async fn owned_order(&self, order: Order) -> Order;
    async fn relayed(&self, order: View<Order>) -> View<Order>;
    /// The same blob again and again.
    async fn items(&self, blob: View<Blob>) -> impl Stream<Item = Blob>;
}

struct Mirror;

struct Again(Bytes);

impl Stream for Again {
    type Item = Blob;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Blob>> {
        Poll::Ready(Some(Blob { data: self.0.clone() }))
    }
}

impl Echo for Mirror {
    async fn blob(&self, blob: View<Blob>) -> Blob {
        Blob { data: blob.slice_ref(&blob.data) }
    }

    async fn raw(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn order(&self, order: View<Order>) -> Encoded<Order> {
        Encoded::of(&OrderRef {
            id: order.id.to_native(),
            account: &order.account,
            symbol: &order.symbol,
            is_buy: order.is_buy,
            price: order.price.to_native(),
            legs: each(order.legs.iter().map(|leg| LegRef {
                symbol: &leg.symbol,
                venue: &leg.venue,
                ratio: leg.ratio.to_native(),
                price: leg.price.to_native(),
                size: leg.size.to_native(),
            })),
            notes: &order.notes,
        })
    }

    async fn owned_blob(&self, blob: Blob) -> Blob {
        blob
    }

    async fn owned_order(&self, order: Order) -> Order {
        order
    }

    async fn relayed(&self, order: View<Order>) -> View<Order> {
        order
    }

    async fn items(&self, blob: View<Blob>) -> impl Stream<Item = Blob> {
        Again(blob.slice_ref(&blob.data))
    }
}

impl Ours {
    pub(crate) fn serve(self, case: &Case, wait: WaitPolicy) -> Result<()> {
        if let ClientKind::Hosted(host) = self.client {
            return self.serve_hosted(host, case);
        }
        if case.servers > 1 {
            // One thread with all of the listeners, as the peers have one runtime.
            let mut config = ShardConfig::default();
            config.wait = wait;
            self.listening(case, config)?.run(|| true);
        }
        let mut server = Server::bind("127.0.0.1:0").service(Mirror.into_echo()).wait(wait);
        if self.tls {
            server = server.tls(Certificates::given()?.server()?);
        }
        let server = self.started(server.start())?;
        let transport = server.transport().name;
        self.engine.check(transport)?;
        announce(&[server.address()], transport)?;
        loop {
            std::thread::park();
        }
    }

    /// A shard that serves, at as many addresses as the case has servers.
    pub(crate) fn listening(self, case: &Case, config: ShardConfig) -> Result<Shard> {
        let shard = self.started(Shard::new(config))?;
        let transport = shard.transport().name;
        self.engine.check(transport)?;
        shard.serve(Mirror.into_echo())?;
        let listen = |_| shard.listen("127.0.0.1:0");
        let addresses: Vec<_> = (0..case.servers).map(listen).collect::<Result<_, _>>()?;
        announce(&addresses, transport)?;
        Ok(shard)
    }

    fn started<T>(self, started: Result<T, ServeError>) -> Result<T> {
        match started {
            Err(error) if self.engine == Engine::Uring => skip(error.to_string()),
            started => Ok(started?),
        }
    }

    pub(crate) fn call(
        self,
        case: &Case,
        wait: WaitPolicy,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        let mut config = ShardConfig::default();
        config.wait = wait;
        if self.tls {
            config.client_tls = Some(Certificates::given()?.client()?);
        }
        if case.is_stream {
            // As large as tonic's.
            config.client = Config::new().stream_window(8 << 20).replies_window(64 << 20);
        }
        match self.client {
            ClientKind::Shard => self.call_on_shard(case, config, servers, watch),
            ClientKind::Blocking => self.call_blocking(case, config, servers[0], watch),
            ClientKind::CrossThread => self.call_across_threads(case, servers, watch),
            ClientKind::Hosted(host) => self.call_hosted(host, case, config, servers, watch),
        }
    }

    fn call_on_shard(
        self,
        case: &Case,
        config: ShardConfig,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        let shard = self.shard(config)?;
        if case.servers > 1 {
            let balanced = shard.block_on(balance(LocalClients::new(&shard), servers))?;
            meter::begin(case, watch)?;
            return self.run_on_shard(case, &shard, &[balanced]);
        }
        let clients = connect(&shard, case, servers[0])?;
        meter::begin(case, watch)?;
        if case.is_stream {
            let (message, client) = (case.message, clients[0].clone());
            let end = Rc::new(RefCell::new(None));
            let told = Rc::clone(&end);
            // A task of the shard, as callers are: it takes turns with what arrives.
            shard.spawn(async move {
                let received = receive(message, &client).await;
                *told.borrow_mut() = Some(received);
            });
            shard.run(|| end.borrow().is_none());
            end.take().unwrap_or(Ok(()))?;
            return meter::finish();
        }
        self.run_on_shard(case, &shard, &clients)
    }

    /// Callers that are tasks of the shard.
    fn run_on_shard<C>(self, case: &Case, shard: &Shard, channels: &[C]) -> Result<Measured>
    where
        C: Channel<Body: IntoOwned> + Clone + 'static,
    {
        let running = Rc::new(Cell::new(case.calls_at_a_time()));
        for (index, caller) in self.callers(case, channels) {
            let running = Rc::clone(&running);
            shard.spawn(async move {
                work(caller, index).await;
                running.set(running.get() - 1);
            });
        }
        shard.run(|| running.get() > 0);
        meter::finish()
    }

    fn call_blocking(
        self,
        case: &Case,
        config: ShardConfig,
        server: SocketAddr,
        watch: Watch,
    ) -> Result<Measured> {
        if case.connections > 1 {
            return skip("a blocking client has one connection");
        }
        let client = BlockingClient::connect_with(server, config)?;
        self.engine.check(client.transport().name)?;
        meter::begin(case, watch)?;
        if case.in_flight == 1 {
            one_by_one(&client, case);
        } else {
            let callers = (0..case.in_flight)
                .map(|index| work(self.caller(case, index, client.local().clone()), index));
            let mut callers: FuturesUnordered<_> = callers.collect();
            client.run(async { while callers.next().await.is_some() {} });
        }
        meter::finish()
    }

    fn call_across_threads(
        self,
        case: &Case,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        caller_runtime(case)?.block_on(async {
            let tasks: Vec<_> = if case.servers > 1 {
                let balanced = [balance(Clients::new()?, servers).await?];
                meter::begin(case, watch)?;
                let callers = self.callers(case, &balanced);
                callers.map(|(index, caller)| tokio::spawn(work(caller, index))).collect()
            } else {
                let mut clients = Vec::new();
                for _ in 0..case.connections {
                    clients.push(EchoClient::connect(servers[0]).await?.channel().clone());
                }
                meter::begin(case, watch)?;
                let callers = self.callers(case, &clients);
                callers.map(|(index, caller)| tokio::spawn(work(caller, index))).collect()
            };
            for task in tasks {
                task.await?;
            }
            meter::finish()
        })
    }

    /// As many as there are calls at a time, with the channels in turns.
    pub(crate) fn callers<C: Channel + Clone>(
        self,
        case: &Case,
        channels: &[C],
    ) -> impl Iterator<Item = (usize, EchoCaller<C>)> {
        (0..case.calls_at_a_time()).map(move |index| {
            (index, self.caller(case, index, channels[index % channels.len()].clone()))
        })
    }

    pub(crate) fn shard(self, config: ShardConfig) -> Result<Shard> {
        let shard = Shard::new(config)?;
        self.engine.check(shard.transport().name)?;
        Ok(shard)
    }

    fn caller<C: Channel>(self, case: &Case, index: usize, channel: C) -> EchoCaller<C> {
        // Longer than the default, for machines that are busy with other things.
        let options = CallOptions::new().deadline(Duration::from_secs(10));
        EchoCaller {
            client: EchoClient::new(channel).with_options(options),
            bodies: self.bodies,
            payload: Payload::new(
                case.message,
                index,
                |data| match self.bodies {
                    Bodies::Raw => Bytesish::Raw(data.into()),
                    Bodies::Typed | Bodies::Owned => Bytesish::Blob(Blob { data: data.into() }),
                },
                |order| order,
            ),
        }
    }
}

/// A channel over all servers with a connection to each, which chooses one for each call as it does by default.
pub(crate) async fn balance<N: Connector>(
    connector: N,
    servers: &[SocketAddr],
) -> Result<Balanced<N>> {
    let balanced = Balanced::seeded(connector, Settings::new(), 1)?;
    let instances = servers.iter().map(|&server| Instance::new("echo", server.to_string(), server));
    balanced.apply(&Listing::of(1, instances));
    let is_ready = |host: &HostReport| host.readiness == Readiness::Ready;
    while !balanced.explain(0).hosts.iter().all(is_ready) {
        balanced.connector().sleep(Duration::from_millis(1)).await;
    }
    Ok(balanced)
}

/// Takes the items of one stream until the time is over.
async fn receive(message: Message, channel: &LocalClient) -> Result<()> {
    let Payload::Blobs([blob, _]) =
        Payload::new(message, 0, |data| Blob { data: data.into() }, drop)
    else {
        return skip("a stream of blobs");
    };
    let mut stream = EchoClient::new(channel).items(&blob).await?;
    let mut items = meter::Items::new();
    while !meter::is_over() {
        let item = stream.next().await.ok_or_else(mismatch)??;
        compare_bytes(&item.data, &blob.data)?;
        items.arrived();
    }
    Ok(())
}

fn connect(shard: &Shard, case: &Case, server: SocketAddr) -> Result<Vec<LocalClient>> {
    let connect = |_| shard.block_on(shard.connect(server));
    Ok((0..case.connections).map(connect).collect::<Result<_, _>>()?)
}

enum Bytesish {
    Raw(Bytes),
    Blob(Blob),
}

pub(crate) struct EchoCaller<C> {
    client: EchoClient<C>,
    payload: Payload<Bytesish, Order>,
    bodies: Bodies,
}

impl<C: Channel<Body: IntoOwned>> Caller for EchoCaller<C> {
    async fn call(&mut self, turn: usize) -> Result<()> {
        match &self.payload {
            Payload::Blobs(blobs) => match &blobs[turn] {
                Bytesish::Raw(body) => compare_bytes(self.client.raw(body).await?.as_ref(), body),
                Bytesish::Blob(blob) => {
                    let reply = match self.bodies {
                        Bodies::Owned => self.client.owned_blob(blob).await?,
                        Bodies::Typed | Bodies::Raw => self.client.blob(blob).await?,
                    };
                    compare_bytes(&reply.data, &blob.data)
                }
            },
            Payload::Orders(orders) => {
                let order = &orders[turn];
                let reply = match self.bodies {
                    Bodies::Typed => self.client.order(order).await?,
                    Bodies::Owned => self.client.owned_order(order).await?,
                    Bodies::Raw => self.client.relayed(order).await?,
                };
                compare_order(&reply, order)
            }
        }
    }
}

/// Read where it landed, field by field.
fn compare_order(reply: &ArchivedOrder, sent: &Order) -> Result<()> {
    let is_same_leg = |(reply, sent): (&ArchivedLeg, &Leg)| {
        reply.symbol.as_str() == sent.symbol
            && reply.venue.as_str() == sent.venue
            && reply.ratio == sent.ratio
            && reply.price == sent.price
            && reply.size == sent.size
    };
    let is_same = reply.id == sent.id
        && reply.account.as_str() == sent.account
        && reply.symbol.as_str() == sent.symbol
        && reply.is_buy == sent.is_buy
        && reply.price == sent.price
        && reply.legs.len() == sent.legs.len()
        && reply.legs.iter().zip(&sent.legs).all(is_same_leg)
        && reply.notes.len() == sent.notes.len()
        && reply.notes.iter().zip(&sent.notes).all(|(reply, sent)| reply.as_str() == sent);
    if is_same { Ok(()) } else { Err(mismatch()) }
}

/// The way without futures: `.wait()`.
fn one_by_one(client: &BlockingClient, case: &Case) {
    #![expect(clippy::disallowed_methods, reason = "measures")]
    let payload = Payload::new(case.message, 0, |data| Blob { data: data.into() }, |order| order);
    let echo = EchoClient::new(client);
    let mut turn = 0;
    while !meter::is_over() {
        let start = std::time::Instant::now();
        let compared = match &payload {
            Payload::Blobs(blobs) => match echo.blob(&blobs[turn]).wait() {
                Ok(reply) => compare_bytes(&reply.data, &blobs[turn].data),
                Err(error) => Err(error.into()),
            },
            Payload::Orders(orders) => match echo.order(&orders[turn]).wait() {
                Ok(reply) => compare_order(&reply, &orders[turn]),
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = compared {
            return meter::fail(error);
        }
        meter::done(Some(start));
        turn = 1 - turn;
    }
}

// ---- what goes over the wire, for the floor ----

/// From this on a body is sent in parts: the default of `Config::cut_bytes`.
const CUT_BYTES: usize = 256 << 10;
const HEAD: usize = 16;
const HEADER: usize = 32;

/// How many bytes a call takes on the wire, which are as many as its reply takes.
pub(crate) fn wire_bytes(message: Message) -> Result<usize> {
    let payload = Payload::new(message, 0, |data| Blob { data: data.into() }, |order| order);
    let pool = SharedPool::new(4096);
    let mut body = pool.writer(2 << 20);
    match payload {
        Payload::Blobs([blob, _]) => ringcall::Message::encode(&blob, &mut body)?,
        Payload::Orders([order, _]) => ringcall::Message::encode(&order, &mut body)?,
    }
    let len = body.len();
    let padded = len.next_multiple_of(HEAD);
    if len <= CUT_BYTES {
        return Ok(HEAD + HEADER + padded);
    }
    // The first part says how long the whole is; each of the others has a head and 16 bytes of header.
    let parts = padded.div_ceil(CUT_BYTES) - 1;
    Ok(HEAD + HEADER + 16 + parts * (HEAD + 16) + padded)
}
