//! Connections.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::watch::{Verdict, Watch};
use crate::{Gateway, GatewayBody, GatewayConfig};

/// How long to wait when no connection can be accepted, because there is no descriptor left, for example.
const PAUSE: Duration = Duration::from_millis(100);
/// What is read of a connection at a time, and how long the headers of a request may be, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Of a connection of HTTP/2.
const STREAMS_MAX: u32 = 64;

/// How serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// How many connections were cut off, since what ran there took longer than [`GatewayConfig::drain_timeout`].
    pub cut_off: usize,
}

impl Gateway {
    /// Answers whoever connects there, by HTTP/1.1 or HTTP/2, until `shutdown` ends. Then nobody is let in any more, and what
    /// runs is finished, within [`GatewayConfig::drain_timeout`]. Dropping the future cuts everything off.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Stopped {
        let mut connections = Connections::new(self);
        tokio::select! {
            () = shutdown => {}
            () = self.keep_fresh() => {}
            () = connections.accept(&listener) => {}
        }
        drop(listener);
        connections.end().await
    }
}

struct Connections<'a> {
    gateway: &'a Gateway,
    room: Arc<Semaphore>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl<'a> Connections<'a> {
    fn new(gateway: &'a Gateway) -> Connections<'a> {
        let room = Arc::new(Semaphore::new(gateway.config().connections_max));
        Connections { gateway, room, tasks: JoinSet::new(), stop: watch::Sender::new(false) }
    }

    async fn accept(&mut self, listener: &TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            let accepted = loop {
                tokio::select! {
                    accepted = listener.accept() => break accepted,
                    Some(_) = self.tasks.join_next() => {}
                }
            };
            match accepted {
                Ok((stream, _)) => self.begin(stream, permit),
                Err(error) => {
                    log::warn!("no connection can be accepted: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let (gateway, stopping) = (self.gateway.clone(), self.stop.subscribe());
        self.tasks.spawn(async move {
            serve_connection(gateway, stream, stopping).await;
            drop(permit);
        });
    }

    async fn end(mut self) -> Stopped {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(self.gateway.config().drain_timeout, all).await;
        let cut_off = self.tasks.len();
        self.tasks.shutdown().await;
        Stopped { cut_off }
    }
}

async fn serve_connection(
    gateway: Gateway,
    stream: TcpStream,
    mut stopping: watch::Receiver<bool>,
) {
    // Small answers are to leave at once.
    let _ = stream.set_nodelay(true);
    let watch = Arc::new(Watch::default());
    let mut turns = interval(gateway.config().write_timeout);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    let builder = builder(gateway.config());
    let service = service_fn(|request| {
        let (gateway, watch) = (gateway.clone(), Arc::clone(&watch));
        async move { Ok::<_, Infallible>(watched(&gateway, &watch, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    log::debug!("a connection has ended: {error}");
                }
                return;
            }
            _ = stopping.wait_for(|stop| *stop), if !is_ending => is_ending = true,
            _ = turns.tick() => match watch.turn() {
                Verdict::Busy => continue,
                // It was asked to end already.
                Verdict::Idle if is_ending => return,
                Verdict::Idle => is_ending = true,
                Verdict::Stuck => {
                    log::debug!("a connection is cut off: its answers are not read");
                    return;
                }
            },
        }
        connection.as_mut().graceful_shutdown();
    }
}

fn builder(config: &GatewayConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        // Whoever is gone without a word does not answer.
        .keep_alive_interval(config.write_timeout)
        .keep_alive_timeout(config.read_timeout);
    builder
}

/// Answers, and holds what keeps the connection until that has left.
async fn watched(
    gateway: &Gateway,
    watch: &Arc<Watch>,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<GatewayBody> {
    let running = watch.begin();
    gateway.answer(request).await.into_response(Some(running))
}
