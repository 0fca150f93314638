//! Which instance gets a call.
//!
//! A [`Balance`] is asked with the instances that may get the call (others are ejected, have an open breaker,
//! or were tried already) and what is known of each ([`HostStats`]).

mod hash;
mod idle;
mod least;
mod p2c;
mod prequal;
mod random;
mod reported;
mod round_robin;
mod stats;

use std::fmt;
use std::sync::Arc;

use ringcall_core::{Entropy, Instant, SplitMix64, method_id};

pub use hash::{Maglev, Ring};
pub use least::LeastActive;
pub use p2c::PeakEwma;
pub use prequal::{Prequal, PrequalConfig};
pub use random::WeightedRandom;
pub use reported::Reported;
pub use round_robin::SmoothRoundRobin;
pub use stats::HostStats;

/// A policy that chooses.
pub trait Balance: Send + fmt::Debug {
    /// Instances have come, gone, or changed their weight. `live` says which of `hosts` are there; the others
    /// are empty places. A host keeps its place for as long as it is there.
    fn rebuild(&mut self, hosts: &[HostStats], live: &[u32]) {
        let _ = (hosts, live);
    }

    /// The place of the instance that gets a call; one of the candidates, of which there is at least one.
    /// `key` is what the call is about, if its caller says so: calls with one key should go to one instance.
    ///
    /// It is asked again for the same call if that instance turns out not to be callable; so what has come of it
    /// shows in [`HostStats`], not in how often this was asked.
    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        key: Option<u64>,
    ) -> u32;

    /// Whether it goes by how long calls wait at servers and are worked on, which their replies say:
    /// [`HostStats::waiting`]. No by default, and then nobody counts.
    fn wants_server_times(&self) -> bool {
        false
    }

    /// Whether it wants instances to be asked how busy they are. No by default, and then nothing of that is paid for.
    fn wants_load_probes(&self) -> bool {
        false
    }

    /// Puts down at which places instances are to be asked now how busy they are: some of the candidates, and none by
    /// default. It is asked once a call, if it [wants](Balance::wants_load_probes) that, before the call's first
    /// [`pick`](Balance::pick). How many it puts down is how many are asked, unless they cannot be or too many are being
    /// asked already.
    fn load_probes(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        places: &mut Vec<u32>,
    ) {
        let _ = (now, rng, candidates, places);
    }

    /// An instance that was asked at this time has said how busy it was then: its [`load`](HostStats::load).
    fn load_probed(&mut self, asked: Instant, place: u32, host: &HostStats) {
        let _ = (asked, place, host);
    }

    /// How bad it would be to give an instance a call, for whoever looks at decisions; lower is better.
    fn score(&self, now: Instant, host: &HostStats) -> f64;
}

/// The instances that may get a call.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    hosts: &'a [HostStats],
    list: &'a [u32],
    weight_max: u32,
    totals: Option<Totals>,
}

/// Of all candidates together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) in_flight: u64,
    pub(crate) full_weight: u64,
}

impl<'a> Candidates<'a> {
    /// Those of `hosts` whose places are in `list`, which is sorted and not empty.
    #[must_use]
    pub fn new(hosts: &'a [HostStats], list: &'a [u32], weight_max: u32) -> Candidates<'a> {
        Candidates { hosts, list, weight_max: weight_max.max(1), totals: None }
    }

    /// The same, where somebody has counted along.
    pub(crate) fn with_totals(self, totals: Totals) -> Candidates<'a> {
        Candidates { totals: Some(totals), ..self }
    }

    /// Counted, unless somebody has.
    pub(crate) fn totals(&self) -> Totals {
        let add = |sum: Totals, place: &u32| Totals {
            in_flight: sum.in_flight + u64::from(self.host(*place).in_flight),
            full_weight: sum.full_weight + u64::from(self.host(*place).full_weight),
        };
        self.totals.unwrap_or_else(|| self.list.iter().fold(Totals::default(), add))
    }

    /// Their places, in order.
    #[must_use]
    pub fn places(&self) -> &'a [u32] {
        self.list
    }

    /// What is known of the one at a place.
    #[inline]
    #[must_use]
    pub fn host(&self, place: u32) -> &'a HostStats {
        &self.hosts[place as usize]
    }

    /// Whether the one at this place is among them.
    #[must_use]
    pub fn contains(&self, place: u32) -> bool {
        self.list.binary_search(&place).is_ok()
    }

    /// One of them by chance, as often as its weight says.
    #[inline]
    pub fn sample(&self, rng: &mut dyn Entropy) -> u32 {
        // Rejection is exact, and with ordinary weights it takes a try or two.
        for _ in 0..8 {
            // One number for both: its upper half says who, its lower half whether.
            let random = rng.next_u64();
            let index = ((random >> 32) * self.list.len() as u64) >> 32;
            let place = self.list[index as usize];
            let weight = u64::from(self.host(place).weight);
            if ((random & 0xffff_ffff) * u64::from(self.weight_max)) >> 32 < weight {
                return place;
            }
        }
        self.sample_exactly(rng)
    }

    /// Two of them by chance, which may be the same.
    #[inline]
    pub(crate) fn sample_two(&self, rng: &mut dyn Entropy) -> (u32, u32) {
        let one = self.sample(rng);
        let mut other = self.sample(rng);
        if one == other && self.list.len() > 1 {
            other = self.sample(rng);
        }
        (one, other)
    }

    #[cold]
    fn sample_exactly(&self, rng: &mut dyn Entropy) -> u32 {
        let total = self.list.iter().map(|place| u64::from(self.host(*place).weight)).sum();
        let mut left = rng.below(total);
        for &place in self.list {
            let weight = u64::from(self.host(place).weight);
            if left < weight {
                return place;
            }
            left -= weight;
        }
        // All weights are 0.
        self.list[rng.below(self.list.len() as u64) as usize]
    }
}

/// Which policy a service uses.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Balancing {
    /// Two by chance, the better of them: [`PeakEwma`].
    #[default]
    PeakEwma,
    /// [`WeightedRandom`].
    WeightedRandom,
    /// [`SmoothRoundRobin`].
    SmoothRoundRobin,
    /// [`LeastActive`].
    LeastActive,
    /// [`Ring`], with bounded load.
    Ring,
    /// [`Maglev`], with bounded load.
    Maglev,
    /// By chance, and by what servers say of themselves: [`Reported`].
    Reported,
    /// [`Prequal`].
    Prequal(PrequalConfig),
    /// One of yours.
    Custom(Arc<dyn Fn() -> Box<dyn Balance> + Send + Sync>),
}

impl Balancing {
    pub(crate) fn build(&self) -> Box<dyn Balance> {
        match self {
            Balancing::PeakEwma => Box::new(PeakEwma::default()),
            Balancing::WeightedRandom => Box::new(WeightedRandom),
            Balancing::SmoothRoundRobin => Box::new(SmoothRoundRobin::default()),
            Balancing::LeastActive => Box::new(LeastActive::default()),
            Balancing::Ring => Box::new(Ring::default()),
            Balancing::Maglev => Box::new(Maglev::default()),
            Balancing::Reported => Box::new(Reported),
            Balancing::Prequal(config) => Box::new(Prequal::new(*config)),
            Balancing::Custom(build) => build(),
        }
    }
}

impl fmt::Debug for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balancing::PeakEwma => "PeakEwma",
            Balancing::WeightedRandom => "WeightedRandom",
            Balancing::SmoothRoundRobin => "SmoothRoundRobin",
            Balancing::LeastActive => "LeastActive",
            Balancing::Ring => "Ring",
            Balancing::Maglev => "Maglev",
            Balancing::Reported => "Reported",
            Balancing::Prequal(_) => "Prequal",
            Balancing::Custom(_) => "Custom",
        })
    }
}

/// Spreads the bits of a number.
pub(crate) fn mix(number: u64) -> u64 {
    SplitMix64::new(number).next_u64()
}

/// A number for a text: that of a method is as good for an instance.
pub(crate) fn hash(text: &str) -> u64 {
    mix(method_id(text))
}

/// How bad it is to choose an instance whose turn or luck alone decides.
fn score_of_weight(host: &HostStats) -> f64 {
    1.0 / f64::from(host.weight.max(1))
}

/// How bad it is to choose an instance whose load is bounded.
fn score_of_share(host: &HostStats) -> f64 {
    f64::from(host.in_flight.saturating_add(1)) / f64::from(host.full_weight.max(1))
}
