//! Names of the DNS as a source: of hosts (A, AAAA), or of a service (SRV, and the hosts that it names).
//!
//! [`DnsSource`] says when which name is asked for, and what becomes of the answers. Asking is somebody else's, a
//! [`Resolve`]: the feature `dns` has one, `HickoryResolver`.

mod addresses;
#[cfg(feature = "dns")]
mod hickory;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ringcall_core::{Entropy, Instant, SplitMix64};

use super::{Instance, Revision, Snapshot, Source, Update};
use crate::settings::{BadSetting, time};
use addresses::Addresses;
#[cfg(feature = "dns")]
pub use hickory::HickoryResolver;

/// Records of a service that are looked at; later ones are not.
const SERVICES_MAX: usize = 1000;
/// Addresses of a host that are looked at.
const ADDRESSES_MAX: usize = 1000;

/// A name, and which of its records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsQuery {
    /// The name.
    pub name: String,
    /// Which records.
    pub kind: DnsKind,
}

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsKind {
    /// IPv4 addresses of a host.
    A,
    /// IPv6 addresses of a host.
    Aaaa,
    /// Hosts and ports of a service.
    Srv,
}

impl fmt::Display for DnsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DnsKind::A => "A",
            DnsKind::Aaaa => "AAAA",
            DnsKind::Srv => "SRV",
        })
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsRecord {
    /// An address of a host.
    Address(IpAddr),
    /// A host of a service (RFC 2782).
    Service {
        /// Those with the lowest number are called while one of them can be.
        priority: u16,
        /// How much it takes, relative to others of its priority.
        weight: u16,
        /// Its port.
        port: u16,
        /// The host's name.
        host: String,
    },
}

/// What a name server says of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// Records of the kind that was asked for.
    pub records: Vec<DnsRecord>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsFailure {
    /// There is no such name, or it has no such records.
    NoRecords,
    /// Nobody could say, for this reason.
    Failed(String),
}

impl fmt::Display for DnsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnsFailure::NoRecords => f.write_str("there are no records"),
            DnsFailure::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Something that asks name servers.
pub trait Resolve: Send {
    /// Begins to ask. Never waits. There may be several queries at a time, all different.
    fn ask(&mut self, query: DnsQuery);

    /// An answer that has come. Each query gets one, sooner or later, in any order.
    fn poll_answer(&mut self) -> Option<(DnsQuery, Result<DnsAnswer, DnsFailure>)>;
}

/// Which addresses of a host count that has some of both families: a host is one instance for each that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DnsFamily {
    /// IPv4 if it has any, else IPv6.
    #[default]
    V4First,
    /// IPv6 if it has any, else IPv4.
    V6First,
    /// Both: for names whose addresses are different instances.
    Both,
}

/// How names are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsConfig {
    /// Which addresses count: IPv4 first.
    pub family: DnsFamily,
    /// Names are not asked for sooner after an answer, whatever its TTL: 5 s. After a failure at first, too.
    pub ttl_min: Duration,
    /// Nor later, not even after failures that went on: 5 min.
    pub ttl_max: Duration,
}

impl Default for DnsConfig {
    fn default() -> DnsConfig {
        DnsConfig {
            family: DnsFamily::default(),
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(300),
        }
    }
}

impl DnsConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first setting that does not.
    pub fn check(&self) -> Result<(), BadSetting> {
        time("dns.ttl_min", self.ttl_min)?;
        time("dns.ttl_max", self.ttl_max)?;
        match self.ttl_min <= self.ttl_max {
            true => Ok(()),
            false => Err(BadSetting { name: "dns.ttl_max", must: "dns.ttl_min or more" }),
        }
    }
}

/// A name of the DNS as a source.
///
/// It is asked for again when the shortest TTL of its answers is over, within bounds, and up to a tenth later, so that
/// many callers do not ask at once. What cannot be resolved keeps its last good records, each name for itself: a name that
/// there is no more is an outage, and takes nothing away. After failures in a row it is asked for less and less often.
///
/// An instance is named by its address and port, and its certificate is for the host: with SRV for the one that the record
/// names, as far as that is believed. With SRV it has the tag `host`, its priority, and its share of the
/// weights: 100 is what it has if all are alike, and a weight of 0 is the smallest that gets calls.
#[derive(Debug)]
pub struct DnsSource<R> {
    service: String,
    of: Of,
    config: DnsConfig,
    resolver: R,
    rng: SplitMix64,
    services: Vec<Service>,
    addresses: Addresses,
    round: Option<Round>,
    next: Instant,
    failures: u32,
    /// What was complained about already.
    outage: Option<String>,
    shown: Vec<Instance>,
    number: u64,
    updates: VecDeque<Update>,
}

/// What is asked for.
#[derive(Debug)]
enum Of {
    Host(String, u16),
    Service(String),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Service {
    priority: u16,
    host: String,
    port: u16,
    weight: u16,
}

/// Questions of one time.
#[derive(Debug, Default)]
struct Round {
    open: BTreeSet<DnsQuery>,
    ttl: Option<Duration>,
    failed: Option<String>,
}

impl<R: Resolve> DnsSource<R> {
    /// Instances of `service` at the addresses of a host, all at one port.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn host(
        service: impl Into<String>,
        name: impl Into<String>,
        port: u16,
        config: DnsConfig,
        resolver: R,
    ) -> Result<DnsSource<R>, BadSetting> {
        DnsSource::new(service.into(), Of::Host(name.into(), port), config, resolver)
    }

    /// Instances of `service` where the SRV records of a name say: `_quotes._tcp.example.com`.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn srv(
        service: impl Into<String>,
        name: impl Into<String>,
        config: DnsConfig,
        resolver: R,
    ) -> Result<DnsSource<R>, BadSetting> {
        DnsSource::new(service.into(), Of::Service(name.into()), config, resolver)
    }

    fn new(
        service: String,
        of: Of,
        config: DnsConfig,
        resolver: R,
    ) -> Result<DnsSource<R>, BadSetting> {
        config.check()?;
        Ok(DnsSource {
            service,
            of,
            config,
            resolver,
            rng: SplitMix64::new(RandomState::new().hash_one(0)),
            services: Vec::new(),
            addresses: Addresses::new(config.family),
            round: None,
            next: Instant::ZERO,
            failures: 0,
            outage: None,
            shown: Vec::new(),
            number: 0,
            updates: VecDeque::new(),
        })
    }

    /// The same, where a seed decides when exactly it is asked for, and not the operating system: for tests.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> DnsSource<R> {
        DnsSource { rng: SplitMix64::new(seed), ..self }
    }

    fn begin(&mut self) {
        self.round = Some(Round::default());
        match &self.of {
            Of::Host(name, port) => {
                let host = name.clone();
                self.services = vec![Service { priority: 0, host, port: *port, weight: 0 }];
                self.ask_hosts();
            }
            Of::Service(name) => self.ask(DnsQuery { name: name.clone(), kind: DnsKind::Srv }),
        }
    }

    fn ask_hosts(&mut self) {
        self.addresses.begin();
        let hosts: BTreeSet<&str> = self.services.iter().map(|it| &it.host[..]).collect();
        let queries: Vec<DnsQuery> =
            hosts.into_iter().flat_map(|host| self.addresses.first(host)).collect();
        queries.into_iter().for_each(|query| self.ask(query));
    }

    fn ask(&mut self, query: DnsQuery) {
        let Some(round) = &mut self.round else { return };
        if round.open.insert(query.clone()) {
            self.resolver.ask(query);
        }
    }

    fn handle_answer(&mut self, query: DnsQuery, answer: Result<DnsAnswer, DnsFailure>) {
        let Some(round) = &mut self.round else { return };
        if !round.open.remove(&query) {
            return;
        }
        match &answer {
            Ok(answer) => round.ttl = Some(round.ttl.map_or(answer.ttl, |ttl| ttl.min(answer.ttl))),
            // That one family is missing is no failure.
            Err(DnsFailure::NoRecords) if query.kind != DnsKind::Srv => {}
            Err(failure) => round.failed = Some(format!("{}: {failure}", query.name)),
        }
        if query.kind == DnsKind::Srv {
            if let Ok(answer) = answer {
                self.handle_services(&query.name, answer.records);
            }
        } else if let Some(other) = self.addresses.handle_answer(query, answer) {
            self.ask(other);
        }
    }

    fn handle_services(&mut self, name: &str, records: Vec<DnsRecord>) {
        let service = |record| match record {
            // A host that is the root says that there is no such service.
            DnsRecord::Service { priority, weight, port, host } if host != "." => {
                Some(Service { priority, host, port, weight })
            }
            _ => None,
        };
        let mut services: Vec<Service> =
            records.into_iter().filter_map(service).take(SERVICES_MAX).collect();
        services.sort();
        services.dedup_by(|one, other| (&one.host, one.port) == (&other.host, other.port));
        match (services.is_empty(), &mut self.round) {
            (true, Some(round)) => round.failed = Some(format!("{name}: it names no hosts")),
            _ => {
                self.services = services;
                self.ask_hosts();
            }
        }
    }

    /// All questions of a round have been answered.
    fn end(&mut self, now: Instant, round: Round) {
        let missing = self.addresses.end();
        let failed = round.failed.or(missing);
        let instances = self.instances();
        let outage = failed.clone().or_else(|| {
            let reason = || format!("{}: there are no addresses", self.service);
            instances.is_empty().then(reason)
        });
        self.failures = if outage.is_some() { self.failures.saturating_add(1) } else { 0 };
        if outage.is_some() && outage != self.outage {
            self.updates.extend(outage.clone().map(Update::Outage));
        }
        self.outage = outage;
        if !instances.is_empty() && instances != self.shown {
            self.shown.clone_from(&instances);
            self.number += 1;
            let revision = Revision { epoch: 1, number: self.number };
            let snapshot = Snapshot { revision, instances };
            self.updates.push_back(Update::Snapshot { snapshot, clock_ms: None });
        }
        self.next = now + self.wait(round.ttl);
    }

    /// How long until the next round.
    fn wait(&mut self, ttl: Option<Duration>) -> Duration {
        let DnsConfig { ttl_min, ttl_max, .. } = self.config;
        let wait = match self.failures {
            0 => ttl.unwrap_or(ttl_max),
            failures => ttl_min.saturating_mul(1 << (failures - 1).min(16)),
        };
        let wait = wait.clamp(ttl_min, ttl_max);
        // A day has fewer nanoseconds than that.
        wait + Duration::from_nanos(self.rng.below((wait.as_nanos() as u64 / 10).max(1)))
    }

    fn instances(&self) -> Vec<Instance> {
        let is_srv = matches!(self.of, Of::Service(_));
        let mut found: Vec<Instance> = Vec::new();
        let mut names = BTreeSet::new();
        for service in &self.services {
            let addresses = self.addresses.of(&service.host);
            let weight = if is_srv { self.weight(service, addresses.len()) } else { 100 };
            for address in addresses {
                let address = SocketAddr::new(address, service.port);
                // Two names of one machine are one instance, of the better priority.
                if !names.insert(address) {
                    continue;
                }
                let mut instance = Instance::new(&self.service[..], address.to_string(), address)
                    .with_weight(weight)
                    .with_tls_name(service.host.trim_end_matches('.'));
                if is_srv {
                    instance.priority = service.priority;
                    instance.tags.insert("host".to_owned(), service.host.clone());
                }
                found.push(instance);
            }
        }
        found
    }

    /// Of each of so many addresses of a host: the mean of its priority is 100.
    fn weight(&self, service: &Service, addresses: usize) -> u32 {
        let alike = self.services.iter().filter(|it| it.priority == service.priority);
        let (count, sum) =
            alike.fold((0u64, 0u64), |(count, sum), it| (count + 1, sum + u64::from(it.weight)));
        let share = (u64::from(service.weight) * count * 100).checked_div(sum).unwrap_or(100);
        (share / addresses.max(1) as u64).clamp(1, 10_000) as u32
    }
}

impl<R: Resolve> Source for DnsSource<R> {
    fn poll_update(&mut self, now: Instant) -> Option<Update> {
        if self.round.is_none() && self.next <= now {
            self.begin();
        }
        while let Some((query, answer)) = self.resolver.poll_answer() {
            self.handle_answer(query, answer);
        }
        if let Some(round) = self.round.take_if(|round| round.open.is_empty()) {
            self.end(now, round);
        }
        self.updates.pop_front()
    }
}
