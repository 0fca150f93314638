//! Where clients have their lists from: the same source, believed by each for itself.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcall_cluster::discovery::{
    Discovery, DiscoveryConfig, Instance, Revision, Snapshot, Update, Wanted,
};
use ringcall_cluster::fleet::{Fleet, Readiness};
use ringcall_core::Instant;

/// How often a client looks after its list.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// So often somebody is found to be gone before that counts: for a second, as with `Watch`.
const DEAD_ROUNDS: u32 = 10;
/// What all instances are of.
pub(crate) const SERVICE: &str = "s";

/// What a client believes of its source.
#[derive(Debug)]
pub(crate) struct Believer {
    discovery: Discovery,
    broken: BTreeMap<String, u32>,
}

impl Believer {
    pub(crate) fn new() -> Believer {
        let discovery = Discovery::new(Wanted::service(SERVICE), DiscoveryConfig::default());
        let discovery = discovery.expect("the defaults make sense");
        Believer { discovery, broken: BTreeMap::new() }
    }

    /// The source has said something.
    pub(crate) fn hears(&mut self, now: Instant, update: Update) {
        self.discovery.handle_update(now, update);
    }

    /// Does what a `Watch` does each time that it looks; whether the list was replaced.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        fleet: &mut Fleet<usize>,
        readiness: impl Fn(&usize) -> Readiness,
    ) -> bool {
        self.discovery.handle_timeout(now);
        let broken = fleet.dead(readiness);
        self.broken.retain(|name, _| broken.contains(name));
        for name in broken {
            let rounds = self.broken.entry(name.clone()).or_default();
            *rounds += 1;
            if *rounds >= DEAD_ROUNDS {
                self.discovery.handle_dead(now, &name);
            }
        }
        let listing = self.discovery.poll_listing();
        if let Some(listing) = &listing {
            let _gone = fleet.apply(now, listing, place);
        }
        listing.is_some()
    }

    pub(crate) fn listed(&self) -> usize {
        self.discovery.listing().instances.len()
    }
}

/// Which server an instance is.
pub(crate) fn place(instance: &Instance) -> Option<usize> {
    instance.name.parse().ok()
}

/// The instance of a server.
pub(crate) fn instance(server: usize, weight: u32) -> Instance {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1 + server as u16));
    Instance::new(SERVICE, format!("{server:03}"), address).with_weight(weight)
}

pub(crate) fn snapshot(number: u64, instances: Vec<Instance>) -> Update {
    let revision = Revision { epoch: 1, number };
    Update::Snapshot { snapshot: Snapshot { revision, instances }, clock_ms: None }
}
