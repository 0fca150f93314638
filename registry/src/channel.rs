//! A balanced channel whose instances a registry knows, in one call.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ringcall::cluster::discovery::Wanted;
use ringcall::cluster::{Balanced, BalancedCall, BalancedOpening, BalancedStream, Clients};
use ringcall::cluster::{Settings, Watch, Watching};
use ringcall::{BlockOn, Channel, Outgoing, Payload, ShardConfig, SharedBody, StreamChannel};

use crate::addresses::check;
use crate::{RegistryError, RegistrySource};

/// A balanced channel to the instances of this service, as the registry has them. The addresses are those of nodes: one is enough,
/// more are for when it cannot be reached.
///
/// ```no_run
/// use std::time::Duration;
/// use ringcall::BlockOn;
///
/// # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> u64; }
/// let channel = ringcall_registry::balanced(["10.0.0.1:7400", "10.0.0.2:7400"], "quotes").start()?;
/// channel.block_on(channel.ready().within(Duration::from_secs(10)))?; // or await it
/// let quotes = QuotesClient::new(channel);
/// let last = quotes.last(&"ABC".to_owned()).wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn balanced(
    addresses: impl IntoIterator<Item = impl Into<String>>,
    service: impl Into<String>,
) -> FromRegistry {
    FromRegistry {
        addresses: addresses.into_iter().map(Into::into).collect(),
        wanted: Wanted::service(service),
        settings: Settings::new(),
        clients: None,
        watch: Box::new(|watch| watch),
        registry: ShardConfig::default(),
    }
}

/// A balanced channel that is not started yet, made by [`balanced`].
#[must_use = "nothing happens before it is started"]
pub struct FromRegistry {
    addresses: Vec<String>,
    wanted: Wanted,
    settings: Settings,
    clients: Option<Clients>,
    watch: Box<dyn FnOnce(Watch) -> Watch + Send>,
    registry: ShardConfig,
}

impl FromRegistry {
    /// What is decided how.
    pub fn settings(self, settings: Settings) -> FromRegistry {
        FromRegistry { settings, ..self }
    }

    /// What opens the connections to instances, with its TLS, credentials and engine: by default whichever engine works best,
    /// and nothing else.
    pub fn clients(self, clients: Clients) -> FromRegistry {
        FromRegistry { clients: Some(clients), ..self }
    }

    /// Only instances of this group.
    pub fn in_group(mut self, group: impl Into<String>) -> FromRegistry {
        self.wanted = self.wanted.in_group(group);
        self
    }

    /// Only instances of this version.
    pub fn of_version(mut self, version: impl Into<String>) -> FromRegistry {
        self.wanted = self.wanted.of_version(version);
        self
    }

    /// How the list is kept: with a cache on disk, other rules of what is believed, hooks that are told things.
    pub fn watch(self, with: impl FnOnce(Watch) -> Watch + Send + 'static) -> FromRegistry {
        let before = self.watch;
        FromRegistry { watch: Box::new(|watch| with(before(watch))), ..self }
    }

    /// Settings for the connection to the registry: TLS, limits.
    pub fn registry(self, config: ShardConfig) -> FromRegistry {
        FromRegistry { registry: config, ..self }
    }

    /// Begins to watch, on two threads, until the last clone of the channel is dropped. There may be no list yet when this
    /// returns: calls fail at once until there is one, for which [`Balanced::ready`] waits.
    ///
    /// # Errors
    /// When one of the addresses cannot be understood, or there is none; when a setting makes no sense; when there is no thread.
    pub fn start(self) -> Result<RegistryChannel, RegistryError> {
        let addresses = check(self.addresses)?;
        let clients = match self.clients {
            Some(clients) => clients,
            None => Clients::new().map_err(RegistryError::Clients)?,
        };
        let balanced = Balanced::new(clients, self.settings).map_err(RegistryError::Setting)?;
        let service = self.wanted.service.clone();
        let source = RegistrySource::start_with(addresses, service, self.registry)?;
        let watching = (self.watch)(Watch::new(self.wanted)).start(source, balanced.clone())?;
        Ok(RegistryChannel { balanced, watching: Arc::new(watching) })
    }
}

impl fmt::Debug for FromRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromRegistry")
            .field("addresses", &self.addresses)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// A balanced channel that knows its instances from a registry: a typed client is built on it, and it derefs to
/// [`Balanced`] for all else. Clones are the same channel.
///
/// The registry is watched for as long as there is one of them. A [`Balanced`] that was cloned out of it, or made of it
/// ([`keyed`](Balanced::keyed), [`at`](Balanced::at)), does not count: it goes on with the last list.
#[derive(Clone)]
#[must_use = "dropping it ends the watching: what changes later is not heard"]
pub struct RegistryChannel {
    balanced: Balanced<Clients>,
    watching: Arc<Watching>,
}

impl RegistryChannel {
    /// What watches the registry, for other rules of what is believed ([`Watching::configure`]).
    pub fn watching(&self) -> &Watching {
        &self.watching
    }
}

impl Deref for RegistryChannel {
    type Target = Balanced<Clients>;

    fn deref(&self) -> &Balanced<Clients> {
        &self.balanced
    }
}

impl fmt::Debug for RegistryChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryChannel").field(&self.balanced).finish()
    }
}

impl BlockOn for RegistryChannel {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.balanced.block_on(future)
    }
}

impl Channel for RegistryChannel {
    type Body = SharedBody;
    type Pending<'a, P>
        = BalancedCall<'a, Clients, P>
    where
        P: Payload + Clone + 'a;

    #[inline]
    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> BalancedCall<'a, Clients, P> {
        self.balanced.call(call, payload)
    }
}

impl StreamChannel for RegistryChannel {
    type Call = BalancedStream<Clients>;
    type Opening<'a, P>
        = BalancedOpening<'a, Clients, P>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> BalancedOpening<'a, Clients, P> {
        self.balanced.open(call, payload)
    }
}
