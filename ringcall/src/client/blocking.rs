//! A client that drives its own shard on the calling thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use ringcall_core::{Answer, Channel, Chunk, Counters, Outgoing, Payload};

use super::{BlockOn, ConnectionState, LocalClient, ToAddress};
use crate::shard::{Shard, ShardConfig, TransportInfo};
use crate::{CloseReason, Failure, TransportError};

/// A client that owns a shard and drives it on the calling thread: no thread is crossed, so it has the
/// lowest latency. Calls are waited for one by one with [`wait`](crate::Call::wait), or many at a time
/// in [`run`](BlockingClient::run).
///
/// Nothing moves while no call is waited for, keepalive included: a server gives such a client up after a
/// minute, and the next call opens another connection.
pub struct BlockingClient {
    shard: Shard,
    client: LocalClient,
}

impl BlockingClient {
    /// Connects to a server; waits for it.
    ///
    /// # Errors
    /// When nobody answers there, or not in ringcall's protocol.
    pub fn connect(address: impl ToAddress) -> Result<BlockingClient, Failure> {
        BlockingClient::connect_with(address, ShardConfig::default())
    }

    /// The same with settings, such as a wait policy.
    ///
    /// # Errors
    /// As there; or when the settings make no sense.
    pub fn connect_with(
        address: impl ToAddress,
        config: ShardConfig,
    ) -> Result<BlockingClient, Failure> {
        let shard = Shard::new(config).map_err(|error| {
            log::error!("{error}");
            let reason = CloseReason::Transport(TransportError::Unsupported);
            Failure::not_sent(ringcall_core::Cause::Closed(reason))
        })?;
        let client = shard.block_on(shard.connect(address))?;
        Ok(BlockingClient { shard, client })
    }

    /// Of a shard and a client of it, for connections that are made in another way: that offer services,
    /// for example. The server's calls run while a call is waited for.
    ///
    /// ```no_run
    /// # #[ringcall::service] trait Alarms { async fn ring(&self); }
    /// # struct Bell;
    /// # impl Alarms for Bell { async fn ring(&self) {} }
    /// use ringcall::{BlockingClient, Shard, ShardConfig};
    ///
    /// let shard = Shard::new(ShardConfig::default())?;
    /// let connect = shard.connect("127.0.0.1:7000").service(Bell.into_alarms());
    /// let local = shard.block_on(connect)?;
    /// let client = BlockingClient::new(shard, local);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When the client is another shard's.
    #[must_use]
    pub fn new(shard: Shard, client: LocalClient) -> BlockingClient {
        assert!(client.is_of(shard.inner()), "the client belongs to another shard");
        BlockingClient { shard, client }
    }

    /// Runs a future on the shard, which may make many calls at the same time through
    /// [`local`](BlockingClient::local), and waits for it.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.shard.block_on(future)
    }

    /// The client for code that runs on the shard.
    #[must_use]
    pub fn local(&self) -> &LocalClient {
        &self.client
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// How its connection is doing, as of the last time it was waited for.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.client.state()
    }

    /// Which engine moves the bytes, and why this one.
    #[must_use]
    pub fn transport(&self) -> &TransportInfo {
        self.shard.transport()
    }

    /// What the connection has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shard.counters()
    }
}

impl BlockOn for BlockingClient {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shard.block_on(future)
    }
}

impl Channel for BlockingClient {
    type Body = Chunk;
    type Pending<'a, P>
        = <LocalClient as Channel>::Pending<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P> {
        self.client.call(call, payload)
    }

    #[inline]
    fn take_answer<'a, P>(pending: Pin<&mut Self::Pending<'a, P>>) -> Option<Answer<Self::Body>>
    where
        Self: 'a,
        P: Payload + Clone + 'a,
    {
        LocalClient::take_answer(pending)
    }
}

impl fmt::Debug for BlockingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingClient").field("client", &self.client).finish_non_exhaustive()
    }
}
