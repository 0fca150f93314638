//! The simulator as users have it: services, typed clients and handlers under faults.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ringcall::sim::{self, Fault, World};
use ringcall::{Items, MachineClock, Shard, Stream, View, message, service};
use ringcall_core::Clock as _;

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

const A_WHILE: Duration = Duration::from_millis(100);

/// A client that makes calls again although they may have run.
fn bank(remembers: bool) -> impl Fn(&mut World) {
    move |world: &mut World| {
        let disk = Rc::new(Disk::default());
        let kept = Rc::clone(&disk);
        world.server("ledger", move |shard| {
            shard.serve(Book { disk: Rc::clone(&kept), remembers }.into_ledger())
        });
        world.client("desk", move |shard| async move {
            let ledger = connected(&shard).await;
            for id in 0..20 {
                while ledger.add(&Entry { id, amount: 1 }).await.is_err() {
                    shard.sleep(A_WHILE).await;
                }
            }
            assert_eq!(disk.total.get(), 20, "each entry counts once");
        });
    }
}

async fn connected(shard: &Shard) -> LedgerClient<ringcall::LocalClient> {
    loop {
        match shard.connect("ledger").await {
            Ok(client) => return LedgerClient::new(client),
            Err(_) => shard.sleep(A_WHILE).await,
        }
    }
}

#[test]
fn a_planted_bug_is_found_made_smaller_and_repeated() {
    let failure = sim::find(0..500, bank(false)).expect_err("calls that may have run are repeated");
    assert!(failure.message.contains("each entry counts once"), "{failure}");
    let needed = Fault::ALL.iter().filter(|fault| failure.faults.has(**fault)).count();
    assert!((1..5).contains(&needed), "{failure}");
    assert!(failure.to_string().contains("RINGCALL_SIM_SEED="), "{failure}");
    // The same seed again, with what it needs only.
    let again = sim::find([failure.seed], |world| {
        bank(false)(world);
        for &fault in Fault::ALL.iter().filter(|fault| !failure.faults.has(**fault)) {
            world.without(fault);
        }
    });
    assert_eq!(again.expect_err("it fails again").message, failure.message);
}

#[test]
fn a_service_without_the_bug_holds() {
    let summary = sim::find(0..100, bank(true)).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(summary.seeds, 100);
    assert!(summary.faults > 500, "{summary:?}");
    let known = Fault::ALL.iter().filter(|fault| summary.kinds.has(**fault)).count();
    assert!(known > 20, "{summary:?}");
}

#[service]
trait Numbers {
    async fn count(&self, to: u64) -> impl Stream<Item = u64>;
    async fn sum(&self, numbers: Items<u64>) -> u64;
    #[method(offload)]
    async fn square(&self, of: u64) -> u64;
    async fn fail(&self, of: u64) -> u64;
}

#[derive(Clone, Copy)]
struct Plain;

struct Upwards(u64, u64);

impl Stream for Upwards {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        let next = (self.0 < self.1).then_some(self.0);
        self.0 += 1;
        Poll::Ready(next)
    }
}

impl Numbers for Plain {
    async fn count(&self, to: u64) -> impl Stream<Item = u64> {
        Upwards(0, to)
    }

    async fn sum(&self, mut numbers: Items<u64>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number;
        }
        sum
    }

    async fn square(&self, of: u64) -> u64 {
        of * of
    }

    async fn fail(&self, of: u64) -> u64 {
        assert!(of > 100, "{of} is too small");
        of
    }
}

fn serve_numbers(world: &mut World) {
    world.server("numbers", |shard| shard.serve(Plain.into_numbers()));
}

/// Leaves every fault out.
fn calm(world: &mut World) {
    for &fault in Fault::ALL {
        world.without(fault);
    }
}

/// What the failure of a seed says.
fn failure(setup: impl Fn(&mut World)) -> String {
    sim::find([7], setup).expect_err("it fails").to_string()
}

#[test]
fn clients_of_other_threads_streams_and_the_pool_are_simulated() {
    sim::check(0..60, |world| {
        serve_numbers(world);
        world.client("shared", |shard| async move {
            let client = NumbersClient::connect("numbers").await;
            let Ok(numbers) = client else { return };
            for of in 0..20 {
                if let Ok(square) = numbers.square(&of).await {
                    assert_eq!(square.to_native(), of * of);
                }
                shard.sleep(A_WHILE).await;
            }
        });
        world.client("streams", |shard| async move {
            let Ok(client) = shard.connect("numbers:7000").await else { return };
            let numbers = NumbersClient::new(client);
            for to in 0..20 {
                let Ok(mut items) = numbers.count(&to).await else { continue };
                let mut next = 0;
                while let Some(Ok(item)) = items.next().await {
                    assert_eq!(item.to_native(), next, "items are in order");
                    next += 1;
                }
                let Ok(mut upload) = numbers.sum().await else { continue };
                let mut all_sent = true;
                for number in 0..to {
                    all_sent &= upload.send(&number).await.is_ok();
                }
                if let Ok(sum) = upload.finish().await {
                    assert!(all_sent);
                    assert_eq!(sum.to_native(), (0..to).sum::<u64>());
                }
            }
        });
    });
}

#[test]
fn an_hour_of_the_simulation_takes_no_time() {
    sim::check([1], |world| {
        calm(world);
        world.chaos(Duration::from_secs(3600));
        world.client("sleeper", |shard| async move {
            let began = MachineClock.now();
            shard.sleep(Duration::from_secs(3500)).await;
            let slept = MachineClock.now().since(began);
            assert!(slept >= Duration::from_secs(3500) && slept < Duration::from_secs(3501));
        });
    });
}

#[test]
fn a_handler_that_panics_is_a_failure_unless_it_may() {
    let call = |world: &mut World| {
        calm(world);
        serve_numbers(world);
        world.client("desk", |shard| async move {
            let client = shard.connect("numbers").await.expect("there are no faults");
            let failed = NumbersClient::new(client).fail(&5).await.expect_err("it panics");
            assert!(failed.to_string().contains("without an answer"), "{failed}");
        });
    };
    let said = failure(call);
    assert!(said.contains("5 is too small"), "{said}");
    assert!(said.contains("RINGCALL_SIM_FAULTS=none"), "{said}");
    sim::check([7], |world| {
        call(world);
        world.allow_panics();
    });
}

#[test]
fn whoever_waits_for_ever_is_named() {
    let said = failure(|world| {
        calm(world);
        world.client("patient", |_| std::future::pending());
        world.client("quick", |_| async {});
    });
    assert!(said.contains("patient has not ended"), "{said}");
}

#[test]
fn what_blocks_and_what_spins_is_told() {
    let said = failure(|world| {
        calm(world);
        serve_numbers(world);
        world.client("blocks", |_| async {
            let _never = NumbersClient::connect("numbers").wait();
        });
    });
    assert!(said.contains("nothing may block in a simulation"), "{said}");
    let said = failure(|world| {
        calm(world);
        world.client("spins", |_| {
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        });
    });
    assert!(said.contains("round in circles"), "{said}");
}

#[test]
fn what_keeps_something_between_two_runs_is_told() {
    let runs = Cell::new(0);
    let said = failure(|world| {
        calm(world);
        runs.set(runs.get() + 1);
        let wait = Duration::from_millis(runs.get());
        world.client("sleeper", move |shard| async move { shard.sleep(wait).await });
    });
    assert!(said.contains("does something else the second time"), "{said}");
}

#[test]
fn an_answer_that_another_run_does_not_give_is_told() {
    let runs = Rc::new(Cell::new(0));
    let said = failure(|world| {
        calm(world);
        runs.set(runs.get() + 1);
        let run = runs.get();
        serve_numbers(world);
        world.client("desk", move |shard| async move {
            let client = shard.connect("numbers").await.expect("there are no faults");
            let square = NumbersClient::new(client).square(&run).await;
            assert_eq!(square.expect("nor here").to_native(), run * run);
        });
    });
    assert!(said.contains("does something else the second time"), "{said}");
}

#[test]
fn names_that_nobody_has_are_told() {
    let said = failure(|world| {
        calm(world);
        serve_numbers(world);
        world.client("lost", |shard| async move {
            let failed = shard.connect("nombres").await.expect_err("there is no such node");
            assert!(failed.is_safe_to_retry(), "{failed}");
            panic!("as it should: {failed}");
        });
    });
    assert!(said.contains("as it should"), "{said}");
}

#[cfg(feature = "cluster")]
mod cluster {
    use std::collections::BTreeMap;

    use ringcall::cluster::discovery::{Instance, Listing};
    use ringcall::cluster::{Balanced, LocalClients, Settings};
    use ringcall::{CallError, FailureClass};

    use super::*;

    #[service]
    trait Till {
        /// Must not be done twice.
        async fn pay(&self, id: u64) -> u64;
    }

    /// How many times each payment was made.
    type Paid = Rc<RefCell<BTreeMap<u64, u32>>>;

    struct Drawer(Paid);

    impl Till for Drawer {
        async fn pay(&self, id: u64) -> u64 {
            *self.0.borrow_mut().entry(id).or_default() += 1;
            id
        }
    }

    #[test]
    fn a_balanced_channel_pays_at_most_once_and_loses_nothing_that_was_acknowledged() {
        let unknown = Rc::new(Cell::new(0));
        sim::check(0..60, |world| {
            let paid = Paid::default();
            for name in ["a", "b", "c"] {
                let paid = Paid::clone(&paid);
                world
                    .server(name, move |shard| shard.serve(Drawer(Paid::clone(&paid)).into_till()));
            }
            let instances =
                ["a", "b", "c"].map(|name| Instance::new("till", name, world.address(name)));
            let unknown = Rc::clone(&unknown);
            world.client("desk", move |shard| async move {
                let connector = LocalClients::new(&shard);
                let balanced = Balanced::new(connector, Settings::new()).expect("defaults");
                balanced.apply(&Listing::of(1, instances));
                let till = TillClient::new(balanced);
                for id in 0..100 {
                    let outcome = till.pay(&id).await;
                    let times = paid.borrow().get(&id).copied().unwrap_or(0);
                    match outcome {
                        Ok(_) => assert_eq!(times, 1, "payment {id} was acknowledged"),
                        Err(CallError::Failed(failure))
                            if failure.class != FailureClass::Unknown =>
                        {
                            assert_eq!(times, 0, "payment {id} did not run: {failure}");
                        }
                        Err(_) => unknown.set(unknown.get() + 1),
                    }
                    shard.sleep(Duration::from_millis(20)).await;
                }
                shard.sleep(Duration::from_secs(60)).await;
                assert!(paid.borrow().values().all(|times| *times == 1), "nothing is paid twice");
            });
        });
        assert!(unknown.get() > 0, "some calls were cut off in the middle");
    }

    #[test]
    fn streams_over_a_balanced_channel_are_whole_or_fail_and_none_is_counted_for_ever() {
        let (whole, broken) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counts = (Rc::clone(&whole), Rc::clone(&broken));
        sim::check(0..40, move |world| {
            for name in ["a", "b", "c"] {
                world.server(name, |shard| shard.serve(Plain.into_numbers()));
            }
            let instances =
                ["a", "b", "c"].map(|name| Instance::new("numbers", name, world.address(name)));
            let (whole, broken) = (Rc::clone(&counts.0), Rc::clone(&counts.1));
            world.client("desk", move |shard| async move {
                let connector = LocalClients::new(&shard);
                let balanced = Balanced::new(connector, Settings::new()).expect("defaults");
                balanced.apply(&Listing::of(1, instances));
                let numbers = NumbersClient::new(balanced.clone());
                for to in 0..30 {
                    let count = match down(&numbers, to).await {
                        Ok(counted) => {
                            assert!(counted.iter().copied().eq(0..to), "{counted:?}");
                            &whole
                        }
                        Err(_) => &broken,
                    };
                    count.set(count.get() + 1);
                    if let Ok(sum) = up(&numbers, to).await {
                        assert_eq!(sum, (0..to).sum::<u64>());
                    }
                    shard.sleep(Duration::from_millis(20)).await;
                }
                let hosts = balanced.explain(0).hosts;
                assert!(hosts.iter().all(|host| host.in_flight == 0), "{hosts:?}");
            });
        });
        assert!(whole.get() > broken.get(), "{} of {}", broken.get(), whole.get());
        assert!(broken.get() > 0, "some streams were cut off in the middle");
    }

    type Client = NumbersClient<Balanced<LocalClients>>;

    async fn down(numbers: &Client, to: u64) -> Result<Vec<u64>, CallError> {
        let mut items = numbers.count(&to).await?;
        let mut counted = Vec::new();
        while let Some(number) = items.next().await {
            counted.push(number?.to_native());
        }
        Ok(counted)
    }

    async fn up(numbers: &Client, to: u64) -> Result<u64, CallError> {
        let mut upload = numbers.sum().deadline(Duration::from_secs(20)).await?;
        for number in 0..to {
            upload.send(&number).await?;
        }
        Ok(upload.finish().await?.to_native())
    }
}
