//! ringcall in somebody else's loop: a shard on each side that another runtime drives, in one thread, with callers
//! that are tasks of that runtime.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::{io, process};

use ringcall::cluster::LocalClients;
use ringcall::{Channel, IntoOwned, LocalClient, Shard, ShardConfig, host};
use tokio::task::LocalSet;

use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Measured, Watch, work};
use crate::ours::{Ours, balance};
use crate::peers::{caller_runtime, tokio_runtime};
use crate::subjects::skip;

/// Whose loop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Tokio,
    /// On a ring of its own, which watches the shard's descriptor.
    Monoio,
}

trait Runtime {
    /// Runs a future, and what it spawns, on this thread.
    fn run<T>(self, future: impl Future<Output = Result<T>>) -> Result<T>;

    /// Starts a task on this thread. What is returned is ready when the task has ended.
    fn spawn(task: impl Future<Output = ()> + 'static) -> impl Future;

    fn drive(shard: Shard) -> impl Future<Output = io::Result<Infallible>> + 'static;
}

impl Ours {
    pub(crate) fn serve_hosted(self, host: Host, case: &Case) -> Result<()> {
        let shard = self.listening(case, ShardConfig::default())?;
        match host {
            Host::Tokio => {
                Tokio(tokio_runtime()?).run(async { match Tokio::drive(shard).await? {} })
            }
            Host::Monoio => Monoio.run(async { match Monoio::drive(shard).await? {} }),
        }
    }

    pub(crate) fn call_hosted(
        self,
        host: Host,
        case: &Case,
        config: ShardConfig,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        let shard = self.shard(config)?;
        match host {
            Host::Tokio => {
                let runtime = Tokio(caller_runtime(case)?);
                runtime.run(self.call_beside::<Tokio>(case, shard, servers, watch))
            }
            Host::Monoio => Monoio.run(self.call_beside::<Monoio>(case, shard, servers, watch)),
        }
    }

    /// Beside a task that drives the shard.
    async fn call_beside<R: Runtime>(
        self,
        case: &Case,
        shard: Shard,
        servers: &[SocketAddr],
        watch: Watch,
    ) -> Result<Measured> {
        let driver = R::drive(shard.clone());
        let _driving = R::spawn(async {
            let Err(error) = driver.await;
            eprintln!("versus: nobody drives the shard: {error}");
            process::exit(1);
        });
        if case.servers > 1 {
            let balanced = balance(LocalClients::new(&shard), servers).await?;
            return self.make_calls::<R, _>(case, &[balanced], watch).await;
        }
        let mut clients: Vec<LocalClient> = Vec::new();
        for _ in 0..case.connections {
            clients.push(shard.connect(servers[0]).await?);
        }
        self.make_calls::<R, _>(case, &clients, watch).await
    }

    async fn make_calls<R: Runtime, C>(
        self,
        case: &Case,
        channels: &[C],
        watch: Watch,
    ) -> Result<Measured>
    where
        C: Channel<Body: IntoOwned> + Clone + 'static,
    {
        meter::begin(case, watch)?;
        let callers = self.callers(case, channels);
        let tasks: Vec<_> = callers.map(|(index, caller)| R::spawn(work(caller, index))).collect();
        for task in tasks {
            task.await;
        }
        meter::finish()
    }
}

struct Tokio(tokio::runtime::Runtime);

impl Runtime for Tokio {
    fn run<T>(self, future: impl Future<Output = Result<T>>) -> Result<T> {
        LocalSet::new().block_on(&self.0, future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) -> impl Future {
        tokio::task::spawn_local(task)
    }

    fn drive(shard: Shard) -> impl Future<Output = io::Result<Infallible>> {
        host::tokio::run(shard)
    }
}

struct Monoio;

impl Runtime for Monoio {
    fn run<T>(self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
        match builder.enable_timer().build() {
            Ok(mut runtime) => runtime.block_on(future),
            Err(error) => skip(format!("monoio has no ring here: {error}")),
        }
    }

    fn spawn(task: impl Future<Output = ()> + 'static) -> impl Future {
        monoio::spawn(task)
    }

    fn drive(shard: Shard) -> impl Future<Output = io::Result<Infallible>> {
        host::monoio::run(shard)
    }
}
