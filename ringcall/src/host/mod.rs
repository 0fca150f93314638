//! A shard as a future of somebody else's runtime: no thread of ours, no hop between threads.
//!
//! Each runtime has a feature of its name (`-` for `_`), and with it a module here: `tokio`, for runtimes of one thread and
//! for a `LocalSet`, `async_io`, for smol, async-std and anything else with that reactor, and `monoio`. A
//! runtime that has none is served by hand: see [`HostedShard`](crate::HostedShard).
//!
//! In each, `run(shard)` is a future that drives the shard for as long as it is polled, and ends the shard
//! when it is dropped. `drive` does the same with settings. Before it waits, a shard looks on for a moment if that has
//! brought something lately, a few microseconds at a time: see [`HostedShard::polling`](crate::HostedShard::polling).

#[cfg(feature = "async-io")]
pub mod async_io;
#[cfg(feature = "monoio")]
pub mod monoio;
#[cfg(feature = "tokio")]
pub mod tokio;

/// Until something was done with a shard on its own thread, or its descriptor is readable.
#[cfg(any(feature = "async-io", feature = "tokio"))]
async fn until_work(
    shard: &crate::HostedShard,
    readable: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<()> {
    use std::task::Poll;
    let mut readable = std::pin::pin!(readable);
    std::future::poll_fn(|cx| match shard.poll_left_work(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => readable.as_mut().poll(cx),
    })
    .await
}

/// Lets the runtime's other tasks have a turn.
#[cfg(any(feature = "async-io", feature = "tokio"))]
async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        use std::task::Poll;
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
