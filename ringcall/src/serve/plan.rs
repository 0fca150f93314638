//! Shards that are being started, each on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::Mount;
use super::limits::Served;
use super::running::End;
use super::server::{Handlers, MakeFilter, MountService};
use crate::ServeError;
use crate::offload::{AroundThread, Pool};
use crate::shard::{DrainReport, Remote, Shard, ShardConfig};

/// What all shards of a server are made from.
pub(super) struct Plan {
    pub(super) services: Vec<MountService>,
    pub(super) filter: Option<MakeFilter>,
    pub(super) handlers: Handlers,
    pub(super) config: ShardConfig,
    pub(super) pool: Arc<Pool>,
    pub(super) around: Option<AroundThread>,
}

/// A shard's thread that is being started.
pub(super) struct StartingShard {
    pub(super) thread: JoinHandle<()>,
    ready: Receiver<Result<(Arc<Remote>, Served), ServeError>>,
    /// All shards of the server, when all are ready.
    pub(super) go: SyncSender<Vec<Arc<Remote>>>,
}

impl StartingShard {
    pub(super) fn spawn(
        index: usize,
        plan: &Arc<Plan>,
        ended: Sender<End>,
    ) -> Result<StartingShard, ServeError> {
        let (ready_sender, ready) = sync_channel(1);
        let (go, go_receiver) = sync_channel(1);
        let (plan, around) = (Arc::clone(plan), plan.around.clone());
        let work = move || {
            let (shard, served) = match plan.make_shard() {
                Ok(made) => made,
                Err(error) => {
                    let _ = ready_sender.send(Err(error));
                    return;
                }
            };
            let _ = ready_sender.send(Ok((Arc::clone(&shard.inner().remote), served)));
            // The server could not be started because of another shard.
            let Ok(siblings) = go_receiver.recv() else { return };
            shard.inner().set_siblings(siblings);
            let report = serve(&shard);
            // The socket is free again before anybody hears of it.
            drop(shard);
            let _ = ended.send(End::Shard(index, Box::new(report)));
        };
        let thread = thread::Builder::new().name(format!("ringcall-shard-{index}"));
        let thread = thread.spawn(move || match around {
            None => work(),
            Some(around) => around(Box::new(work)),
        });
        Ok(StartingShard { thread: thread.map_err(ServeError::Thread)?, ready, go })
    }

    pub(super) fn ready(&self) -> Result<(Arc<Remote>, Served), ServeError> {
        self.ready.recv().map_err(|_| ServeError::Panicked)?
    }
}

impl Plan {
    fn make_shard(&self) -> Result<(Shard, Served), ServeError> {
        let shard = Shard::with_pool(self.config.clone(), Arc::clone(&self.pool))?;
        let mut mount = Mount::add_to(shard.inner());
        if let Some(filter) = &self.filter {
            mount.set_filter(filter());
        }
        if let Some(kept) = &self.config.kept {
            mount.set_kept(Arc::clone(kept));
        }
        for service in &self.services {
            service(&shard, &mut mount, self.handlers)?;
        }
        let router = mount.finish();
        let served = router.served();
        if let Some(name) = self.unknown(&served) {
            return Err(ServeError::UnknownMethod { method: name.to_owned() });
        }
        shard.inner().set_router(router);
        Ok((shard, served))
    }

    /// The first method or service that settings name and that is not served.
    fn unknown(&self, served: &Served) -> Option<&str> {
        let limited = self.config.limits.as_ref().and_then(|limits| limits.unknown(served));
        let mut either = self.config.kept.iter().flat_map(|kept| kept.settings().names());
        limited
            .or_else(|| either.find(|name| !served.has_method(name) && !served.has_service(name)))
    }
}

fn serve(shard: &Shard) -> DrainReport {
    shard.run(|| !shard.inner().is_drained());
    let report = shard.inner().take_report().unwrap_or_default();
    // Connections that were cut off, and those that this shard opened.
    shard.inner().end();
    report
}
