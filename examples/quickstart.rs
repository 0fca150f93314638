//! A server and a client in one process, a million typed calls over a real socket.
//!
//! ```text
//! $ cargo run --release --example quickstart
//! transport  epoll (…)
//! park   1 in flight    … calls/s  p50 … µs  p99 … µs  p99.9 … µs  allocations 0.000 a call  copied bytes 0 …
//! park  64 in flight    …
//! …
//! ```
//!
//! `quickstart -- 10000` makes fewer calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use ringcall::{BlockingClient, Counters, Server, ShardConfig, View, WaitPolicy};

// ---- the service: twenty lines ----

#[ringcall::message]
struct Symbol {
    code: String,
}

#[ringcall::message]
struct Quote {
    price: f64,
    size: u32,
    number: u64,
}

#[ringcall::message]
#[derive(Debug)]
struct NoSuch;

impl std::fmt::Display for NoSuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("there is no such symbol")
    }
}

#[ringcall::service]
trait Quotes {
    /// The last quote of a symbol, read where it landed.
    #[method(idempotent)]
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch>;
}

struct Book;

impl Quotes for Book {
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch> {
        match symbol.code.strip_prefix("S") {
            Some(number) => {
                Ok(Quote { price: 42.5, size: 100, number: number.parse().unwrap_or(0) })
            }
            None => Err(NoSuch),
        }
    }
}

// ---- the measurement ----

const TASKS: u64 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let calls: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    for wait in [WaitPolicy::Adaptive, WaitPolicy::Park, WaitPolicy::Spin] {
        let server = Server::bind("127.0.0.1:0").service(Book.into_quotes()).wait(wait).start()?;
        if wait == WaitPolicy::Adaptive {
            println!("transport  {}", server.transport());
        }
        let mut config = ShardConfig::default();
        config.wait = wait;
        let client = BlockingClient::connect_with(server.address(), config)?;
        for in_flight in [1, TASKS] {
            let measured = measure(&client, calls, in_flight)?;
            println!("{wait:<8}  {in_flight:>2} in flight  {measured}");
        }
        drop(client);
        let served = server.stop();
        println!("{wait:<8}  server        {}", copies(&served));
    }
    Ok(())
}

/// Makes calls, so many at the same time, and looks at every reply.
fn measure(client: &BlockingClient, calls: u64, in_flight: u64) -> Result<String, Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}")?;
    let progress = ProgressBar::new(calls).with_style(style);
    let state = Rc::new(State {
        left: RefCell::new(calls),
        latencies: RefCell::new(Histogram::new_with_bounds(1, 10_000_000_000, 3)?),
        running: RefCell::new(in_flight),
    });
    let quotes = Rc::new(QuotesClient::new(client.local().clone()));
    client.run(work(&quotes, &state, &progress, 1000)); // warm up
    *state.left.borrow_mut() = calls;
    state.latencies.borrow_mut().reset();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let start = Instant::now();
    for _ in 0..in_flight {
        let (quotes, state, progress) = (Rc::clone(&quotes), Rc::clone(&state), progress.clone());
        client.shard().spawn(async move {
            work(&quotes, &state, &progress, u64::MAX).await;
            *state.running.borrow_mut() -= 1;
        });
    }
    client.shard().run(|| *state.running.borrow() > 0);
    let seconds = start.elapsed().as_secs_f64();
    progress.finish_and_clear();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    let latencies = state.latencies.borrow();
    let micros = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(format!(
        "{:>9.0} calls/s  p50 {:.1} µs  p99 {:.1} µs  p99.9 {:.1} µs  allocations {:.3} a call  {}",
        calls as f64 / seconds,
        micros(0.5),
        micros(0.99),
        micros(0.999),
        allocations as f64 / calls as f64,
        copies(&client.counters()),
    ))
}

struct State {
    left: RefCell<u64>,
    latencies: RefCell<Histogram<u64>>,
    running: RefCell<u64>,
}

async fn work(
    quotes: &QuotesClient<ringcall::LocalClient>,
    state: &State,
    progress: &ProgressBar,
    most: u64,
) {
    let mut symbol = Symbol { code: String::with_capacity(32) };
    for _ in 0..most {
        let number = {
            let mut left = state.left.borrow_mut();
            if *left == 0 {
                return;
            }
            *left -= 1;
            *left
        };
        symbol.code.clear();
        std::fmt::Write::write_fmt(&mut symbol.code, format_args!("S{number}")).expect("fits");
        let start = Instant::now();
        let quote = quotes.last(&symbol).await.expect("the server answers");
        let nanos = start.elapsed().as_nanos() as u64;
        assert_eq!(quote.number, number, "every reply is the caller's own");
        state.latencies.borrow_mut().record(nanos.max(1)).expect("within bounds");
        if number % 16_384 == 0 {
            progress.inc(16_384);
        }
    }
}

/// Body bytes that were copied on their way to the application, by reason.
fn copies(counters: &Counters) -> String {
    format!(
        "copied bytes {} straddling, {} misaligned, {} hoarded",
        counters.copied_straddle, counters.copied_misaligned, counters.copied_hoard
    )
}

// ---- counts allocations ----

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
