//! Limits of a whole cluster: a quota of calls a second that many callers share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringcall::cluster::{Balanced, CallLimit, Clients, Clock, Instant, LimitLease};
use ringcall::{CallError, MachineClock, Shard, ShardConfig, SpanIds};

use crate::RegistryError;
use crate::addresses::check;
use crate::book::ms;
use crate::shares::{Shares, left};
use crate::thread::{OwnThread, Stop};

/// What a caller would like to have of a quota.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which quota.
    pub quota: String,
    /// Who asks: a number that no other caller has.
    pub caller: u64,
    /// How many calls a second it has lately made, or would have if it could.
    pub demand_per_s: u32,
}

/// What a caller may have of a quota.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Calls a second; at least one.
    pub per_s: u32,
    /// For how long from when it was asked for, in milliseconds.
    pub lease_ms: u32,
}

/// Why there is no share.
#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// There is no quota of that name.
    NoSuchQuota,
    /// It has as many callers as calls a second, or a thousand.
    TooManyCallers,
    /// Who hands out shares has just started, and waits until those of before have ended: for a lease.
    NotYet,
}

impl fmt::Display for NoShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoShare::NoSuchQuota => "there is no quota of that name",
            NoShare::TooManyCallers => {
                "the quota has as many callers as calls a second, or a thousand"
            }
            NoShare::NotYet => "shares of before may be in force yet: ask again",
        })
    }
}

impl std::error::Error for NoShare {}

/// Hands out shares.
#[ringcall::service]
pub trait Quota {
    /// A share, until its lease ends or another one is asked for.
    #[method(idempotent)]
    async fn share(&self, ask: Ask) -> Result<Share, NoShare>;
}

/// Quotas by name: serve them as [`Quota`], in one place, since whoever hands out shares must know of all. When it is away
/// callers go by what they are limited to without it.
///
/// In its first lease time it hands out nothing: it does not know what was handed out before it started, and that is in
/// force yet. Before it is started with a shorter lease than it had, the longer one has to have ended.
///
/// A quota has a thousand callers at most. Each says itself who it is, so that one that lies may take all places and all
/// calls: who may call `share` is for [`Server::authorize_calls`](ringcall::Server::authorize_calls) to say.
///
/// ```
/// use std::time::Duration;
/// use ringcall_registry::{Quota, Quotas};
///
/// let quotas = Quotas::new(Duration::from_secs(3)).with("quotes", 10_000);
/// let server = ringcall::Server::bind("127.0.0.1:0").service(quotas.into_quota());
/// ```
#[derive(Clone, Debug)]
pub struct Quotas {
    lease: Duration,
    /// When nothing is in force any more of what was handed out before.
    first: Instant,
    /// Each by itself, so that those who share one do not wait for the others.
    shares: Arc<RwLock<BTreeMap<String, Arc<Mutex<Shares>>>>>,
}

impl Quotas {
    /// None yet. A lease is how long a caller goes by its share without asking again; it asks three times as often, and
    /// waits no longer for an answer than until it asks again, so that a lease has to be longer than three times what an
    /// answer takes. The first lease time, in which nothing is handed out, begins here.
    ///
    /// # Panics
    /// With a lease that is not from 100 ms to an hour.
    #[must_use]
    pub fn new(lease: Duration) -> Quotas {
        let bounds = LEASE_MIN..=Duration::from_secs(3600);
        assert!(bounds.contains(&lease), "a lease is from 100 ms to an hour, not {lease:?}");
        Quotas { lease, first: MachineClock.now() + lease, shares: Arc::default() }
    }

    /// With a quota of so many calls a second.
    ///
    /// # Panics
    /// With none, or more than a million.
    #[must_use]
    pub fn with(self, name: impl Into<String>, per_s: u32) -> Quotas {
        self.set(name, per_s);
        self
    }

    /// Sets a quota, or changes it: who has a share keeps it until its lease ends.
    ///
    /// # Panics
    /// With none, or more than a million.
    pub fn set(&self, name: impl Into<String>, per_s: u32) {
        assert!((1..=1_000_000).contains(&per_s), "a quota is 1 to 1000000 calls a second");
        let new = || Arc::new(Mutex::new(Shares::new(per_s, self.lease, self.first)));
        let mut shares = self.shares.write();
        shares.entry(name.into()).or_insert_with(new).lock().set(per_s);
    }
}

impl Quota for Quotas {
    async fn share(&self, ask: Ask) -> Result<Share, NoShare> {
        let shares = self.shares.read().get(&ask.quota).cloned();
        let shares = shares.ok_or(NoShare::NoSuchQuota)?;
        let mut shares = shares.lock();
        let per_s = shares.ask(MachineClock.now(), ask.caller, ask.demand_per_s)?;
        Ok(Share { per_s, lease_ms: ms(shares.lease()) })
    }
}

/// Keeps the calls of a channel within its share of a quota, on a thread of its own, until it is dropped.
///
/// Three times a lease it tells how many calls were made or wanted, and puts the share that it gets [in force](Balanced::lease)
/// for the lease, which begins when it asks: an answer that takes longer than a third of it, or a second, is none. What the
/// channel's own [`Settings::limit`](ringcall::cluster::Settings) says holds while there is none:
/// before the first one, and when whoever hands them out is away. Dropped, the last share holds until its lease ends.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct QuotaKeeper(#[expect(dead_code, reason = "dropping it ends it")] OwnThread);

/// How long an answer may take at most, and how long to wait at most after one that did not come.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The shortest lease, whatever somebody says.
const LEASE_MIN: Duration = Duration::from_millis(100);

impl QuotaKeeper {
    /// Asks at this address for shares of this quota.
    ///
    /// # Errors
    /// When the address cannot be understood, before anything is started; or when there is no thread.
    pub fn start(
        address: impl Into<String>,
        quota: impl Into<String>,
        channel: Balanced<Clients>,
    ) -> Result<QuotaKeeper, RegistryError> {
        QuotaKeeper::start_with(address, quota, channel, ShardConfig::default())
    }

    /// The same with settings for its connection: TLS, limits.
    ///
    /// # Errors
    /// As those of [`start`](QuotaKeeper::start).
    pub fn start_with(
        address: impl Into<String>,
        quota: impl Into<String>,
        channel: Balanced<Clients>,
        config: ShardConfig,
    ) -> Result<QuotaKeeper, RegistryError> {
        let address = address.into();
        check([&address])?;
        let mut keeping = Keeping {
            address,
            quota: quota.into(),
            caller: MachineClock.next_span_id(),
            wanted: Wanted::new(&channel),
            answer: ANSWER_MAX,
            channel,
        };
        let keep = async move |shard: Shard, stop: Stop| {
            stop.unless(keeping.keep(&shard)).await;
        };
        Ok(QuotaKeeper(OwnThread::start("quota", config, keep)?))
    }
}

struct Keeping {
    address: String,
    quota: String,
    caller: u64,
    wanted: Wanted,
    /// How long an answer may take: a third of a lease, once that is known.
    answer: Duration,
    channel: Balanced<Clients>,
}

impl Keeping {
    async fn keep(&mut self, shard: &Shard) {
        loop {
            let reason = match self.keep_at(shard).await {
                Ok(never) => match never {},
                Err(reason) => reason,
            };
            log::warn!("no share of the quota {} from {}: {reason}", self.quota, self.address);
            shard.sleep(self.answer).await;
        }
    }

    async fn keep_at(&mut self, shard: &Shard) -> Result<std::convert::Infallible, String> {
        let client = shard.connect(self.address.as_str()).await;
        let quota = QuotaClient::new(client.map_err(|failure| failure.to_string())?);
        loop {
            let demand_per_s = self.wanted.per_second(&self.channel);
            let ask = Ask { quota: self.quota.clone(), caller: self.caller, demand_per_s };
            let asked = MachineClock.now();
            let time = match quota.share(&ask).deadline(self.answer).await {
                Ok(share) => self.take(asked, share.to_owned())?,
                Err(CallError::App(NoShare::NotYet)) => self.answer,
                // Nothing is left for it, which does not mean that it may do as it likes.
                Err(CallError::App(NoShare::TooManyCallers)) => {
                    let (limit, time) = (CallLimit::per_second(1, 1), 3 * self.answer);
                    let leased = self.channel.lease(None, LimitLease { limit, time });
                    leased.map_err(|bad| bad.to_string())?;
                    self.answer
                }
                Err(error) => return Err(error.to_string()),
            };
            shard.sleep(time).await;
        }
    }

    /// Puts a share in force that was asked for then, for what is left of it. Says when to ask again.
    fn take(&mut self, asked: Instant, share: Share) -> Result<Duration, String> {
        let lease = Duration::from_millis(share.lease_ms.into());
        let again = lease.max(LEASE_MIN) / 3;
        self.answer = again.min(ANSWER_MAX);
        // A tenth of a second's at once, as they come.
        let limit = CallLimit::per_second(share.per_s, (share.per_s / 10).max(1));
        let time = left(lease, MachineClock.now().since(asked));
        let time = time.ok_or("the answer came when its lease had ended")?;
        let leased = self.channel.lease(None, LimitLease { limit, time });
        leased.map_err(|bad| bad.to_string())?;
        Ok(again)
    }
}

/// How many calls a channel makes, or would make.
struct Wanted {
    calls: u64,
    at: Instant,
}

impl Wanted {
    fn new(channel: &Balanced<Clients>) -> Wanted {
        Wanted { calls: wanted(channel), at: MachineClock.now() }
    }

    /// Since this was asked last.
    fn per_second(&mut self, channel: &Balanced<Clients>) -> u32 {
        let (calls, now) = (wanted(channel), MachineClock.now());
        let time = now.since(self.at).as_secs_f64().max(0.001);
        let made = calls.saturating_sub(self.calls);
        (self.calls, self.at) = (calls, now);
        (made as f64 / time).ceil() as u32
    }
}

/// Those that were limited are counted as calls, too.
fn wanted(channel: &Balanced<Clients>) -> u64 {
    channel.counts().calls
}
