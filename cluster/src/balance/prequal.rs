//! By what servers said of themselves lately: those that are hot are avoided, and of the others the fastest is taken.

use std::time::Duration;

use ringcall_core::{Entropy, Instant};

use super::idle::Idle;
use super::p2c::{failing, latency};
use super::{Balance, Candidates, HostStats};
use crate::settings::{BadSetting, percent, time, within};

/// How [`Prequal`] chooses. `docs/CLUSTER.md` says how this differs from the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct PrequalConfig {
    /// Of what servers say, so many in a hundred count as cold, the others, which are busier, as hot: 84. With 0 only
    /// how busy they are decides, with 100 only how fast they are.
    pub cold_percent: u32,
    /// Reports that are kept at most, of those that calls to the same instances go by: 16.
    pub pool_max: u32,
    /// How many instances each call looks at for a new report: 3.
    pub looks: u32,
    /// How many calls go by one report at most: 2.
    pub reuse_max: u32,
    /// A report is of no use after so long: 1 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub age_max: Duration,
    /// How many instances are asked how busy they are, in percent of the calls: 0, none; at most 1000, ten a call. The
    /// paper has 300. Fewer are asked if there are not as many of which nothing was heard for half of `age_max`.
    pub probe_percent: u32,
    /// And so many a second at most: 200.
    pub probes_per_s_max: u32,
}

impl Default for PrequalConfig {
    fn default() -> PrequalConfig {
        PrequalConfig {
            cold_percent: 84,
            pool_max: 16,
            looks: 3,
            reuse_max: 2,
            age_max: Duration::from_secs(1),
            probe_percent: 0,
            probes_per_s_max: 200,
        }
    }
}

impl PrequalConfig {
    pub(crate) fn check(&self) -> Result<(), BadSetting> {
        percent("prequal.cold_percent", self.cold_percent)?;
        within("prequal.pool_max", self.pool_max, 2..=1024, "2 to 1024")?;
        within("prequal.looks", self.looks, 1..=64, "1 to 64")?;
        within("prequal.reuse_max", self.reuse_max, 1..=1_000_000, "1 to 1000000")?;
        time("prequal.age_max", self.age_max)?;
        within("prequal.probe_percent", self.probe_percent, 0..=1000, "0 to 1000")?;
        within("prequal.probes_per_s_max", self.probes_per_s_max, 1..=100_000, "1 to 100000")
    }
}

/// The hot-cold rule of Prequal (Wydrowski and others, NSDI 2024) over a pool of reports, each of which is an answer's:
/// how busy its server was, and how long it took. Besides, instances of which nothing was heard of late may be asked how
/// busy they are ([`probe_percent`](PrequalConfig::probe_percent)).
///
/// A report is hot if its instance is busier than most reports of late. If all in the pool are hot, the least busy
/// instance gets the call, else the fastest of those that are not. Reports get old, and few calls go by each, so that
/// callers do not all choose what one of them has just found idle. With less than two reports it is the better of two
/// by chance. Which instances chance looks at goes by their weights.
#[derive(Clone, Debug)]
pub struct Prequal {
    config: PrequalConfig,
    pool: Vec<Report>,
    /// From when the last report of each place is.
    taken: Vec<Instant>,
    /// When each place was last asked.
    asked: Vec<Instant>,
    /// By the list that calls were chosen from; the one of the last call is `list`.
    loads: Vec<Loads>,
    list: usize,
    idle: Idle,
    pace: Pace,
    picks: u64,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    place: u32,
    /// When the answer came, or when it was asked for if that is all that it says.
    at: Instant,
    uses: u32,
    /// How busy the instance is counts among the others of its list.
    is_counted: bool,
}

/// So many calls lose a report, besides those that are used up: the oldest and the worst in turn. Otherwise what
/// nobody wants would fill the pool.
const CALLS_A_REMOVAL: u64 = 4;

impl Prequal {
    /// With these settings, of which those that make no sense are taken for the nearest that do.
    #[must_use]
    pub fn new(config: PrequalConfig) -> Prequal {
        let config = PrequalConfig {
            cold_percent: config.cold_percent.min(100),
            pool_max: config.pool_max.clamp(2, 1024),
            looks: config.looks.clamp(1, 64),
            reuse_max: config.reuse_max.max(1),
            age_max: config.age_max,
            probe_percent: config.probe_percent.min(1000),
            probes_per_s_max: config.probes_per_s_max.clamp(1, 100_000),
        };
        Prequal {
            config,
            pool: Vec::new(),
            taken: Vec::new(),
            asked: Vec::new(),
            loads: vec![Loads::default()],
            list: 0,
            idle: Idle::default(),
            pace: Pace::default(),
            picks: 0,
        }
    }

    /// Looks for new reports. Gives an instance of which nothing is known yet and that has no call.
    fn look(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
    ) -> Option<u32> {
        let mut unknown = None;
        for _ in 0..self.config.looks {
            let place = candidates.sample(rng);
            let host = candidates.host(place);
            if host.is_unknown() {
                unknown = unknown.or((host.in_flight == 0).then_some(place));
            } else if now.since(host.seen()) <= self.config.age_max {
                self.take(place, host.seen());
            }
        }
        unknown
    }

    /// Takes a report from this time, unless there was one that is not older.
    fn take(&mut self, place: u32, at: Instant) {
        let taken = of(&mut self.taken, place);
        if *taken >= at {
            return;
        }
        *taken = at;
        self.pool.retain(|report| report.place != place);
        // The oldest comes first.
        self.pool.push(Report { place, at, uses: 0, is_counted: false });
    }

    /// Finds what is known of the list that a call is chosen from, counts what is new in the pool, and drops what is too
    /// much in it. There may be calls that go to others: their reports stay.
    fn turn_to(&mut self, candidates: &Candidates<'_>) {
        self.list = self.find_list(candidates);
        let (load, cold_percent) = (&mut self.loads[self.list], self.config.cold_percent);
        load.used = self.picks;
        load.picks += 1;
        let mut count = 0;
        for report in self.pool.iter_mut().filter(|report| candidates.contains(report.place)) {
            count += 1;
            if !std::mem::replace(&mut report.is_counted, true) {
                load.push(busy(candidates.host(report.place)), cold_percent);
            }
        }
        for _ in self.config.pool_max..count {
            self.remove_oldest(candidates);
        }
    }

    fn find_list(&mut self, candidates: &Candidates<'_>) -> usize {
        let list = ends(candidates);
        let found = self.loads.iter().position(|load| load.list == list);
        found.unwrap_or_else(|| {
            let new = Loads { list, ..Loads::default() };
            if self.loads.len() < LISTS_MAX {
                self.loads.push(new);
                return self.loads.len() - 1;
            }
            let all = self.loads.iter().enumerate();
            let oldest = all.min_by_key(|(_, load)| load.used).map_or(0, |(at, _)| at);
            self.loads[oldest] = new;
            oldest
        })
    }

    fn remove_oldest(&mut self, candidates: &Candidates<'_>) {
        if let Some(at) = self.pool.iter().position(|report| candidates.contains(report.place)) {
            self.pool.remove(at);
        }
    }

    /// Whether an instance is to be asked: nothing was heard of it for so long that there is hardly a report left. Of
    /// one of which nothing is known a call says more.
    fn is_unheard(&mut self, now: Instant, place: u32, host: &HostStats) -> bool {
        let last = host.seen().max(*of(&mut self.asked, place));
        !host.is_unknown() && now.since(last) >= self.config.age_max / 2
    }

    /// Which report of the pool a call goes by.
    fn best(&self, now: Instant, candidates: &Candidates<'_>) -> Option<usize> {
        self.by_rank(now, candidates, |one, other| one < other)
    }

    fn by_rank(
        &self,
        now: Instant,
        candidates: &Candidates<'_>,
        is_wanted: impl Fn(f64, f64) -> bool,
    ) -> Option<usize> {
        let mut found: Option<(usize, f64)> = None;
        let pool = self.pool.iter().enumerate();
        for (at, report) in pool.filter(|(_, report)| candidates.contains(report.place)) {
            let score = self.score(now, candidates.host(report.place));
            if found.is_none_or(|(_, best)| is_wanted(score, best)) {
                found = Some((at, score));
            }
        }
        found.map(|(at, _)| at)
    }

    fn remove_one(&mut self, now: Instant, is_worst: bool, candidates: &Candidates<'_>) {
        // The best of a few is all that there is.
        if self.reports(candidates) <= 2 {
            return;
        }
        match self.by_rank(now, candidates, |one, other| one > other) {
            Some(worst) if is_worst => drop(self.pool.remove(worst)),
            _ => self.remove_oldest(candidates),
        }
    }

    /// How many there are of these.
    fn reports(&self, candidates: &Candidates<'_>) -> usize {
        self.pool.iter().filter(|report| candidates.contains(report.place)).count()
    }
}

impl Default for Prequal {
    fn default() -> Prequal {
        Prequal::new(PrequalConfig::default())
    }
}

impl Balance for Prequal {
    fn rebuild(&mut self, _hosts: &[HostStats], _live: &[u32]) {
        // A place may be another's.
        self.pool.clear();
        self.taken.clear();
        self.asked.clear();
    }

    fn wants_load_probes(&self) -> bool {
        self.config.probe_percent > 0
    }

    fn load_probes(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        places: &mut Vec<u32>,
    ) {
        let all = candidates.places();
        for _ in 0..self.pace.call(self.config.probe_percent) {
            // Whatever their weights: one that gets few calls is heard of least.
            let place = all[rng.below(all.len() as u64) as usize];
            if self.is_unheard(now, place, candidates.host(place))
                && self.pace.may(now, self.config.probes_per_s_max)
            {
                *of(&mut self.asked, place) = now;
                places.push(place);
            }
        }
    }

    fn load_probed(&mut self, asked: Instant, place: u32, _host: &HostStats) {
        self.take(place, asked);
    }

    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        if let Some(idle) = self.idle.next(now, candidates) {
            return idle;
        }
        self.picks += 1;
        let unknown = self.look(now, rng, candidates);
        let PrequalConfig { age_max, reuse_max, .. } = self.config;
        self.pool.retain(|report| now.since(report.at) <= age_max && report.uses < reuse_max);
        self.turn_to(candidates);
        if let Some(unknown) = unknown {
            return unknown;
        }
        let picks = self.loads[self.list].picks;
        if picks.is_multiple_of(CALLS_A_REMOVAL) {
            let is_worst = (picks / CALLS_A_REMOVAL).is_multiple_of(2);
            self.remove_one(now, is_worst, candidates);
        }
        match self.best(now, candidates) {
            Some(best) if self.reports(candidates) >= 2 => {
                self.pool[best].uses += 1;
                self.pool[best].place
            }
            _ => {
                let (one, other) = candidates.sample_two(rng);
                let score = |place: u32| self.score(now, candidates.host(place));
                if score(other) < score(one) { other } else { one }
            }
        }
    }

    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        let busy = busy(host);
        match busy > self.loads[self.list].hot {
            true => HOT + busy,
            false => (latency(host) + failing(now, host)).min(HOT),
        }
    }
}

/// What is known of a place.
fn of(times: &mut Vec<Instant>, place: u32) -> &mut Instant {
    let at = place as usize;
    if times.len() <= at {
        times.resize(at + 1, Instant::ZERO);
    }
    &mut times[at]
}

/// How many instances are asked.
#[derive(Clone, Debug, Default)]
struct Pace {
    /// What calls are still good for, in hundredths.
    owed: u32,
    /// When the next one would be asked if they were asked evenly.
    due: Instant,
}

/// So many more than evenly may be asked at once.
const AT_ONCE: u32 = 16;

impl Pace {
    /// A call begins: how many it is good for.
    fn call(&mut self, percent: u32) -> u32 {
        self.owed += percent;
        let whole = self.owed / 100;
        self.owed %= 100;
        whole
    }

    /// Whether one more may be asked now.
    fn may(&mut self, now: Instant, per_s_max: u32) -> bool {
        let pause = Duration::from_secs(1) / per_s_max;
        let may = self.due <= now + pause * (AT_ONCE - 1);
        if may {
            self.due = self.due.max(now) + pause;
        }
        may
    }
}

/// Above what any call that is cold may cost: seventeen minutes, in nanoseconds.
const HOT: f64 = 1e12;

/// How busy an instance is, in calls: those of this side that are under way, and, if it says how busy it is, so many as
/// if it could do a thousand at a time.
fn busy(host: &HostStats) -> f64 {
    let own = f64::from(host.in_flight) * 10_000.0 / f64::from(host.weight.max(1));
    own + f64::from(host.load) * 1000.0
}

/// By what a list of candidates is known: how many there are, the first and the last of them.
type Ends = (usize, u32, u32);

fn ends(candidates: &Candidates<'_>) -> Ends {
    let places = candidates.places();
    let at = |place: Option<&u32>| place.copied().unwrap_or_default();
    (places.len(), at(places.first()), at(places.last()))
}

/// Calls that go to more different lists than this share what is known of these.
const LISTS_MAX: usize = 16;

/// How busy instances of a list were of which there were reports.
#[derive(Clone, Debug)]
struct Loads {
    list: Ends,
    /// The count of all calls when one was last chosen from the list, and how many were.
    used: u64,
    picks: u64,
    last: [f64; LOADS],
    count: usize,
    /// Who is busier is hot.
    hot: f64,
}

const LOADS: usize = 128;
/// The quantile is looked for each time that so many are new.
const LOADS_A_COUNT: usize = 16;

impl Default for Loads {
    fn default() -> Loads {
        let (last, hot) = ([0.0; LOADS], f64::INFINITY);
        Loads { list: Ends::default(), used: 0, picks: 0, last, count: 0, hot }
    }
}

impl Loads {
    fn push(&mut self, busy: f64, cold_percent: u32) {
        self.last[self.count % LOADS] = busy;
        self.count += 1;
        if cold_percent == 0 {
            self.hot = -1.0;
        } else if cold_percent < 100 && self.count.is_multiple_of(LOADS_A_COUNT) {
            let mut sorted = self.last;
            let known = &mut sorted[..self.count.min(LOADS)];
            let at = (known.len() - 1) * cold_percent as usize / 100;
            self.hot = *known.select_nth_unstable_by(at, f64::total_cmp).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_are_is_cold() {
        let mut loads = Loads::default();
        assert!(loads.hot.is_infinite(), "nothing is hot before something is known");
        (0..100).for_each(|busy| loads.push(f64::from(busy), 84));
        // Of the 96 that were known when it was last counted.
        assert_eq!(loads.hot, 79.0);
        (0..200).for_each(|_| loads.push(7.0, 84));
        assert_eq!(loads.hot, 7.0, "what was long ago is forgotten");
        loads.push(7.0, 0);
        assert!(loads.hot < 0.0, "all are hot");
    }
}
