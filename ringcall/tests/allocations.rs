//! What a warm call allocates and copies: nothing. One test only, since everything in the process
//! counts.
#![allow(clippy::print_stdout, reason = "figures, for whoever asks with --nocapture")]

#[path = "suite/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Cook, Kitchen, KitchenClient, Level, Order, OrderRef, bind, order};
use ringcall::limits::{Limits, QueueRule};
use ringcall::observe::{Event, Observer};
use ringcall::{
    Access, BlockingClient, Channel, Context, Credentials, Encoded, ShardConfig, View,
    WithCredentials, each,
};

#[ringcall::service]
trait Mirror {
    /// The reply is built from the message that was received, without owning it.
    async fn sum(&self, order: View<Order>) -> u64;
    /// The same message, of what is in its view.
    #[method(encoded)]
    async fn again(&self, order: View<Order>) -> Encoded<Order>;
    /// Looks at metadata and says some.
    async fn told(&self, cx: &Context, order: View<Order>) -> u64;
    /// The number that its caller was let in as.
    async fn whose(&self, cx: &Context) -> u64;
}

struct Sums;

impl Mirror for Sums {
    async fn sum(&self, order: View<Order>) -> u64 {
        order.levels.iter().map(|level| u64::from(level.size.to_native())).sum()
    }

    async fn again(&self, order: View<Order>) -> Encoded<Order> {
        Encoded::of(&OrderRef {
            id: order.id.to_native(),
            symbol: &order.symbol,
            levels: each(order.levels.iter().map(|level| Level {
                price: level.price.to_native(),
                size: level.size.to_native(),
            })),
            note: &order.note,
        })
    }

    async fn told(&self, cx: &Context, order: View<Order>) -> u64 {
        if let Some(value) = cx.metadata().get("key") {
            cx.reply_metadata("key", value);
        }
        order.levels.len() as u64
    }

    async fn whose(&self, cx: &Context) -> u64 {
        cx.principal().copied().unwrap_or_default()
    }
}

/// Counts the ends of calls.
#[derive(Default)]
struct Ends(AtomicU64);

impl Observer for Ends {
    fn observe(&self, event: &Event<'_>) {
        if matches!(event, Event::CallEnded(..)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Fewer without optimisation: one allocation in a thousand calls is seen either way.
const CALLS: u64 = if cfg!(debug_assertions) { 3_000 } else { 10_000 };

#[test]
fn a_warm_call_allocates_and_copies_nothing() {
    let server = bind(common::Socket::Tcp)
        .service(Sums.into_mirror())
        .service(Cook::default().into_kitchen())
        .start()
        .unwrap();
    let blocking = BlockingClient::connect(server.address()).unwrap();
    one_by_one("BlockingClient, one in flight", &MirrorClient::new(&blocking));
    many_at_a_time("BlockingClient, 64 in flight", &blocking);
    with_metadata(&MirrorClient::new(&blocking));
    encoded(&MirrorClient::new(&blocking));
    let shared = MirrorClient::connect(server.address()).wait().unwrap();
    one_by_one("Client on another thread, one in flight", &shared);
    assert_eq!(blocking.counters().copied_bytes(), 0);
    // Nor does one that is observed, on either side.
    let observer = Arc::new(Ends::default());
    let watched = bind(common::Socket::Tcp).service(Sums.into_mirror());
    let watched = watched.observer(observer.clone()).start().unwrap();
    let mut config = ShardConfig::default();
    config.observers.add(observer.clone());
    let observed = BlockingClient::connect_with(watched.address(), config).unwrap();
    one_by_one("BlockingClient, observed on both sides", &MirrorClient::new(&observed));
    assert!(observer.0.load(Ordering::SeqCst) >= 2 * CALLS);
    drop((observed, watched));
    // Nor one that a server with limits counts, and that waits among calls of other classes.
    let patient = QueueRule::new(Duration::from_secs(60), Duration::from_secs(600));
    let limits = Limits::default().queue(patient).concurrency(100).reserve(1, 20);
    let limited = bind(common::Socket::Tcp).service(Sums.into_mirror()).limits(limits);
    let limited = limited.start().unwrap();
    let caller = BlockingClient::connect(limited.address()).unwrap();
    many_at_a_time("BlockingClient, 64 in flight in two classes, limits", &caller);
    drop((caller, limited));
    as_somebody();
    // That the counter counts: an owned message has strings and vectors.
    let kitchen = KitchenClient::new(&blocking);
    let order = order(4);
    let owned = count(|| drop(kitchen.taste(&order).wait().unwrap()));
    assert!(owned > 0);
    drop((blocking, shared));
    assert_eq!(server.stop().copied_bytes(), 0);
}

/// Neither does one whose argument and reply are messages with texts and lists that nobody owns.
fn encoded(client: &MirrorClient<&BlockingClient>) {
    let order = order(4);
    let run = |calls| {
        for _ in 0..calls {
            let sent = Encoded::of(&OrderRef {
                id: order.id,
                symbol: order.symbol.as_str(),
                levels: &order.levels,
                note: order.note.as_deref(),
            });
            assert_eq!(client.again_encoded(&sent).wait().unwrap(), order);
        }
    };
    run(1000);
    let allocations = fewest(CALLS / 1000, || run(CALLS));
    println!("argument and reply of borrowed parts: {allocations} allocations in {CALLS} calls");
    assert!(allocations < CALLS / 1000, "{allocations} allocations in {CALLS} calls");
}

fn one_by_one<C>(what: &str, client: &MirrorClient<C>)
where
    C: Channel + ringcall::BlockOn,
    C::Body: ringcall::IntoOwned,
{
    let order = order(4);
    let run = |calls| {
        for _ in 0..calls {
            assert_eq!(client.sum(&order).wait().unwrap().to_native(), 6);
        }
    };
    run(1000);
    let allocations = fewest(CALLS / 1000, || run(CALLS));
    println!("{what}: {allocations} allocations in {CALLS} calls");
    // The threads of the machine's own libraries may allocate now and then; a call never does.
    assert!(allocations < CALLS / 1000, "{what}: {allocations} allocations in {CALLS} calls");
}

/// One allocation where metadata is written, none where it is read.
fn with_metadata(client: &MirrorClient<&BlockingClient>) {
    let order = order(4);
    let run = |calls, key: Option<&str>| {
        for _ in 0..calls {
            let call = client.told(&order);
            let call = match key {
                Some(key) => call.metadata(key, "value").metadata("other", "value"),
                None => call,
            };
            let reply = call.with_metadata().wait();
            assert_eq!(reply.metadata.get("key").is_some(), key == Some("key"));
        }
    };
    for (key, expected) in [(None, 0), (Some("unread"), 1), (Some("key"), 2)] {
        run(1000, key);
        let bound = CALLS * expected + CALLS / 1000;
        let allocations = fewest(bound, || run(CALLS, key));
        println!("with metadata {key:?}: {allocations} allocations in {CALLS} calls");
        assert!(allocations < bound, "{key:?}: {allocations}");
    }
}

/// Nothing for who has connected; for a call of somebody of its own what is known of him, and its extensions.
fn as_somebody() {
    let server = bind(common::Socket::Tcp).service(Sums.into_mirror());
    let server = server.authorize(|_| Access::allow_as(7_u64)).authorize_calls(|call| {
        call.credentials().map_or(Access::Allow, |_| Access::allow_as(8_u64))
    });
    let server = server.start().unwrap();
    let blocking = BlockingClient::connect(server.address()).unwrap();
    let own = WithCredentials::new(&blocking, &Credentials::new("token").unwrap());
    let connection = || MirrorClient::new(&blocking).whose().wait().unwrap().to_native();
    let call = || MirrorClient::new(&own).whose().wait().unwrap().to_native();
    let kinds: [(&dyn Fn() -> u64, u64, u64); 2] = [(&connection, 7, 0), (&call, 8, 2)];
    for (whose, expected, each) in kinds {
        let run = |calls| (0..calls).for_each(|_| assert_eq!(whose(), expected));
        run(1000);
        let bound = CALLS * each + CALLS / 1000;
        let allocations = fewest(bound, || run(CALLS));
        println!("as {expected}: {allocations} allocations in {CALLS} calls");
        assert!(allocations < bound, "{expected}: {allocations}");
    }
}

/// In two classes of priority.
fn many_at_a_time(what: &str, blocking: &BlockingClient) {
    let left = Rc::new(Cell::new(0));
    let running = Rc::new(Cell::new(64));
    let go = Rc::new(Cell::new(false));
    for task in 0..64 {
        let client = MirrorClient::new(blocking.local().clone());
        let (left, running, go) = (Rc::clone(&left), Rc::clone(&running), Rc::clone(&go));
        let shard = blocking.shard().clone();
        blocking.shard().spawn(async move {
            let order = order(task % 5);
            let sum: u64 = order.levels.iter().map(|level| u64::from(level.size)).sum();
            loop {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let call = client.sum(&order).priority((task % 2) as u8);
                    assert_eq!(call.await.unwrap().to_native(), sum);
                }
                if go.get() {
                    break;
                }
                shard.sleep(Duration::from_millis(1)).await;
            }
            running.set(running.get() - 1);
        });
    }
    let run = |calls| {
        left.set(calls);
        blocking.shard().run(|| left.get() > 0);
    };
    run(2000);
    let allocations = fewest(CALLS / 1000, || run(CALLS));
    println!("{what}: {allocations} allocations in {CALLS} calls");
    assert!(allocations < CALLS / 1000, "{what}: {allocations} allocations");
    go.set(true);
    blocking.shard().run(|| running.get() > 0);
}

fn count(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    work();
    ALLOCATIONS.load(Ordering::SeqCst) - before
}

/// The fewest of up to three rounds, until there are fewer than `bound`: what grows because more is under way than
/// ever before, on a machine that is busy, grows once.
fn fewest(bound: u64, work: impl Fn()) -> u64 {
    let first = count(&work);
    (0..2).fold(first, |fewest, _| if fewest < bound { fewest } else { fewest.min(count(&work)) })
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator. (test: this one)
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's promise. (test: this one)
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise. (test: this one)
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
