//! A `Send` client in tokio tasks, on a runtime with several threads. The client does not know tokio: its
//! bytes are moved by a shard in the background, and its futures run on any executor.
//!
//! ```text
//! $ cargo run --release --example from_tokio
//! 16 tasks, 16000 calls: every task got its own answers
//! a call that took too long: the deadline passed (may have run)
//! ```

use std::time::Duration;

use ringcall::{Context, Server};

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

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0").service(Diligent.into_worker()).start()?;
    let worker = WorkerClient::connect(server.address()).await?;

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
    server.stop();
    Ok(())
}
