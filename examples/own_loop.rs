//! A shard in a loop of your own, beside other things: no thread of ours. The loop waits for the shard's
//! file descriptor and for one of its own, here a pipe, and turns the shard when it is told to.
//!
//! ```text
//! $ cargo run --release --example own_loop
//! listening at 127.0.0.1:…
//! from the pipe: tick 1
//! from the pipe: tick 2
//! from the pipe: tick 3
//! 3 ticks, 3000 calls
//! ```

use std::cell::Cell;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use ringcall::{HostedShard, Shard, ShardConfig, Turn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

    // The loop: whatever the program waits for, and the shard beside it.
    let hosted = shard.hosted()?;
    let (mut pipe, writer) = std::io::pipe()?;
    // A clone, so that the pipe does not end with the thread.
    write_ticks(writer.try_clone()?);
    let mut ticks = 0;
    while counted.get() < 3000 || ticks < 3 {
        let is_idle = hosted.turn() == Turn::Idle;
        if wait(&hosted, &pipe, is_idle)? {
            let mut line = [0; 7];
            pipe.read_exact(&mut line)?;
            ticks += 1;
            print!("from the pipe: {}", String::from_utf8_lossy(&line));
        }
    }
    println!("{ticks} ticks, {} calls", counted.get());
    Ok(())
}

/// Waits for the shard and for the pipe, or only looks if the shard has more to do. Says whether there is
/// something in the pipe.
fn wait(hosted: &HostedShard, pipe: &PipeReader, is_idle: bool) -> std::io::Result<bool> {
    // Asked for before each wait: it moves with whatever is done with the shard.
    let timeout = if is_idle { hosted.next_timeout() } else { Some(Duration::ZERO) };
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let mut fds = [PollFd::new(hosted, PollFlags::IN), PollFd::new(pipe, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(!fds[1].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Another thread writes three lines, one every ten milliseconds.
fn write_ticks(mut pipe: PipeWriter) {
    thread::spawn(move || {
        for tick in 1..=3 {
            thread::sleep(Duration::from_millis(10));
            writeln!(pipe, "tick {tick}").expect("the loop reads three lines");
        }
    });
}
