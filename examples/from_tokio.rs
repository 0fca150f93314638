//! Two ways to be used from tokio. Either a `Send` client in tasks of a runtime with several threads: the
//! client does not know tokio, its bytes are moved by a shard in the background. Or a shard inside a
//! runtime of one thread, with everything that belongs to it: no thread of ours, no hop between threads.
//!
//! ```text
//! $ cargo run --release --example from_tokio
//! 16 tasks, 16000 calls: every task got its own answers
//! a call that took too long: the deadline passed (`CallOptions::deadline`; a second if nobody sets one) (may have run)
//! hosted: 16 tasks, 16000 calls, all on one thread
//! ```

use std::time::Duration;

use ringcall::{Address, Context, Server, Shard, ShardConfig};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_local};

#[ringcall::message]
struct Job {
    task: u32,
    number: u32,
}

#[ringcall::service]
trait Worker {
    /// Multiplies.
    async fn work(&self, job: Job) -> u64;
    /// Takes its time.
    #[method(deadline = "20ms")]
    async fn ponder(&self, cx: &Context, time_ms: u64);
}

struct Diligent;

impl Worker for Diligent {
    async fn work(&self, job: Job) -> u64 {
        u64::from(job.task) * 1_000_000 + u64::from(job.number)
    }

    async fn ponder(&self, cx: &Context, time_ms: u64) {
        cx.sleep(Duration::from_millis(time_ms)).await;
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let server = Server::bind("127.0.0.1:0").service(Diligent.into_worker()).start()?;
    let many = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    many.block_on(from_any_thread(server.address()))?;
    server.stop();

    let one = Builder::new_current_thread().enable_all().build()?;
    hosted(&one)
}

/// A client that any task may use, on any thread.
async fn from_any_thread(address: &Address) -> Result<()> {
    let worker = WorkerClient::connect(address).await?;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let worker = worker.clone();
            tokio::spawn(async move {
                for number in 0..1000 {
                    let answer = worker.work(&Job { task, number }).await?;
                    assert_eq!(answer.to_native(), u64::from(task) * 1_000_000 + u64::from(number));
                }
                Ok::<_, ringcall::CallError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("16 tasks, 16000 calls: every task got its own answers");

    let late = worker.ponder(&10_000).await;
    println!("a call that took too long: {}", late.expect_err("20 ms are not 10 s"));
    Ok(())
}

/// A service and its clients, all in one runtime of one thread.
fn hosted(runtime: &Runtime) -> Result<()> {
    let shard = Shard::new(ShardConfig::default())?;
    shard.serve(Diligent.into_worker())?;
    let address = shard.listen("127.0.0.1:0")?;
    runtime.block_on(LocalSet::new().run_until(async {
        let driver = spawn_local(ringcall::host::tokio::run(shard.clone()));
        let worker = WorkerClient::new(shard.connect(&address).await?);
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let worker = worker.clone();
                spawn_local(async move {
                    for number in 0..1000 {
                        let answer = worker.work(&Job { task, number }).await?;
                        let expected = u64::from(task) * 1_000_000 + u64::from(number);
                        assert_eq!(answer.to_native(), expected);
                    }
                    Ok::<_, ringcall::CallError>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        let calls = shard.counters().requests_taken;
        println!("hosted: 16 tasks, {calls} calls, all on one thread");
        // The shard ends with its driver.
        driver.abort();
        Ok(())
    }))
}
