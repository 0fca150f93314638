//! Seeds that once failed, some that never did, and that a seed is one run and no other.
#![allow(clippy::tests_outside_test_module, reason = "this is a file of tests")]

use ringcall_sim::{FaultSet, Options, run};

/// Seed, events, and faults that are off: one a line.
const SEEDS: &str = include_str!("seeds.txt");

#[test]
fn seeds_that_failed_once_hold() {
    let lines = SEEDS.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let mut n = 0;
    for line in lines {
        let mut words = line.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
        let (seed, events) = (number(), number());
        let without = FaultSet::parse(words.next().unwrap_or_default()).expect("names of faults");
        let options = Options { events, without, ..Options::default() };
        if let Err(failure) = run(seed, &options) {
            panic!("seed {seed} fails after {} events: {}", failure.events, failure.message);
        }
        n += 1;
    }
    assert!(n > 0);
}

#[test]
fn the_first_seeds_hold() {
    for seed in 0..40 {
        let options = Options { events: 2_000, ..Options::default() };
        if let Err(failure) = run(seed, &options) {
            panic!("seed {seed} fails after {} events: {}", failure.events, failure.message);
        }
    }
}

#[test]
fn a_seed_is_one_run_and_no_other() {
    let trace = |seed| run(seed, &Options::default()).expect("it holds").hash;
    for seed in [1, 2, 3] {
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(1), trace(2));
}
