//! A shard in tokio: in a runtime of one thread, or in a `LocalSet`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ringcall::{Shard, ShardConfig, host};
//!
//! let shard = Shard::new(ShardConfig::default())?;
//! let driver = tokio::task::spawn_local(host::tokio::run(shard.clone()));
//! let client = shard.connect("127.0.0.1:7000").await?; // `QuotesClient::new(client)`, …
//! driver.abort(); // and with it the shard ends
//! # Ok(())
//! # }
//! ```
//!
//! The runtime needs its I/O and time drivers (`enable_all`). tokio counts time in milliseconds, so
//! deadlines of the shard may pass up to one later than they would in a loop of its own.

use std::convert::Infallible;
use std::io;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::time::timeout;

use super::{until_work, yield_now};
use crate::{HostedShard, Shard, Turn};

/// Drives a shard until this future is dropped, which ends the shard.
///
/// # Errors
/// When the shard cannot be hosted here.
///
/// # Panics
/// Outside of a tokio runtime, or when it has no I/O or time driver.
pub async fn run(shard: Shard) -> io::Result<Infallible> {
    drive(shard.hosted().map_err(io::Error::other)?).await
}

/// Drives a shard that has been [`hosted`](Shard::hosted), perhaps with [`HostedShard::polling`], until
/// this future is dropped, which ends the shard.
///
/// # Errors
/// When tokio cannot watch the shard's file descriptor.
///
/// # Panics
/// Outside of a tokio runtime, or when it has no I/O or time driver.
pub async fn drive(shard: HostedShard) -> io::Result<Infallible> {
    // What replaces it is `unsafe`: it asks for a promise about the descriptor, which a shard keeps. It
    // owns its descriptor, which stays the same until it is dropped.
    #[allow(deprecated, reason = "sound here; its replacement is new, and unsafe")]
    let shard = AsyncFd::with_interest(shard, Interest::READABLE)?;
    loop {
        while shard.get_ref().turn() == Turn::MoreWork {
            yield_now().await;
        }
        wait(&shard).await?;
    }
}

/// Waits until the shard is to be turned.
async fn wait(shard: &AsyncFd<HostedShard>) -> io::Result<()> {
    let readable = async {
        // Before the turn: it finds whatever has come so far, and what comes later is told again.
        shard.readable().await?.clear_ready();
        Ok(())
    };
    let work = until_work(shard.get_ref(), readable);
    match shard.get_ref().next_timeout() {
        None => work.await,
        Some(time) => timeout(time, work).await.unwrap_or(Ok(())),
    }
}
