//! Calls both ways on one connection: a client offers a service, and the server calls it, during a call
//! and later from a thread of its own.
//!
//! ```text
//! $ cargo run --release --example both_ways
//! the server asks: may "rob" watch ABC?
//! watching: 1 now
//! ABC is at 42.0
//! ABC is at 42.5
//! ABC is at 43.0
//! the client is gone: 0 watch
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};

use ringcall::{BlockOn, Context, Peer, Server, View};

#[ringcall::service]
trait Market {
    /// Asks the caller, and tells it prices from then on. Says how many watch.
    async fn watch(&self, cx: &Context, symbol: View<String>) -> Result<u32, String>;
}

#[ringcall::message]
struct Tick {
    symbol: String,
    price: f64,
}

/// What the client offers to the server.
#[ringcall::service]
trait Watcher {
    async fn may(&self, question: String) -> bool;
    async fn tick(&self, tick: Tick);
}

struct Screen {
    ticks: mpsc::Sender<String>,
}

impl Watcher for Screen {
    async fn may(&self, question: String) -> bool {
        println!("the server asks: {question}");
        true
    }

    async fn tick(&self, tick: Tick) {
        let _nobody_looks = self.ticks.send(format!("{} is at {:.1}", tick.symbol, tick.price));
    }
}

#[derive(Clone, Default)]
struct Exchange {
    watchers: Arc<Mutex<HashMap<Peer, String>>>,
}

impl Market for Exchange {
    async fn watch(&self, cx: &Context, symbol: View<String>) -> Result<u32, String> {
        let symbol = symbol.as_str().to_owned();
        // Within the time that the caller waits.
        let caller = WatcherClient::new(cx.client(&cx.local_peer()));
        let question = format!("may \"rob\" watch {symbol}?");
        if !*caller.may(&question).await.map_err(|error| error.to_string())? {
            return Err("not allowed".into());
        }
        let mut watchers = self.watchers.lock().expect("nobody panics");
        // A peer names the connection: it can be kept, and called from anywhere.
        watchers.insert(cx.peer(), symbol);
        Ok(watchers.len() as u32)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exchange = Exchange::default();
    let server = Server::bind("127.0.0.1:0").service(exchange.clone().into_market()).start()?;

    let (ticks, screen) = mpsc::channel();
    let connect = MarketClient::connect(server.address());
    let market = connect.service(Screen { ticks }.into_watcher()).wait()?;
    println!("watching: {} now", *market.watch(&"ABC".into()).wait()?);

    // Any thread of the server's process may call its peers, whenever it likes.
    for price in [42.0, 42.5, 43.0] {
        for (peer, symbol) in exchange.watchers.lock().expect("nobody panics").iter() {
            let tick = Tick { symbol: symbol.clone(), price };
            WatcherClient::new(peer.clone()).tick(&tick).wait()?;
        }
        println!("{}", screen.recv()?);
    }

    drop(market);
    let mut watchers = exchange.watchers.lock().expect("nobody panics");
    for peer in watchers.keys() {
        peer.block_on(peer.closed());
    }
    watchers.retain(|peer, _| peer.is_connected());
    println!("the client is gone: {} watch", watchers.len());
    Ok(())
}
