//! By chance, as what servers say of themselves weighs it.

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats};

/// One by chance, as often as its weight says, and less often the busier it is by its own account: a server's replies say
/// how much of what it can do it does ([`HostStats::load`]), and how long the call waited there and was worked on
/// ([`HostStats::waiting`]). Failing counts as being busy.
///
/// Unlike a choice of two by latency it does not go by how far away a server is, and it gives each call to any of them:
/// for servers in more than one place, or whose calls take so differently long that latency says little. Whoever says
/// nothing is taken to be idle, so all or none of a service's servers should say how busy they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reported;

/// How often chance is asked.
const TRIES: u32 = 8;
/// One that says it can do nothing more is still asked now and then, or nobody would hear when it can.
const FREE_MIN: f64 = 0.02;

impl Balance for Reported {
    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        // By rejection, which needs no sum over all of them that would have to be made anew with each answer. If all that
        // chance came to are busy, the least busy of these.
        let (mut best, mut most) = (candidates.places()[0], 0.0);
        for _ in 0..TRIES {
            let place = candidates.sample(rng);
            let free = free(now, candidates.host(place));
            if f64::from(rng.next_u64() as u32) < free * f64::from(u32::MAX) {
                return place;
            }
            if free > most {
                (best, most) = (place, free);
            }
        }
        best
    }

    fn wants_server_times(&self) -> bool {
        true
    }

    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        1.0 / (f64::from(host.weight.max(1)) * free(now, host))
    }
}

/// How much of an instance is free, from nearly nothing to 1.
fn free(now: Instant, host: &HostStats) -> f64 {
    let idle = 1.0 - f64::from(host.load).min(1.0);
    let at_once = 1.0 - f64::from(host.waiting()).min(1.0);
    (idle * at_once * (1.0 - host.errors(now))).max(FREE_MIN)
}
