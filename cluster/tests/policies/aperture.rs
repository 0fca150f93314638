//! Which part of a fleet each caller uses.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::{Aperture, AperturePolicy as _};

fn listing(weights: &[u32]) -> Listing {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let instance = |(n, weight): (usize, &u32)| {
        Instance::new("s", format!("i{n}"), address).with_weight(*weight)
    };
    Listing::of(7, weights.iter().enumerate().map(instance))
}

fn of(index: u32, peers: u32, instances_min: u32) -> Aperture {
    let mut aperture = Aperture::of(index, peers);
    aperture.instances_min = instances_min;
    aperture
}

/// What load all callers together put on each instance, if each of them makes one call.
fn load(all: &Listing, peers: u32, instances_min: u32) -> BTreeMap<String, f64> {
    let mut load: BTreeMap<String, f64> =
        all.instances.iter().map(|it| (it.instance.name.clone(), 0.0)).collect();
    for index in 0..peers {
        let narrow = of(index, peers, instances_min).narrow(all);
        let total: u32 = narrow.instances.iter().map(|it| it.instance.weight).sum();
        for it in narrow.instances.iter() {
            *load.get_mut(&it.instance.name).unwrap() +=
                f64::from(it.instance.weight) / f64::from(total);
        }
    }
    load
}

proptest! {
    #[test]
    fn load_is_even_over_callers_and_instances(
        instances in 1usize..80, peers in 1u32..60, instances_min in 1u32..30,
    ) {
        let all = listing(&vec![100; instances]);
        let expected = f64::from(peers) / instances as f64;
        for (name, load) in load(&all, peers, instances_min) {
            // Weights are whole numbers: what lies at the ends is rounded by a hundredth.
            prop_assert!((load / expected - 1.0).abs() < 0.03, "{name}: {load} of {expected}");
        }
    }

    #[test]
    fn load_goes_by_weights(
        weights in proptest::collection::vec(50u32..5000, 20..60), peers in 1u32..40,
    ) {
        let all = listing(&weights);
        let total: u32 = weights.iter().sum();
        let load = load(&all, peers, 10);
        for it in all.instances.iter() {
            let expected = f64::from(it.instance.weight) * f64::from(peers) / f64::from(total);
            let load = load[&it.instance.name];
            prop_assert!((load / expected - 1.0).abs() < 0.06, "{load} of {expected}");
        }
    }

    #[test]
    fn there_are_enough_instances_and_not_many_more(
        instances in 1usize..200, peers in 1u32..200, index in 0u32..200, instances_min in 1u32..40,
    ) {
        let all = listing(&vec![100; instances]);
        let narrow = of(index % peers, peers, instances_min).narrow(&all);
        let least = (instances_min as usize).min(instances);
        // A whole arc of callers more, and one instance at each end.
        let most = least + instances.div_ceil(peers as usize) + 2;
        prop_assert!((least..=most.min(instances).max(least)).contains(&narrow.instances.len()));
        prop_assert_eq!(narrow.version, all.version);
        prop_assert!(narrow.instances.is_sorted_by_key(|it| &it.instance.name));
    }
}

#[test]
fn an_instance_at_the_end_of_two_apertures_is_shared() {
    // Three instances for two callers: each has one of its own, and half of the third.
    let all = listing(&[100; 3]);
    let weights = |index| {
        let narrow = of(index, 2, 1).narrow(&all);
        let mut weights: Vec<u32> = narrow.instances.iter().map(|it| it.instance.weight).collect();
        weights.sort_unstable();
        weights
    };
    assert_eq!((weights(0), weights(1)), (vec![50, 100], vec![50, 100]));
}

#[test]
fn a_short_list_stays_whole() {
    let all = listing(&[100; 12]);
    assert_eq!(Aperture::of(3, 10).narrow(&all), all);
    assert_eq!(Aperture::of(3, 10).narrow(&listing(&[])), listing(&[]));
    let none = listing(&[0; 40]);
    assert_eq!(Aperture::of(3, 10).narrow(&none), none, "nobody takes calls");
}
