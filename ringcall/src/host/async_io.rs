//! A shard in smol, async-std, or anything else with the reactor of async-io: in a local executor, or
//! under `block_on`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ringcall::{Shard, ShardConfig, host};
//!
//! let shard = Shard::new(ShardConfig::default())?;
//! let driver = host::async_io::run(shard.clone()); // beside others in a local executor
//! # drop(driver);
//! # Ok(())
//! # }
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;

use ::async_io::{Async, Timer};

use super::{until_work, yield_now};
use crate::{HostedShard, Shard, Turn};

/// Drives a shard until this future is dropped, which ends the shard.
///
/// # Errors
/// When the shard cannot be hosted here.
pub async fn run(shard: Shard) -> io::Result<Infallible> {
    drive(shard.hosted().map_err(io::Error::other)?).await
}

/// Drives a shard that has been [`hosted`](Shard::hosted), perhaps with [`HostedShard::polling`], until
/// this future is dropped, which ends the shard.
///
/// # Errors
/// When the reactor cannot watch the shard's file descriptor.
pub async fn drive(shard: HostedShard) -> io::Result<Infallible> {
    let shard = Async::new_nonblocking(shard)?;
    loop {
        while shard.get_ref().turn() == Turn::MoreWork {
            yield_now().await;
        }
        wait(&shard).await?;
    }
}

/// Waits until the shard is to be turned.
async fn wait(shard: &Async<HostedShard>) -> io::Result<()> {
    let mut work = pin!(until_work(shard.get_ref(), shard.readable()));
    let mut timer = shard.get_ref().next_timeout().map(Timer::after);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(work) = work.as_mut().poll(cx) {
            return Poll::Ready(work);
        }
        match &mut timer {
            Some(timer) => Pin::new(timer).poll(cx).map(|_| Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}
