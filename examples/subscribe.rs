//! A server that pushes: everybody who has subscribed gets what is published, and one of them is slow.
//!
//! ```text
//! $ cargo run --release --example subscribe
//! Wait: published 5000; fast got 5000, slow got 5000
//! DropOldest: published 5000; fast got 4569, slow got 1320
//! Close: published 5000; fast got 1515, slow got 385
//! ```

use std::time::Duration;

use ringcall::{Context, Server, SlowConsumer, Stream, Topic};

#[ringcall::message]
#[derive(Clone)]
struct Tick {
    number: u64,
    book: Vec<u8>,
}

#[ringcall::service]
trait Market {
    async fn ticks(&self, cx: &Context) -> impl Stream<Item = Tick>;
}

#[derive(Clone)]
struct Floor {
    ticks: Topic<Tick>,
}

impl Market for Floor {
    async fn ticks(&self, cx: &Context) -> impl Stream<Item = Tick> {
        // Unsubscribed when the caller is gone, since the stream is dropped then. When the server ends, the stream does, too,
        // after what was published: a drain need not wait for it until its time is over.
        self.ticks.subscribe().until(cx.draining())
    }
}

const TICKS: u64 = 5000;

fn run(policy: SlowConsumer) -> Result<(), Box<dyn std::error::Error>> {
    let ticks = Topic::new(64, policy);
    let floor = Floor { ticks: ticks.clone() };
    let server = Server::bind("127.0.0.1:0").service(floor.into_market()).start()?;
    let subscribe = |pause: Duration| -> Result<_, Box<dyn std::error::Error>> {
        let market = MarketClient::connect(server.address()).wait()?;
        // When this is there, the server has subscribed us.
        let mut ticks = market.ticks().wait()?;
        Ok(std::thread::spawn(move || {
            let mut got = 0;
            for tick in ticks.wait_each() {
                if tick.is_err() {
                    break;
                }
                got += 1;
                if !pause.is_zero() && got % 64 == 0 {
                    std::thread::sleep(pause);
                }
            }
            got
        }))
    };
    let fast = subscribe(Duration::ZERO)?;
    let slow = subscribe(Duration::from_millis(10))?;
    for number in 0..TICKS {
        let tick = Tick { number, book: vec![0; 4096] };
        // Waits for room under `Wait` only.
        ticks.send_wait(tick);
        if number % 16 == 0 {
            // The market is not faster than somebody who reads.
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    // Both get the rest of what they have subscribed to, and leave.
    let report = server.drain();
    assert!(report.is_clean(), "{report}");
    let (fast, slow) = (fast.join().map_err(|_| "panicked")?, slow.join().map_err(|_| "panicked")?);
    println!("{policy:?}: published {TICKS}; fast got {fast}, slow got {slow}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for policy in [SlowConsumer::Wait, SlowConsumer::DropOldest, SlowConsumer::Close] {
        run(policy)?;
    }
    Ok(())
}
