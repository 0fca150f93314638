//! Connections for balanced channels: of any thread, and of a shard.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use ringcall_cluster::discovery::Instance;
use ringcall_cluster::fleet::Readiness;
use ringcall_cluster::{At, Balanced, BalancedStream, Connector};
use ringcall_core::{
    Address, Clock, CloseReason, Instant, Mismatch, OwnedStreamChannel, TransportError,
};

use super::ties::Begun;
use crate::block_on::block_on;
use crate::client::background;
use crate::filter::{ClientCall, Filter, Filtered};
use crate::serve::RemoteSleep;
use crate::shard::{Inner, MachineClock, Remote, SleepUntil, random_seed};
use crate::{
    BlockOn, Client, Connect, ConnectionState, LocalClient, LocalConnect, Shard, Target, ToAddress,
    TransportChoice,
};

/// Connects by [`Client`]s: for calls from any thread and any executor.
#[derive(Clone)]
pub struct Clients {
    choice: TransportChoice,
    remote: Arc<Remote>,
    /// What else is set for each connection.
    setup: Arc<dyn Fn(Connect<Client>) -> Connect<Client> + Send + Sync>,
}

impl Clients {
    /// Over whichever engine works best.
    ///
    /// # Errors
    /// When the shard of all clients cannot be started.
    pub fn new() -> Result<Clients, TransportError> {
        Clients::over(TransportChoice::Auto)
    }

    /// Over a certain engine.
    ///
    /// # Errors
    /// When the shard of all clients cannot be started.
    pub fn over(choice: TransportChoice) -> Result<Clients, TransportError> {
        Ok(Clients { choice, remote: background(choice)?, setup: Arc::new(|connect| connect) })
    }

    /// The same, with settings for each connection: TLS, credentials, services that it offers. Not which
    /// engine it is over, see [`over`](Clients::over).
    #[must_use]
    pub fn with(
        self,
        setup: impl Fn(Connect<Client>) -> Connect<Client> + Send + Sync + 'static,
    ) -> Clients {
        Clients { setup: Arc::new(setup), ..self }
    }

    /// The same, with a filter that each attempt passes on its way to the instance that was chosen for it. One that
    /// it ends was not sent, and may be made at another instance. It costs an allocation an attempt.
    #[must_use]
    pub fn filter<F: Filter<ClientCall>>(self, filter: F) -> Filtering<Clients, F> {
        Filtering { connector: self, filter }
    }
}

impl Clock for Clients {
    fn now(&self) -> Instant {
        MachineClock.now()
    }
}

impl Connector for Clients {
    type Channel = Client;
    type Sleep = Sleep;
    type Begun = Begun;
    type Opening = Opening;
    type Guard<S> = Mutex<S>;

    /// Waits for a moment until the shard has taken note, so not on the thread of that shard.
    fn connect(&self, instance: &Instance) -> Option<Client> {
        let mut connect = (self.setup)(Client::connect(Whereabouts(instance)));
        if let Some(expected) = &instance.identity {
            connect = connect.expecting(expected.clone());
        }
        let client = block_on(connect.transport(self.choice).lazy());
        if let Err(error) = &client {
            log::warn!("the instance {:?} is left out: {error}", instance.name);
        }
        let client = client.ok()?;
        // Asking for it begins to open the connection.
        drop(client.ready());
        Some(client)
    }

    fn readiness(&self, client: &Client) -> Readiness {
        readiness(client.state())
    }

    fn opening(&self, client: &Client) -> Opening {
        let ready = client.ready();
        Opening(Box::pin(async { ready.await.is_ok() }))
    }

    fn failure(&self, client: &Client) -> Option<CloseReason> {
        client.last_failure()
    }

    fn mismatch(&self, client: &Client) -> Option<Mismatch> {
        client.mismatch()
    }

    fn seed(&self) -> u64 {
        random_seed()
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Sleep(RemoteSleep::new(&self.remote, time))
    }

    fn begun(&self, tie: [u8; 16]) -> Begun {
        Begun::of(tie)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl<N: Connector<Channel: BlockOn>> BlockOn for Balanced<N> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl<N: Connector<Channel: BlockOn>> BlockOn for At<N> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl<N: Connector<Channel: BlockOn + OwnedStreamChannel>> BlockOn for BalancedStream<N> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

/// Where an instance is, and what its certificate is for: written as people write both, the name in place of the address.
struct Whereabouts<'a>(&'a Instance);

impl ToAddress for Whereabouts<'_> {
    fn to_text(&self) -> String {
        let port = match &self.0.address {
            Address::Tcp(address) => address.port(),
            _ => 0,
        };
        match &self.0.tls_name {
            None => self.0.address.to_string(),
            Some(name) if name.contains(':') => format!("[{name}]:{port}"),
            Some(name) => format!("{name}:{port}"),
        }
    }

    /// The name is not looked up: the source has done so.
    fn target(&self) -> Result<Target, String> {
        Ok(self.0.address.clone().into())
    }
}

fn readiness(state: ConnectionState) -> Readiness {
    match state {
        ConnectionState::Ready => Readiness::Ready,
        ConnectionState::Broken(CloseReason::WrongInstance) => Readiness::Stranger,
        ConnectionState::Broken(_) => Readiness::Broken,
        _ => Readiness::Connecting,
    }
}

/// Ready after a while, on any thread.
pub struct Sleep(RemoteSleep);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").finish_non_exhaustive()
    }
}

/// Ready when a connection is, on any thread.
pub struct Opening(Pin<Box<dyn Future<Output = bool> + Send>>);

impl Future for Opening {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

/// Connects by [`LocalClient`]s: for calls from code that runs on a shard. It and everything that uses it stay on
/// that thread.
#[derive(Clone)]
pub struct LocalClients {
    shard: Rc<Inner>,
    /// What else is set for each connection.
    setup: Rc<dyn Fn(LocalConnect) -> LocalConnect>,
}

impl LocalClients {
    /// On this shard.
    #[must_use]
    pub fn new(shard: &Shard) -> LocalClients {
        LocalClients { shard: Rc::clone(shard.inner()), setup: Rc::new(|connect| connect) }
    }

    /// The same, with settings for each connection: TLS, credentials, services that it offers.
    #[must_use]
    pub fn with(self, setup: impl Fn(LocalConnect) -> LocalConnect + 'static) -> LocalClients {
        LocalClients { setup: Rc::new(setup), ..self }
    }

    /// The same, with a filter for each attempt, see [`Clients::filter`].
    #[must_use]
    pub fn filter<F: Filter<ClientCall>>(self, filter: F) -> Filtering<LocalClients, F> {
        Filtering { connector: self, filter }
    }
}

impl Clock for LocalClients {
    #[inline]
    fn now(&self) -> Instant {
        self.shard.now()
    }
}

impl Connector for LocalClients {
    type Channel = LocalClient;
    type Sleep = LocalSleep;
    type Begun = Begun;
    type Opening = LocalOpening;
    type Guard<S> = RefCell<S>;

    fn connect(&self, instance: &Instance) -> Option<LocalClient> {
        let mut connect = (self.setup)(LocalConnect::new(&self.shard, Whereabouts(instance)));
        if let Some(expected) = &instance.identity {
            connect = connect.expecting(expected.clone());
        }
        let client = connect.start();
        if let Err(error) = &client {
            log::warn!("the instance {:?} is left out: {error}", instance.name);
        }
        let client = client.ok()?;
        self.shard.wake_up(client.connection());
        Some(client)
    }

    #[inline]
    fn readiness(&self, client: &LocalClient) -> Readiness {
        readiness(client.state())
    }

    fn opening(&self, client: &LocalClient) -> LocalOpening {
        let ready = client.ready();
        LocalOpening(Box::pin(async { ready.await.is_ok() }))
    }

    fn failure(&self, client: &LocalClient) -> Option<CloseReason> {
        client.last_failure()
    }

    fn mismatch(&self, client: &LocalClient) -> Option<Mismatch> {
        client.mismatch()
    }

    fn seed(&self) -> u64 {
        random_seed()
    }

    fn sleep(&self, time: Duration) -> LocalSleep {
        LocalSleep(SleepUntil::new(&self.shard, self.shard.now() + time))
    }

    fn begun(&self, tie: [u8; 16]) -> Begun {
        Begun::of(tie)
    }
}

impl fmt::Debug for LocalClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalClients").finish_non_exhaustive()
    }
}

/// Ready after a while, on a shard.
pub struct LocalSleep(SleepUntil);

impl Future for LocalSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for LocalSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSleep").finish_non_exhaustive()
    }
}

/// Ready when a connection is, on a shard.
pub struct LocalOpening(Pin<Box<dyn Future<Output = bool>>>);

impl Future for LocalOpening {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for LocalOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalOpening").finish_non_exhaustive()
    }
}

// ---- with filters ----

/// A connector whose attempts pass a filter, made by [`Clients::filter`] or [`LocalClients::filter`].
#[derive(Clone, Debug)]
pub struct Filtering<N, F> {
    connector: N,
    filter: F,
}

impl<N: Clock, F> Clock for Filtering<N, F> {
    #[inline]
    fn now(&self) -> Instant {
        self.connector.now()
    }
}

impl<N: Connector, F: Filter<ClientCall>> Connector for Filtering<N, F> {
    type Channel = Filtered<N::Channel, F>;
    type Sleep = N::Sleep;
    type Begun = N::Begun;
    type Opening = N::Opening;
    type Guard<S> = N::Guard<S>;

    fn connect(&self, instance: &Instance) -> Option<Self::Channel> {
        let channel = self.connector.connect(instance)?;
        Some(Filtered::new(channel, self.filter.clone()))
    }

    fn readiness(&self, filtered: &Self::Channel) -> Readiness {
        self.connector.readiness(filtered.channel())
    }

    fn opening(&self, filtered: &Self::Channel) -> N::Opening {
        self.connector.opening(filtered.channel())
    }

    fn failure(&self, filtered: &Self::Channel) -> Option<CloseReason> {
        self.connector.failure(filtered.channel())
    }

    fn mismatch(&self, filtered: &Self::Channel) -> Option<Mismatch> {
        self.connector.mismatch(filtered.channel())
    }

    fn seed(&self) -> u64 {
        self.connector.seed()
    }

    fn sleep(&self, time: Duration) -> N::Sleep {
        self.connector.sleep(time)
    }

    fn begun(&self, tie: [u8; 16]) -> N::Begun {
        self.connector.begun(tie)
    }
}
