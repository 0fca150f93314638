//! What a service does, for people and machines: calls counted for Prometheus, at a page of their own; what each
//! came to, printed; and those that were slow told to `log`, which shows them where the program has set up a logger
//! (this one has none). The example is its own service, client and scraper.
//!
//! ```text
//! cargo run --release --example telemetry
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ringcall::observe::{Event, Observer, Role, SlowCalls};
use ringcall::{Context, Server};
use ringcall_metrics::{Endpoint, Metrics};

#[ringcall::message]
#[derive(Debug)]
pub struct NotEven {
    pub number: u64,
}

impl std::fmt::Display for NotEven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not even", self.number)
    }
}

#[ringcall::service(name = "demo.Halves")]
pub trait Halves {
    async fn half(&self, number: u64) -> Result<u64, NotEven>;
    async fn slowly(&self, cx: &Context, number: u64) -> u64;
}

#[derive(Clone)]
struct Calculator;

impl Halves for Calculator {
    async fn half(&self, number: u64) -> Result<u64, NotEven> {
        if number.is_multiple_of(2) { Ok(number / 2) } else { Err(NotEven { number }) }
    }

    async fn slowly(&self, cx: &Context, number: u64) -> u64 {
        cx.sleep(Duration::from_millis(30)).await;
        number / 2
    }
}

/// An observer is a function of events: this one prints what each call came to.
struct Print;

impl Observer for Print {
    fn observe(&self, event: &Event<'_>) {
        let Event::CallEnded(call, end) = event else { return };
        let who = if call.role == Role::Server { "served" } else { "called" };
        let method = call.method_name().unwrap_or("an unknown method");
        println!("{who} {method}: {} after {:?} (handler {:?})", end.end, end.took, end.handled);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::new();
    let slow = SlowCalls::longer_than(Duration::from_millis(10));
    let server = Server::bind("127.0.0.1:0")
        .service(Calculator.into_halves())
        .observer(metrics.observer())
        .observer(Arc::new(slow))
        .observer(Arc::new(Print))
        .start()?;
    // A listener of its own, for this machine only. Nothing is there unless you ask for it.
    let page = Endpoint::start(&metrics, "127.0.0.1:0")?;
    println!("metrics: http://{}/metrics", page.address());

    let connect = HalvesClient::connect(server.address()).observer(metrics.observer());
    let halves = connect.wait()?;
    for number in 0..10 {
        // Odd numbers are the service's own error, and no failure.
        let _ = halves.half(&number).wait();
    }
    halves.slowly(&84).wait()?;

    // What Prometheus would do every few seconds.
    let mut scrape = TcpStream::connect(page.address())?;
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    scrape.read_to_string(&mut text)?;
    let of_calls = text.lines().filter(|line| line.starts_with("ringcall_calls_total"));
    of_calls.for_each(|line| println!("{line}"));
    let errors = "method=\"demo.Halves/half\",peer=\"127.0.0.1\",class=\"application\"} 5";
    assert!(text.contains(errors), "five numbers were odd");

    let snapshot = metrics.snapshot();
    for calls in snapshot.of(Role::Caller, "demo.Halves/half") {
        let median = calls.latency.quantile(0.5).unwrap_or_default();
        println!("{} calls of {} took {median:?} at most, mostly", calls.begun, calls.method);
    }
    Ok(())
}
