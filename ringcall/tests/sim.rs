//! The simulator as users have it: services, typed clients and handlers under faults.
#![cfg(feature = "sim")]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use ringcall::sim::{self, Fault, World};
use ringcall::{View, message, service};

#[message]
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    id: u64,
    amount: u64,
}

#[service]
trait Ledger {
    /// Adds to the account; what its total is then.
    async fn add(&self, entry: View<Entry>) -> u64;
    #[method(idempotent)]
    async fn total(&self) -> u64;
}

/// What a crash does not take.
#[derive(Default)]
struct Disk {
    total: Cell<u64>,
    seen: RefCell<HashSet<u64>>,
}

/// Counts an entry as often as it is told, unless it remembers which it has.
struct Book {
    disk: Rc<Disk>,
    remembers: bool,
}

impl Ledger for Book {
    async fn add(&self, entry: View<Entry>) -> u64 {
        let is_new = self.disk.seen.borrow_mut().insert(entry.id.to_native());
        if is_new || !self.remembers {
            self.disk.total.set(self.disk.total.get() + entry.amount.to_native());
        }
        self.disk.total.get()
    }

    async fn total(&self) -> u64 {
        self.disk.total.get()
    }
}

/// A client that makes calls again although they may have run.
fn bank(remembers: bool) -> impl Fn(&mut World) {
    move |world: &mut World| {
        let disk = Rc::new(Disk::default());
        let kept = Rc::clone(&disk);
        world.server("ledger", move |shard| {
            shard.serve(Book { disk: Rc::clone(&kept), remembers }.into_ledger())
        });
        world.client("desk", move |shard| async move {
            let ledger = loop {
                match shard.connect("ledger").await {
                    Ok(client) => break LedgerClient::new(client),
                    Err(_) => shard.sleep(Duration::from_millis(100)).await,
                }
            };
            for id in 0..20 {
                while ledger.add(&Entry { id, amount: 1 }).await.is_err() {
                    shard.sleep(Duration::from_millis(100)).await;
                }
            }
            assert_eq!(disk.total.get(), 20, "each entry counts once");
        });
    }
}

#[test]
fn a_planted_bug_is_found_made_smaller_and_repeated() {
    let failure = sim::find(0..500, bank(false)).expect_err("calls that may have run are made again");
    assert!(failure.message.contains("each entry counts once"), "{failure}");
    let needs = failure.needs.expect("it was made smaller");
    assert!(needs != Default::default(), "{failure}");
    assert!(failure.to_string().contains("RINGCALL_SIM_SEED="), "{failure}");
    // The same seed again, with what it needs only.
    let again = sim::find(failure.seed..=failure.seed, |world| {
        bank(false)(world);
        for &fault in Fault::ALL.iter().filter(|fault| failure.without.has(**fault)) {
            world.without(fault);
        }
    });
    assert_eq!(again.expect_err("it fails again").message, failure.message);
}

#[test]
fn a_service_without_the_bug_holds() {
    let summary = sim::find(0..200, bank(true)).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(summary.seeds, 200);
    assert!(summary.faults > 1000, "{summary:?}");
}
