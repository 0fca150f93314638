//! A shard in a loop of your own: no thread of ours, you say when it may work and how long it may wait.
//!
//! ```text
//! $ cargo run --release --example own_loop
//! listening at 127.0.0.1:…
//! tick 1: counted to 1000
//! tick 2: counted to 2000
//! tick 3: counted to 3000
//! 3 ticks, 3000 calls
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringcall::{Shard, ShardConfig, Turn, Wait};

#[ringcall::service]
trait Counter {
    async fn add(&self, n: u64) -> u64;
}

/// Lives on the shard, so it needs no lock.
struct Total(Cell<u64>);

impl Counter for Total {
    async fn add(&self, n: u64) -> u64 {
        self.0.set(self.0.get() + n);
        self.0.get()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One shard is both ends here: it serves, and it calls itself.
    let shard = Shard::new(ShardConfig::default())?;
    shard.serve(Total(Cell::new(0)).into_counter())?;
    let address = shard.listen("127.0.0.1:0")?;
    println!("listening at {address}");

    let counted = Rc::new(Cell::new(0));
    let (task_shard, task_counted) = (shard.clone(), Rc::clone(&counted));
    shard.spawn(async move {
        let client = task_shard.connect(&address).await.expect("it is our own shard");
        let counter = CounterClient::new(client);
        while task_counted.get() < 3000 {
            let total = counter.add(&1).await.expect("it answers");
            task_counted.set(total.to_native());
            if total.to_native() % 1000 == 0 {
                task_shard.sleep(Duration::from_millis(20)).await;
            }
        }
    });

    // The loop: whatever the program has to do, and the shard in between.
    let mut ticks = 0;
    let mut next_tick = Instant::now();
    while counted.get() < 3000 || ticks < 3 {
        // Not longer than until our own work is due, nor than the shard's timers.
        let wait =
            next_tick.saturating_duration_since(Instant::now()).min(Duration::from_millis(5));
        if shard.turn(Wait::AtMost(wait)) == Turn::MoreWork {
            continue;
        }
        let due = (ticks + 1) * 1000;
        if Instant::now() >= next_tick && counted.get() >= due {
            ticks += 1;
            next_tick = Instant::now() + Duration::from_millis(10);
            println!("tick {ticks}: counted to {}", counted.get());
        }
    }
    println!("{ticks} ticks, {} calls", shard.counters().requests_taken);
    Ok(())
}
