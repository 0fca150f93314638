//! A whole service in a program that uses tokio: handlers that do, a stream that one of its tasks feeds, and an end in
//! order when the process is told to end. The server has threads of its own, which are in the context of the runtime.
//!
//! ```text
//! $ cargo run --release --example tokio_service
//! price of ABC: 42
//! price of XYZ: NoSuch
//! three prices: 42, 43, 44
//! told to end, with a call and a stream under way
//! the call was answered: 42
//! the stream came to its end
//! 2 calls finished, 0 refused, 0 cancelled; 1 connections closed, 0 cut off
//! ```

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ringcall::{Address, CallError, Context, Server, Stream};
use rustix::process::{Signal, getpid, kill_process};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

#[ringcall::message]
struct Inquiry {
    symbol: String,
    /// How long it may take to find out.
    patience_ms: u64,
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
trait Prices {
    /// Callers wait for a second unless somebody says otherwise: here, or where the call is made.
    #[method(deadline = "5s")]
    async fn last(&self, inquiry: Inquiry) -> Result<f64, NoSuch>;
    /// A price now and then, until the caller has enough or the server ends.
    async fn ticks(&self, cx: &Context) -> impl Stream<Item = f64>;
}

#[derive(Clone)]
struct Exchange;

impl Prices for Exchange {
    async fn last(&self, inquiry: Inquiry) -> Result<f64, NoSuch> {
        // What a database would take, or another server. A handler must not block: what does belongs into
        // `tokio::task::spawn_blocking`, or the method is `#[method(offload)]`.
        sleep(Duration::from_millis(inquiry.patience_ms)).await;
        if inquiry.symbol == "ABC" { Ok(42.0) } else { Err(NoSuch) }
    }

    async fn ticks(&self, cx: &Context) -> impl Stream<Item = f64> {
        let (sender, receiver) = mpsc::channel(16);
        let draining = cx.draining();
        tokio::spawn(async move {
            let publish = async {
                let (mut clock, mut price) = (interval(Duration::from_millis(5)), 42.0);
                // Until the caller is gone.
                while sender.send(price).await.is_ok() {
                    clock.tick().await;
                    price += 1.0;
                }
            };
            // Without this, a drain would wait for the stream until its time is over.
            tokio::select! { () = publish => {} () = draining => {} }
        });
        Ticks(receiver)
    }
}

/// What a task sends: `tokio_stream::wrappers::ReceiverStream` is the same.
struct Ticks(mpsc::Receiver<f64>);

impl Stream for Ticks {
    type Item = f64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Option<f64>> {
        self.0.poll_recv(cx)
    }
}

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let running = Server::bind("127.0.0.1:0")
        .service(Exchange.into_prices())
        // All handlers may use tokio from now on.
        .tokio(Handle::current())
        .start()?;
    let address = running.address().clone();
    // SIGTERM and SIGINT are watched from here on. `run_until` would take any future.
    let ended = running.until_signalled();
    let user = tokio::spawn(async move { use_it(&address).await });
    // Blocks no thread of the runtime, unlike `drain` and dropping a server.
    let report = ended.await?;
    user.await??;
    let text = report.to_string();
    println!("{}", text.rsplit_once("; after").map_or(&*text, |(counts, _)| counts));
    Ok(())
}

/// A client, which another program would have; in the end it stands in for whoever tells this one to end.
async fn use_it(address: &Address) -> Result<()> {
    let prices = PricesClient::connect(address).await?;
    let inquiry = |symbol: &str, patience_ms| Inquiry { symbol: symbol.into(), patience_ms };
    println!("price of ABC: {}", prices.last(&inquiry("ABC", 1)).await?.to_native());
    match prices.last(&inquiry("XYZ", 1)).await {
        Err(CallError::App(error)) => println!("price of XYZ: {error:?}"),
        other => return Err(format!("{other:?}").into()),
    }
    let mut ticks = prices.ticks().await?;
    let mut three = Vec::new();
    while three.len() < 3 {
        three.push(ticks.next().await.ok_or("it ended")??.to_native().to_string());
    }
    println!("three prices: {}", three.join(", "));

    let slow = tokio::spawn(async move { prices.last(&inquiry("ABC", 300)).await });
    // The call is there by then.
    sleep(Duration::from_millis(100)).await;
    println!("told to end, with a call and a stream under way");
    kill_process(getpid(), Signal::TERM)?;
    while let Some(tick) = ticks.next().await {
        tick?;
    }
    println!("the call was answered: {}", slow.await??.to_native());
    println!("the stream came to its end");
    Ok(())
}
