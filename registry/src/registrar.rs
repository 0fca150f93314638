//! Tells the registry of a server, and that it is still there.

use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use ringcall::cluster::Clock;
use ringcall::cluster::discovery::{Instance, Invalid};
use ringcall::{
    Address, CallError, Cause, LocalClient, MachineClock, Register, ServedGroup, Shard,
    ShardConfig, SpanIds, StartError,
};

use crate::addresses::{Addresses, check};
use crate::book::{key_of, line, ms};
use crate::thread::{OwnThread, Stop, StopOnDrop, within};
use crate::{Key, Placement, Refused, Registration, RegistryClient, Withdrawal};

/// Keeps a server in the registry for as long as it takes calls: give it to
/// [`Server::register`](ringcall::Server::register).
///
/// The server is registered once it listens and its hooks have returned, and taken back before it drains. In between it is
/// renewed three times a lease, at one node, and at the next one when that cannot be reached.
///
/// An operator may move it to another group ([`NodeConfig::centre`](crate::NodeConfig::centre)). It hears so when it is renewed: then its
/// server serves calls to that group first, and after that it is registered as one of it. Calls to the group before are served for a
/// lease longer. Until it hears otherwise it stays there, whatever becomes of the registry.
///
/// ```no_run
/// use ringcall::Server;
/// use ringcall_registry::Registrar;
///
/// # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> u64; }
/// # struct Book;
/// # impl Quotes for Book { async fn last(&self, _: String) -> u64 { 42 } }
/// let registrar = Registrar::new(["10.0.0.1:7400", "10.0.0.2:7400"], "quotes")
///     .advertise("10.0.3.7:7000".parse()?)
///     .describe(|instance| instance.with_weight(200));
/// Server::bind("0.0.0.0:7000").service(Book.into_quotes()).register(registrar).run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it is for `Server::register`"]
pub struct Registrar {
    addresses: Vec<String>,
    service: String,
    name: Option<String>,
    advertised: Option<Address>,
    describe: Box<dyn Fn(Instance) -> Instance + Send>,
    lease: Duration,
    patience: Duration,
    linger: Duration,
    config: ShardConfig,
    group: Option<ServedGroup>,
    thread: Option<OwnThread>,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("addresses", &self.addresses)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Registrar {
    /// Registers an instance of this service with the registry at these addresses: one is enough, more are for when it
    /// cannot be reached.
    pub fn new(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        service: impl Into<String>,
    ) -> Registrar {
        Registrar {
            addresses: addresses.into_iter().map(Into::into).collect(),
            service: service.into(),
            name: None,
            advertised: None,
            describe: Box::new(|instance| instance),
            lease: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            linger: Duration::from_millis(500),
            config: ShardConfig::default(),
            group: None,
            thread: None,
        }
    }

    /// Its name, which no other instance of the service may have at the same time. By default one that nobody else has, and
    /// another one each time that it starts.
    pub fn name(self, name: impl Into<String>) -> Registrar {
        Registrar { name: Some(name.into()), ..self }
    }

    /// Where others reach the server: by default where it listens, which is nowhere if that is `0.0.0.0`.
    pub fn advertise(self, address: Address) -> Registrar {
        Registrar { advertised: Some(address), ..self }
    }

    /// What else is said of it: version, group, zone, weight, tags.
    pub fn describe(self, describe: impl Fn(Instance) -> Instance + Send + 'static) -> Registrar {
        Registrar { describe: Box::new(describe), ..self }
    }

    /// For how long it is there without being heard of: 15 s. It is renewed three times as often.
    pub fn lease(self, lease: Duration) -> Registrar {
        Registrar { lease, ..self }
    }

    /// How long a server tries to be registered before it does not start: 10 s.
    pub fn patience(self, patience: Duration) -> Registrar {
        Registrar { patience, ..self }
    }

    /// How long a server goes on as before after it was taken back, for those who have not heard of it yet: half a second.
    pub fn linger(self, linger: Duration) -> Registrar {
        Registrar { linger, ..self }
    }

    /// Settings for the connections to the registry: TLS, limits.
    pub fn config(self, config: ShardConfig) -> Registrar {
        Registrar { config, ..self }
    }

    /// The group of the server that it is about, for [`keep_on`](Registrar::keep_on): without it, only what is said of the instance
    /// changes when that is moved. A [`Server`](ringcall::Server) hands over its own.
    pub fn group(self, group: ServedGroup) -> Registrar {
        Registrar { group: Some(group), ..self }
    }

    /// Does the same on a shard of yours, for a loop of your own, or a simulation: until what is returned is dropped, and then takes the
    /// instance back; if the shard ends before, its lease does.
    ///
    /// # Errors
    /// When it is no instance, or there is no address of a registry, or one that cannot be understood.
    pub fn keep_on(self, shard: &Shard, address: &Address) -> Result<Kept, StartError> {
        let (mut keeping, stop) = (self.keeping(address, None)?, Stop::default());
        let (on, asked) = (shard.clone(), stop.clone());
        shard.spawn(async move { keeping.keep(&on, &asked).await });
        Ok(Kept(StopOnDrop(stop)))
    }

    fn keeping(
        &self,
        address: &Address,
        begun: Option<SyncSender<Begun>>,
    ) -> Result<Keeping, StartError> {
        let instance = self.instance(address)?;
        let addresses = Addresses::new(check(&self.addresses)?);
        Ok(Keeping::new(addresses, instance, self.lease, self.group.clone(), begun))
    }

    fn instance(&self, address: &Address) -> Result<Instance, StartError> {
        let name = self.name.clone();
        let name = name.unwrap_or_else(|| format!("{:016x}", MachineClock.next_span_id()));
        let address = self.advertised.clone().unwrap_or_else(|| address.clone());
        let instance = (self.describe)(Instance::new(self.service.clone(), name, address));
        instance.check().map_err(|invalid| {
            let hint = match invalid {
                Invalid::Address => " (`Registrar::advertise` says another address)",
                _ => "",
            };
            let Instance { service, name, address, .. } = &instance;
            format!("{service:?}/{name:?} cannot be registered at {address}: {invalid}{hint}")
        })?;
        Ok(instance)
    }
}

impl Register for Registrar {
    fn take_group(&mut self, group: &ServedGroup) {
        self.group = Some(group.clone());
    }

    fn register(&mut self, address: &Address) -> Result<(), StartError> {
        let (begun, begins) = sync_channel(8);
        let mut keeping = self.keeping(address, Some(begun))?;
        let keep = async move |shard: Shard, stop: Stop| keeping.keep(&shard, &stop).await;
        let thread = OwnThread::start("registrar", self.config.clone(), keep)?;
        let end = MachineClock.now() + self.patience;
        let mut last = "nobody answers".to_owned();
        loop {
            match begins.recv_timeout(end.since(MachineClock.now())) {
                Ok(Begun::Registered) => {
                    self.thread = Some(thread);
                    return Ok(());
                }
                Ok(Begun::Refused(refused)) => return Err(refused.into()),
                Ok(Begun::Tried(reason)) => last = reason,
                Err(_) => {
                    let patience = self.patience;
                    let text = format!(
                        "the server could not be registered within {patience:?} (`Registrar::patience`): {last}"
                    );
                    return Err(text.into());
                }
            }
        }
    }

    fn unregister(&mut self) {
        // It withdraws before it ends.
        if self.thread.take().is_some() {
            wait(self.linger);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server waits on purpose, on no shard")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// An instance that is kept on somebody's shard, see [`Registrar::keep_on`]. Dropping it takes the instance back.
#[derive(Debug)]
#[must_use = "dropping it takes the instance back"]
pub struct Kept(#[expect(dead_code, reason = "dropping it ends it")] StopOnDrop);

/// What becomes of the first registration.
enum Begun {
    Registered,
    /// No node will take the instance.
    Refused(Refused),
    /// A node did not, for this reason; others are asked.
    Tried(String),
}

/// How long a registry may take to answer, if leases are not short.
const ANSWER: Duration = Duration::from_secs(1);

/// Keeps one instance registered.
struct Keeping {
    addresses: Addresses,
    key: Key,
    lease: Duration,
    registration: Registration,
    /// As it is by itself, wherever it was moved.
    instance: Instance,
    /// That of its server.
    group: Option<ServedGroup>,
    /// The latest that was heard of where it is to be.
    placed: Option<Placement>,
    /// Who waits for it to be registered first.
    begun: Option<SyncSender<Begun>>,
}

/// Why one node is not asked any more.
enum Over {
    /// It cannot be reached, or does not want the instance now.
    Lost(String),
    /// It does not want the instance, and no other one will.
    Refused(Refused),
}

impl Keeping {
    fn new(
        addresses: Addresses,
        instance: Instance,
        lease: Duration,
        group: Option<ServedGroup>,
        begun: Option<SyncSender<Begun>>,
    ) -> Keeping {
        let registration = Registration {
            instance: line(&instance),
            lease_ms: ms(lease),
            incarnation: MachineClock.next_span_id(),
            registered_ms: None,
        };
        let key = key_of(&instance);
        let placed = None;
        Keeping { addresses, key, lease, registration, instance, group, placed, begun }
    }

    /// How long a node may take: two of three may fail before the lease ends.
    fn answer(&self) -> Duration {
        ANSWER.min(self.lease / 3)
    }

    /// Until it is asked to stop; then the instance is taken back.
    async fn keep(&mut self, shard: &Shard, stop: &Stop) {
        loop {
            let address = self.addresses.next();
            match stop.unless(self.keep_at(shard, &address)).await {
                None => return self.withdraw(shard, &address).await,
                Some(Err(Over::Refused(refused))) => {
                    log::error!("the registry at {address} does not take the instance: {refused}");
                    self.tell(Begun::Refused(refused));
                }
                Some(Err(Over::Lost(reason))) => {
                    log::warn!("the registry at {address} cannot be told: {reason}");
                    self.tell(Begun::Tried(format!("{address}: {reason}")));
                }
                Some(Ok(never)) => match never {},
            }
            if let Some(again) = self.addresses.failed()
                && stop.unless(shard.sleep(again)).await.is_none()
            {
                return self.withdraw(shard, &address).await;
            }
        }
    }

    fn tell(&mut self, begun: Begun) {
        // Whoever waits takes what there is; one that has not taken eight of them has given up.
        if let Some(sender) = &self.begun
            && sender.try_send(begun).is_err()
        {
            self.begun = None;
        }
    }

    async fn connect(
        &self,
        shard: &Shard,
        address: &str,
    ) -> Result<RegistryClient<LocalClient>, Over> {
        let connected = within(shard, self.answer(), shard.connect(address)).await;
        let client = connected.ok_or_else(|| Over::Lost("it does not answer".to_owned()))?;
        Ok(RegistryClient::new(client.map_err(|failure| Over::Lost(failure.to_string()))?))
    }

    /// Registers at a node, again and again for as long as it can be reached.
    async fn keep_at(
        &mut self,
        shard: &Shard,
        address: &str,
    ) -> Result<std::convert::Infallible, Over> {
        let registry = self.connect(shard, address).await?;
        let mut is_told = false;
        if self.registration.registered_ms.is_none() {
            self.ask_placement(&registry).await?;
        }
        loop {
            let registered = registry.register(&self.registration).deadline(self.answer()).await;
            let registered = registered.map_err(Over::from)?.to_owned();
            self.registration.registered_ms = Some(registered.registered_ms);
            if !std::mem::replace(&mut is_told, true) {
                log::info!("{}/{} is registered at {address}", self.key.service, self.key.name);
            }
            self.addresses.heard();
            self.tell(Begun::Registered);
            self.begun = None;
            if self.place(registered.placed) {
                // The server knows, now others may.
                continue;
            }
            shard.sleep(Duration::from_millis(registered.renew_ms.into())).await;
        }
    }

    /// Asks where the instance is to be before anybody is told of it.
    async fn ask_placement(&mut self, registry: &RegistryClient<LocalClient>) -> Result<(), Over> {
        let asked = registry.placement(&self.registration.instance).deadline(self.answer()).await;
        match asked.map(|placed| placed.to_owned()) {
            Ok(placed) => {
                self.place(placed);
                Ok(())
            }
            // An older node does not know the question, and another one may not want to be asked.
            Err(CallError::Failed(failure)) if matches!(failure.cause, Cause::Status(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that the instance is where it is to be. Says whether others have to be told.
    fn place(&mut self, placed: Option<Placement>) -> bool {
        // A node that says nothing does not know. One that has not heard the latest is not believed.
        let heard = self.placed.as_ref().map(|placed| placed.version);
        let Some(placed) = placed.filter(|placed| Some(placed.version) > heard) else {
            return false;
        };
        let before = self.placed.replace(placed.clone()).and_then(|before| before.group);
        let Placement { version, group } = placed;
        if group == before {
            return false;
        }
        let mut instance = self.instance.clone();
        if let Some(group) = &group {
            instance.group.clone_from(group);
        }
        if let Err(invalid) = instance.check() {
            log::error!("{}/{} stays where it is: {invalid}", instance.service, instance.name);
            return false;
        }
        let Instance { service, name, group: now, .. } = &instance;
        log::info!("{service}/{name} is in the group {now:?} now, as version {version} says");
        if let Some(served) = &self.group {
            // Nobody has heard of it yet if it is not registered.
            let is_known = self.registration.registered_ms.is_some();
            let grace = if is_known { self.lease } else { Duration::ZERO };
            match &group {
                Some(group) => served.move_to(group, grace),
                None => served.move_back(grace),
            }
        }
        self.registration.instance = line(&instance);
        true
    }

    /// Takes the instance back, if a node can be told at once. Otherwise its lease ends.
    async fn withdraw(&mut self, shard: &Shard, address: &str) {
        let Registration { lease_ms, incarnation, registered_ms, .. } = self.registration;
        if registered_ms.is_none() {
            return;
        }
        let withdrawal = Withdrawal { key: self.key.clone(), incarnation, lease_ms };
        let other = self.addresses.next();
        for address in [address, &other] {
            let Ok(registry) = self.connect(shard, address).await else { continue };
            if registry.withdraw(&withdrawal).deadline(self.answer()).await.is_ok() {
                return;
            }
        }
        log::warn!("no registry could be told that {}/{} leaves", self.key.service, self.key.name);
    }
}

impl From<CallError<Refused>> for Over {
    fn from(error: CallError<Refused>) -> Over {
        match error {
            CallError::App(refused @ (Refused::BadInstance { .. } | Refused::BadLease { .. })) => {
                Over::Refused(refused)
            }
            error => Over::Lost(error.to_string()),
        }
    }
}
