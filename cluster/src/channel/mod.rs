//! A channel over many instances.

mod at;
mod call;
mod carrying;
mod connector;
mod copies;
mod operations;
mod probing;
mod ready;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ringcall_core::{
    Channel, Failure, FailureClass, Outgoing, OwnedStreamChannel, Payload, StreamChannel,
};

pub use at::{At, AtCall, AtOpening};
pub use call::BalancedCall;
pub use connector::{Connector, Guard};
use copies::Copies;
use operations::Operations;
use probing::Probing;
pub use ready::Ready;
use ready::Waiting;
pub use streams::{BalancedOpening, BalancedStream};

use crate::discovery::{Instance, Listing};
use crate::fleet::{CallReport, Explanation, Fleet, FleetCounts, FleetEvent};
use crate::limit::LimitLease;
use crate::method::MethodKey;
use crate::route::{BadRules, Rules, Sample};
use crate::settings::{BadSetting, Settings};

/// A [`Channel`] over the instances of a service: build a typed client on it, as on a connection.
///
/// Listings are pushed in ([`apply`](Balanced::apply)), settings and rules can be replaced
/// ([`configure`](Balanced::configure), [`route`](Balanced::route)), all of it while calls are under way. Each call goes through the method's
/// breaker; each of its attempts through ejections, the breakers of instances and the balancing policy. An
/// attempt that failed is followed by another where that is safe, within the call's deadline and the budget. Calls with streams
/// are made again as long as they have not begun, and stay where they have: a [`BalancedStream`].
///
/// Clones are the same channel. Everything that is decided is decided by a [`Fleet`], under a guard that is held
/// for the decision and never over a call: with a connector for one thread that is a cell, with one for
/// many a mutex.
pub struct Balanced<N: Connector> {
    shared: Arc<Shared<N>>,
    key: Option<u64>,
    is_reporting: bool,
}

struct Shared<N: Connector> {
    connector: N,
    fleet: N::Guard<Fleet<N::Channel>>,
    copies: N::Guard<Copies<N>>,
    probing: N::Guard<Probing<N>>,
    /// The last listing, whole. Held while another one replaces it.
    listing: Mutex<Listing>,
    waiting: N::Guard<Waiting>,
    operations: Operations,
}

impl<N: Connector> Balanced<N> {
    /// A channel without instances: calls fail until there is a listing, for which
    /// [`ready`](Balanced::ready) waits. What chance does comes from the connector, so
    /// that clients of one service do not all choose the same instance at the same time.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn new(connector: N, settings: Settings) -> Result<Balanced<N>, BadSetting> {
        let seed = connector.seed();
        Balanced::seeded(connector, settings, seed)
    }

    /// The same, where a seed decides what chance does: for tests. Two channels with the same seed, settings and calls make
    /// the same choices, so no two clients of one service should have the same.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn seeded(connector: N, settings: Settings, seed: u64) -> Result<Balanced<N>, BadSetting> {
        let fleet = N::Guard::new(Fleet::new(settings, seed, connector.now())?);
        Ok(Balanced {
            shared: Arc::new(Shared {
                connector,
                fleet,
                copies: N::Guard::new(Copies::default()),
                probing: N::Guard::new(Probing::default()),
                listing: Mutex::default(),
                waiting: N::Guard::new(Waiting::default()),
                operations: Operations::default(),
            }),
            key: None,
            is_reporting: false,
        })
    }

    /// The same channel, for calls about something: with [`Ring`](crate::balance::Ring) or
    /// [`Maglev`](crate::balance::Maglev) those with equal keys go to the same instance.
    #[must_use]
    pub fn keyed(&self, key: u64) -> Balanced<N> {
        Balanced { key: Some(key), ..self.clone() }
    }

    /// The same channel, each of whose calls is reported, whatever
    /// [`report_one_in`](Settings::report_one_in) says: see [`poll_report`](Balanced::poll_report).
    #[must_use]
    pub fn reporting(&self) -> Balanced<N> {
        Balanced { is_reporting: true, ..self.clone() }
    }

    /// Ends when a call can be made: there is an instance, and a connection to it. For a program that has nothing to do before,
    /// since calls fail at once while there is no list. [`within`](Ready::within) says for how long. It does not look at
    /// rules, ejections or breakers, which come and go with calls.
    ///
    /// # Errors
    /// When that takes longer than it may: with [`Cause::NoInstance`](ringcall_core::Cause::NoInstance) if none is listed, with why
    /// the last attempt to connect to one of them failed, or with [`Cause::NotReady`](ringcall_core::Cause::NotReady) if the
    /// first has not ended yet.
    pub fn ready(&self) -> Ready<N> {
        Ready::new(Arc::clone(&self.shared))
    }

    /// A channel to the instance with this name, whether it is in the list already or not: for calls that are about one of
    /// them, and for those that all are to have, with [`names`](Balanced::names).
    #[must_use]
    pub fn at(&self, name: impl Into<Arc<str>>) -> At<N> {
        At::new(self.clone(), name.into())
    }

    /// The names of the instances that this side has connections to, ejected ones among them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.fleet.with(|fleet| fleet.names())
    }

    /// Replaces the instances. Connections to new ones are opened; those to instances that are gone end with
    /// the calls on them. A listing that is older than the last one is ignored.
    pub fn apply(&self, listing: &Listing) {
        let shared = &self.shared;
        let mut last = shared.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if last.version <= listing.version {
            last.clone_from(listing);
            self.apply_part(listing);
        }
    }

    /// Says of which service its instances are, which failures name: a `Watch` of `ringcall` does. Until then it is that of the
    /// first instance that is listed. A process keeps 1024 names, each of up to 256 bytes; failures of further services name
    /// none.
    pub fn set_service(&self, service: &str) {
        self.shared.fleet.with(|fleet| fleet.set_service(service));
    }

    /// The version of the last listing that was applied; 0 if none was. Whoever keeps the list from now on must count on from
    /// it, since what is older is ignored.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.listing.lock().unwrap_or_else(PoisonError::into_inner).version
    }

    /// Replaces the instances by those of a listing that this side uses. One at a time.
    fn apply_part(&self, listing: &Listing) {
        let shared = &self.shared;
        let aperture = shared.fleet.with(|fleet| fleet.settings().aperture_policy());
        let part = aperture.map(|aperture| aperture.narrow(listing));
        let listing = part.as_ref().unwrap_or(listing);
        // Connections are opened, and let go of, outside of the guard: either may take a moment.
        let unknown = shared.fleet.with(|fleet| fleet.unknown(listing));
        let connect =
            |it: Arc<Instance>| shared.connector.connect(&it).map(|new| (it.name.clone(), new));
        let mut new: BTreeMap<String, N::Channel> =
            unknown.into_iter().filter_map(connect).collect();
        let now = shared.connector.now();
        let gone = shared
            .fleet
            .with(|fleet| fleet.apply(now, listing, |instance| new.remove(&instance.name)));
        drop(gone);
        shared.tell_of_list();
    }

    /// Replaces the settings. Another aperture opens and closes connections, as [`apply`](Balanced::apply) does.
    ///
    /// # Errors
    /// When one makes no sense; nothing is changed then.
    pub fn configure(&self, settings: Settings) -> Result<(), BadSetting> {
        let shared = &self.shared;
        let now = shared.connector.now();
        let is_part_same = shared.fleet.with(|fleet| {
            let is_part_same = settings.has_aperture_of(fleet.settings());
            fleet.configure(now, settings).map(|()| is_part_same)
        })?;
        if !is_part_same {
            // Whoever applies a listing meanwhile goes by the aperture of before, or of now.
            let last = shared.listing.lock().unwrap_or_else(PoisonError::into_inner);
            self.apply_part(&last);
        }
        Ok(())
    }

    /// Limits calls of a method (`package.Service/method`), or of all of them, for a while, in place of what the settings say:
    /// for whoever hands out shares of a quota to many callers. A method that nobody calls is limited to no avail: ask
    /// [`Settings::unknown_methods`] for names that a client does not have.
    ///
    /// # Errors
    /// When the limit or its time makes no sense, or what is named is no method; nothing is changed then.
    pub fn lease(&self, method: Option<&str>, lease: LimitLease) -> Result<(), BadSetting> {
        let now = self.shared.connector.now();
        self.shared.fleet.with(|fleet| fleet.lease(now, method, lease))
    }

    /// Replaces the rules by which calls are routed; there are none at first. Calls under way go by them from their
    /// next attempt on.
    ///
    /// # Errors
    /// When they make no sense, or are older than those in force; nothing is changed then.
    pub fn route(&self, rules: Rules) -> Result<(), BadRules> {
        self.shared.fleet.with(|fleet| fleet.route(rules))
    }

    /// How a call of this method (`"package.Service/method"`, or its number) would be decided at the moment, and why: one with
    /// nothing that rules could see. Use
    /// [`explain_call`](Balanced::explain_call) for others.
    #[must_use]
    pub fn explain(&self, method: impl Into<MethodKey>) -> Explanation {
        let connector = &self.shared.connector;
        let now = connector.now();
        let readiness = |channel: &N::Channel| connector.readiness(channel);
        self.shared.fleet.with(|fleet| fleet.explain(now, method, readiness))
    }

    /// How a certain call would be decided at the moment, and why.
    #[must_use]
    pub fn explain_call(&self, call: &Sample) -> Explanation {
        let connector = &self.shared.connector;
        let now = connector.now();
        let readiness = |channel: &N::Channel| connector.readiness(channel);
        self.shared.fleet.with(|fleet| fleet.explain_call(now, &call.asked(), readiness))
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> FleetCounts {
        self.shared.look_at_copies();
        self.shared.look_at_probes();
        self.shared.fleet.with(|fleet| fleet.counts())
    }

    /// Names of instances to which no connection can be opened: evidence for
    /// [`Discovery::handle_dead`](crate::discovery::Discovery::handle_dead). None, while no connection is open: the fault may
    /// be this side's own network.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        // Whoever watches asks this again and again: the last copies and probes end here, where no further ones are made.
        self.shared.look_at_copies();
        self.shared.look_at_probes();
        let connector = &self.shared.connector;
        self.shared.fleet.with(|fleet| fleet.dead(|channel| connector.readiness(channel)))
    }

    /// Something that happened and was not told yet: another instance at an address, all of them gone. Looks at the
    /// connections first, so that it need not wait for a call. Each is told once, so a channel with a `Watch` of
    /// `ringcall`, which takes and logs them, has them for its hook.
    #[must_use]
    pub fn poll_event(&self) -> Option<FleetEvent> {
        let connector = &self.shared.connector;
        let now = connector.now();
        let readiness = |channel: &N::Channel| connector.readiness(channel);
        self.shared.fleet.with(|fleet| {
            fleet.look(now, readiness);
            let mut event = fleet.poll_event()?;
            if let FleetEvent::WrongInstance { name, mismatch } = &mut event {
                let channel = fleet.target_named(name);
                *mismatch = channel.and_then(|channel| connector.mismatch(channel));
            }
            Some(event)
        })
    }

    /// What became of a call that was to be reported, and was not taken yet; of all clones together the last 64 are kept.
    /// A channel with a `Watch` of `ringcall`, which takes them, has them for its hook.
    #[must_use]
    pub fn poll_report(&self) -> Option<CallReport> {
        self.shared.fleet.with(Fleet::poll_report)
    }

    /// What opens its connections.
    #[must_use]
    pub fn connector(&self) -> &N {
        &self.shared.connector
    }
}

impl<N: Connector> Clone for Balanced<N> {
    fn clone(&self) -> Balanced<N> {
        let Balanced { shared, key, is_reporting } = self;
        Balanced { shared: Arc::clone(shared), key: *key, is_reporting: *is_reporting }
    }
}

impl<N: Connector> fmt::Debug for Balanced<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl<N: Connector> Channel for Balanced<N> {
    type Body = <N::Channel as Channel>::Body;
    type Pending<'a, P>
        = BalancedCall<'a, N, P>
    where
        N: 'a,
        P: Payload + Clone + 'a;

    #[inline]
    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> BalancedCall<'a, N, P> {
        BalancedCall::new(&self.shared, call, payload, self.key, self.is_reporting)
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> StreamChannel for Balanced<N> {
    type Call = BalancedStream<N>;
    type Opening<'a, P>
        = BalancedOpening<'a, N, P>
    where
        N: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> BalancedOpening<'a, N, P> {
        BalancedOpening::new(&self.shared, call, payload, self.key, self.is_reporting)
    }
}

/// What the failure of the last attempt says of the whole call.
#[inline]
fn whole(failure: Failure, may_have_run: bool) -> Failure {
    match may_have_run {
        true => Failure { class: FailureClass::Unknown, ..failure },
        false => failure,
    }
}
