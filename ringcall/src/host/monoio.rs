//! A shard in monoio.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ringcall::{Shard, ShardConfig, host};
//!
//! let shard = Shard::new(ShardConfig::default())?;
//! monoio::spawn(host::monoio::run(shard.clone()));
//! let client = shard.connect("127.0.0.1:7000").await?; // `QuotesClient::new(client)`, …
//! # Ok(())
//! # }
//! ```
//!
//! The shard keeps an engine of its own, and monoio's ring, or epoll, watches that engine's descriptor: so
//! both wait in one place. The runtime needs its timer (`enable_timer`), which counts in milliseconds, so
//! deadlines of the shard may pass up to one later than they would in a loop of its own.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram as AnySocket;

use ::monoio::net::unix::UnixDatagram;
use ::monoio::time::timeout;

use crate::{HostedShard, Shard, Turn};

/// Drives a shard until this future is dropped, which ends the shard.
///
/// # Errors
/// When the shard cannot be hosted here.
///
/// # Panics
/// Outside of a monoio runtime, or when it has no timer.
pub async fn run(shard: Shard) -> io::Result<Infallible> {
    drive(shard.hosted().map_err(io::Error::other)?).await
}

/// Drives a shard that has been [`hosted`](Shard::hosted), perhaps with [`HostedShard::polling`], until
/// this future is dropped, which ends the shard.
///
/// # Errors
/// When monoio cannot watch the shard's file descriptor.
///
/// # Panics
/// Outside of a monoio runtime, or when it has no timer.
pub async fn drive(shard: HostedShard) -> io::Result<Infallible> {
    // monoio waits for sockets of its own types only. This one is never read or written, only waited for,
    // which any descriptor can be; it is a copy, since the socket closes it.
    let watched = AnySocket::from(shard.as_fd().try_clone_to_owned()?);
    let watched = UnixDatagram::from_std(watched)?;
    loop {
        while shard.turn() == Turn::MoreWork {
            yield_now().await;
        }
        let readable = watched.readable(false);
        match shard.next_timeout() {
            None => readable.await?,
            Some(time) => timeout(time, readable).await.unwrap_or(Ok(()))?,
        }
    }
}

/// Lets the runtime's other tasks have a turn. A task that wakes itself would go before all of them, again and again:
/// a new one goes behind them, and wakes this one.
async fn yield_now() {
    ::monoio::spawn(async {}).await;
}
