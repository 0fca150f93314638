//! A part of a large fleet for each caller, so that nobody has connections to all of it.

use std::fmt;
use std::sync::Arc;

use crate::balance::hash;
use crate::discovery::{Instance, Listed, Listing};
use crate::settings::{BadSetting, within};

/// Which part of the instances this caller uses (Finagle's deterministic aperture).
///
/// The instances lie on a ring, in an order that all callers know, each with an arc as wide as its weight. The callers
/// divide the same ring into equal arcs: this one begins at `index` of `peers`. It uses the instances under as many
/// whole arcs of callers as have `instances_min` of them at least. So each point of the ring is under equally many
/// callers, and instances that lie there in part get that part of their weight: load is even over instances if it is
/// even over callers, which chance would not make it.
///
/// All callers must have the same list and the same `peers`, each an `index` of its own. Where they differ for a while,
/// load is a bit less even, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Aperture {
    /// Which of the callers this one is, from 0.
    pub index: u32,
    /// How many callers there are.
    pub peers: u32,
    /// How many instances of ordinary weight it uses at least, if there are so many: 12.
    #[cfg_attr(feature = "serde", serde(default = "instances_min"))]
    pub instances_min: u32,
}

const fn instances_min() -> u32 {
    12
}

impl Aperture {
    /// The `index`th of so many callers, counted from 0.
    #[must_use]
    pub fn of(index: u32, peers: u32) -> Aperture {
        Aperture { index, peers, instances_min: instances_min() }
    }

    pub(crate) fn check(&self) -> Result<(), BadSetting> {
        within("aperture.peers", self.peers, 1..=1_000_000, "1 to 1000000")?;
        within("aperture.index", self.index, 0..=self.peers - 1, "less than aperture.peers")?;
        within("aperture.instances_min", self.instances_min, 1..=10_000, "1 to 10000")
    }
}

/// Says which part of a list a caller uses: an [`Aperture`], or one of yours. Asked of every list, before connections to those
/// that are new in it are opened.
pub trait AperturePolicy: Send + Sync + fmt::Debug {
    /// What of a list is for this caller, perhaps with other weights. It has the version and revision of the list that it
    /// is a part of.
    fn narrow(&self, listing: &Listing) -> Listing;
}

impl AperturePolicy for Aperture {
    /// Of a list with hardly more instances than it uses it is the whole list.
    fn narrow(&self, listing: &Listing) -> Listing {
        let (peers, all) = (u128::from(self.peers.max(1)), &listing.instances);
        let weights: u128 = all.iter().map(|it| u128::from(it.instance.weight)).sum();
        let weighted = all.iter().filter(|it| it.instance.weight > 0).count() as u128;
        // In whole arcs of callers, rounded up.
        let arcs = (u128::from(self.instances_min) * peers).div_ceil(weighted.max(1));
        if arcs >= peers || weights == 0 {
            return listing.clone();
        }
        // A unit of weight is as many parts of the ring as there are callers, so that their arcs are whole numbers.
        let begin = u128::from(self.index) % peers * weights;
        let (end, ring) = (begin + arcs * weights, weights * peers);
        let mut at = 0;
        let mut kept: Vec<Listed> = Vec::new();
        for place in in_ring_order(all) {
            let listed = &all[place];
            let weight = u128::from(listed.instance.weight);
            let next = at + weight * peers;
            // The aperture may go past the end of the ring, and over its beginning.
            let under = overlap(at, next, begin, end) + overlap(at + ring, next + ring, begin, end);
            at = next;
            if under > 0 {
                kept.push(with_weight(listed, under.div_ceil(peers) as u32));
            }
        }
        kept.sort_by(|one, other| one.instance.name.cmp(&other.instance.name));
        Listing { instances: kept.into(), ..listing.clone() }
    }
}

/// By a number for each name: neighbours in the list may share a rack.
fn in_ring_order(all: &[Listed]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_cached_key(|place| {
        let name = &all[*place].instance.name;
        (hash(name), name.clone())
    });
    order
}

fn overlap(from: u128, to: u128, begin: u128, end: u128) -> u128 {
    to.min(end).saturating_sub(from.max(begin))
}

fn with_weight(listed: &Listed, weight: u32) -> Listed {
    if listed.instance.weight == weight {
        return listed.clone();
    }
    let instance = Instance::clone(&listed.instance).with_weight(weight);
    Listed { instance: Arc::new(instance), ..listed.clone() }
}
