//! By key: calls about the same thing go to the same instance.
//!
//! Two tables say which instance a key belongs to; with both, few keys move when an instance comes or goes.
//! Load is bounded (Mirrokni and others, 2016): an instance that has a quarter more calls under way than its
//! share gets no more, and the next one in the table does.

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats, mix, score_of_share};

/// Points of an instance with weight 100.
const POINTS: u64 = 160;
const POINTS_MAX: u64 = 4096;
/// Points of all instances together: 16 MiB. Where there would be more, each has fewer, one at least.
const ALL_POINTS_MAX: u64 = 1 << 20;
/// An instance may have so much more than its share.
const BOUND: f64 = 1.25;

/// A ring: each instance has points on it, and a key belongs to the next point.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Balance for Ring {
    fn rebuild(&mut self, hosts: &[HostStats], live: &[u32]) {
        self.points.clear();
        let all = live.iter().map(|place| points(&hosts[*place as usize])).sum::<u64>().max(1);
        // Rounded down; the ones that are rounded up are at most as many as there are instances.
        let room = ALL_POINTS_MAX.saturating_sub(live.len() as u64).max(1);
        for &place in live {
            let host = &hosts[place as usize];
            let wanted = points(host);
            let points =
                if all <= room { wanted } else { (wanted * room / all).max(wanted.min(1)) };
            let at = |n| (mix(host.key.wrapping_add(mix(n + 1))), place);
            self.points.extend((0..points).map(at));
        }
        self.points.sort_unstable();
    }

    fn pick(
        &mut self,
        _now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        key: Option<u64>,
    ) -> u32 {
        let Some(key) = key else { return candidates.sample(rng) };
        let first = self.points.partition_point(|(at, _)| *at < mix(key));
        let (before, after) = self.points.split_at(first);
        bounded(candidates, after.iter().chain(before).map(|(_, place)| *place))
            .unwrap_or_else(|| candidates.sample(rng))
    }

    fn score(&self, _now: Instant, host: &HostStats) -> f64 {
        score_of_share(host)
    }
}

/// How many points an instance should have.
fn points(host: &HostStats) -> u64 {
    (POINTS * u64::from(host.full_weight) / 10_000).min(POINTS_MAX)
}

/// A table that instances fill in turn, each in an order of its own (Eisenbud and others, 2016): more even than a
/// ring and faster, but more keys move.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    table: Vec<u32>,
}

/// Primes; the table has a hundred places for each instance, if it can.
const SIZES: [usize; 5] = [251, 1021, 4093, 16381, 65521];

impl Balance for Maglev {
    fn rebuild(&mut self, hosts: &[HostStats], live: &[u32]) {
        let weighted = live.iter().filter(|place| hosts[**place as usize].full_weight > 0);
        let filling: Vec<u32> = weighted.copied().collect();
        self.table.clear();
        if filling.is_empty() {
            return;
        }
        let wanted = filling.len() * 100;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(65521);
        self.table = fill(size, hosts, &filling);
    }

    fn pick(
        &mut self,
        _now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        key: Option<u64>,
    ) -> u32 {
        let Some(key) = key.filter(|_| !self.table.is_empty()) else {
            return candidates.sample(rng);
        };
        let first = (mix(key) % self.table.len() as u64) as usize;
        let (before, after) = self.table.split_at(first);
        bounded(candidates, after.iter().chain(before).copied())
            .unwrap_or_else(|| candidates.sample(rng))
    }

    fn score(&self, _now: Instant, host: &HostStats) -> f64 {
        score_of_share(host)
    }
}

const FREE: u32 = u32::MAX;

fn fill(size: usize, hosts: &[HostStats], filling: &[u32]) -> Vec<u32> {
    let prime = size as u64;
    let mut table = vec![FREE; size];
    let heaviest = filling.iter().map(|place| hosts[*place as usize].full_weight).max();
    let heaviest = u64::from(heaviest.unwrap_or(1));
    // Where each looks next, how far it steps, and how much of a turn it has saved.
    let mut turns: Vec<(u64, u64, u64)> = Vec::with_capacity(filling.len());
    for place in filling {
        let key = hosts[*place as usize].key;
        turns.push((mix(key) % prime, mix(key ^ 0x5bd1) % (prime - 1) + 1, 0));
    }
    let mut left = size;
    while left > 0 {
        for (place, (next, step, saved)) in filling.iter().zip(&mut turns) {
            *saved += u64::from(hosts[*place as usize].full_weight);
            if *saved < heaviest || left == 0 {
                continue;
            }
            *saved -= heaviest;
            while table[*next as usize] != FREE {
                *next = (*next + *step) % prime;
            }
            table[*next as usize] = *place;
            left -= 1;
        }
    }
    table
}

/// The first in this order that is a candidate and has not more than its share.
fn bounded(candidates: &Candidates<'_>, order: impl Iterator<Item = u32>) -> Option<u32> {
    let mut totals = None;
    let mut last = None;
    let mut first = None;
    for place in order {
        // Points of one instance often lie side by side.
        if last == Some(place) || !candidates.contains(place) {
            continue;
        }
        last = Some(place);
        first = first.or(last);
        let host = candidates.host(place);
        if host.in_flight == 0 {
            return Some(place);
        }
        let all = *totals.get_or_insert_with(|| candidates.totals());
        let in_flight = all.in_flight as f64 + 1.0;
        let share = in_flight * f64::from(host.full_weight) / (all.full_weight as f64).max(1.0);
        if f64::from(host.in_flight + 1) <= (BOUND * share).ceil() {
            return Some(place);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g18_the_points_of_many_are_bounded() {
        let mut hosts: Vec<HostStats> =
            (0..10_000).map(|n| HostStats::new(mix(n), 10_000)).collect();
        hosts.push(HostStats::new(mix(10_000), 1));
        hosts.push(HostStats::new(mix(10_001), 0));
        let live: Vec<u32> = (0..hosts.len() as u32).collect();
        let mut ring = Ring::default();
        ring.rebuild(&hosts, &live);
        assert!(ring.points.len() <= 1 << 20, "{}", ring.points.len());
        let of = |place| ring.points.iter().filter(|(_, at)| *at == place).count();
        assert!(of(0) > 90);
        assert_eq!((of(10_000), of(10_001)), (1, 0), "one at least, unless it takes no calls");
    }
}
