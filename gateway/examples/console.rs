//! A service and a gateway to it, in one program: open the page that it names.
//!
//! ```text
//! $ cargo run -p ringcall-gateway --example console
//! http://127.0.0.1:8080/ until Ctrl-C
//!
//! $ curl http://127.0.0.1:8080/market.Quotes/last -H 'content-type: application/json' -d '{ "code": "ABC", "venue": null }'
//! {"price":42.0,"side":"Buy","venues":["XETR"]}
//!
//! $ curl -N http://127.0.0.1:8080/market.Quotes/ticks -H 'content-type: application/json' -d '{ "code": "ABC", "venue": null }'
//! {"item":{"price":42.0,"side":"Buy","venues":["XETR"]}}
//! {"item":{"price":42.5,"side":"Sell","venues":["XETR"]}}
//! {"item":{"price":43.0,"side":"Buy","venues":["XETR"]}}
//! {"end":null}
//!
//! $ printf '%s\n' '{ "code": "ABC", "venue": null }' 100 20 |
//!     curl http://127.0.0.1:8080/market.Quotes/worth -H 'content-type: application/x-ndjson' -X POST -T -
//! 5040.0
//! ```
#![allow(clippy::print_stdout, reason = "it talks to whoever runs it")]

use std::pin::Pin;
use std::task::{self, Poll};

use ringcall::reflection::{Interface, Reflection};
use ringcall::{AnyChannel, Body, Bytes, Client, Context, Items, Server, Stream};
use ringcall_gateway::{Gateway, GatewayConfig};
use ringcall_metrics::{Inspection as _, Metrics};
use tokio::net::TcpListener;

#[ringcall::message]
struct Symbol {
    code: String,
    venue: Option<String>,
}

#[ringcall::message]
struct Quote {
    price: f64,
    side: Side,
    venues: Vec<String>,
}

#[ringcall::message]
enum Side {
    Buy,
    Sell,
}

#[ringcall::message]
enum NoQuote {
    Unknown { code: String },
    Closed,
}

/// Prices of what is traded.
#[ringcall::service(name = "market.Quotes")]
trait Quotes {
    /// The last quote of a symbol.
    ///
    /// `ABC` and `XYZ` are known; the market of the latter is closed.
    #[method(idempotent)]
    async fn last(&self, cx: &Context, symbol: Symbol) -> Result<Quote, NoQuote>;
    /// All quotes, as they come: three today.
    async fn ticks(&self, symbol: Symbol) -> impl Stream<Item = Quote>;
    /// What so many of it are worth together.
    async fn worth(&self, symbol: Symbol, amounts: Items<u32>) -> f64;
    /// What each amount is worth, as it comes.
    async fn worths(&self, symbol: Symbol, amounts: Items<u32>) -> impl Stream<Item = f64>;
    /// Bytes backwards.
    async fn reverse(&self, body: Body) -> Bytes;
    /// Something that nobody answers.
    #[method(one_way)]
    async fn note(&self, text: String);
    /// Takes its time, and more than it has unless it is told otherwise.
    async fn slow(&self, cx: &Context, ms: u64);
}

struct Market;

impl Quotes for Market {
    async fn last(&self, cx: &Context, symbol: Symbol) -> Result<Quote, NoQuote> {
        cx.reply_metadata("source", "example");
        match symbol.code.as_str() {
            "ABC" => Ok(Quote { price: 42.0, side: Side::Buy, venues: vec!["XETR".to_owned()] }),
            "XYZ" => Err(NoQuote::Closed),
            _ => Err(NoQuote::Unknown { code: symbol.code }),
        }
    }

    async fn ticks(&self, _: Symbol) -> impl Stream<Item = Quote> {
        let quotes = [(42.0, Side::Buy), (42.5, Side::Sell), (43.0, Side::Buy)];
        let quotes =
            quotes.map(|(price, side)| Quote { price, side, venues: vec!["XETR".to_owned()] });
        Each(quotes.into_iter())
    }

    async fn worth(&self, _: Symbol, mut amounts: Items<u32>) -> f64 {
        let mut worth = 0.0;
        while let Some(amount) = amounts.next().await {
            worth += 42.0 * f64::from(amount);
        }
        worth
    }

    async fn worths(&self, _: Symbol, amounts: Items<u32>) -> impl Stream<Item = f64> {
        Worths(amounts)
    }

    async fn reverse(&self, body: Body) -> Bytes {
        body.iter().rev().copied().collect::<Vec<_>>().into()
    }

    async fn note(&self, text: String) {
        println!("{text}");
    }

    async fn slow(&self, cx: &Context, ms: u64) {
        cx.sleep(std::time::Duration::from_millis(ms)).await;
    }
}

struct Each<I>(I);

impl<I: Iterator + Unpin> Stream for Each<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

struct Worths(Items<u32>);

impl Stream for Worths {
    type Item = f64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<f64>> {
        let amount = Pin::new(&mut self.0).poll_next(cx);
        amount.map(|amount| Some(42.0 * f64::from(amount?)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0")
        .service(Market.into_quotes())
        .service(Interface.into_reflection())
        .observer(metrics.observer())
        .service(metrics.inspector().into_inspection())
        .start()?;
    let client = Client::connect(server.address()).await?;

    let mut config = GatewayConfig::default();
    config.title = "market".to_owned();
    config.hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let gateway = Gateway::new(AnyChannel::new(client), config)?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("http://{}/ until Ctrl-C", listener.local_addr()?);
    gateway.serve(listener, async { drop(tokio::signal::ctrl_c().await) }).await;
    server.drained().await;
    Ok(())
}
