//! The limits of a server that serves, and how they are replaced.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Limits, Rates};
use crate::ServeError;
use crate::offload::Pool;
use crate::shard::{Notice, Remote};

/// The limits of a server that serves: from [`RunningServer::limits`](crate::RunningServer::limits), or, for a server
/// that is [run](crate::Server::run), from [`Starting::limits`](crate::Starting::limits). Clones are of the same server.
///
/// ```no_run
/// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
/// # struct Mirror;
/// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
/// use ringcall::limits::{Limits, Rate};
///
/// let server = ringcall::Server::bind("127.0.0.1:7000").service(Mirror.into_echo()).start()?;
/// let limits = server.limits().clone();
/// // Whenever the configuration says so:
/// limits.replace(Limits::default().concurrency(512).rate(Rate::per_second(20_000)))?;
/// # Ok::<(), ringcall::ServeError>(())
/// ```
#[derive(Clone)]
pub struct ServerLimits {
    shared: Arc<Shared>,
}

struct Shared {
    shards: Vec<Arc<Remote>>,
    pool: Arc<Pool>,
    served: Served,
    in_force: Mutex<LimitsInForce>,
}

/// Limits, and what counts their rates.
#[derive(Clone, Debug, Default)]
pub(crate) struct LimitsInForce {
    pub(crate) limits: Option<Limits>,
    pub(crate) rates: Option<Arc<Rates>>,
}

/// The full names of the methods that a server serves.
#[derive(Debug, Default)]
pub(crate) struct Served(Vec<String>);

impl Served {
    pub(crate) fn new(names: impl Iterator<Item = String>) -> Served {
        Served(names.collect())
    }

    /// Whether there is a method of this full name.
    pub(crate) fn has_method(&self, name: &str) -> bool {
        self.0.iter().any(|method| method == name)
    }

    /// Whether there is a service of this name that has methods.
    pub(crate) fn has_service(&self, name: &str) -> bool {
        let mut services = self.0.iter().filter_map(|method| method.rsplit_once('/'));
        services.any(|(service, _)| service == name)
    }
}

impl ServerLimits {
    /// Of these shards, which have a pool in common.
    pub(crate) fn new(
        shards: Vec<Arc<Remote>>,
        pool: Arc<Pool>,
        served: Served,
        in_force: LimitsInForce,
    ) -> ServerLimits {
        let in_force = Mutex::new(in_force);
        ServerLimits { shared: Arc::new(Shared { shards, pool, served, in_force }) }
    }

    /// Those that were given last; `None` if the server was started without, and has been given none since.
    #[must_use]
    pub fn get(&self) -> Option<Limits> {
        self.shared.in_force.lock().limits.clone()
    }

    /// Replaces all of them; a server that has none is given some. Each shard goes by them from its next turn on, which is
    /// a moment after this returns.
    ///
    /// Nothing that there is begins anew: calls that were taken count, and none of them is ended if there are more than
    /// there may be now; what waits goes by the new rule; what has been used up of a [rate](Limits::rate) that stays the
    /// same stays used up, and what an adaptive limit that stays the same has found counts on. Only calls that nobody
    /// had to count until now, since there was no limit of concurrency, are not among those that
    /// are counted.
    ///
    /// # Errors
    /// When they make no sense, or are for a method or service that the server does not have; nothing is changed then.
    pub fn replace(&self, limits: Limits) -> Result<(), ServeError> {
        limits.validate()?;
        let Shared { shards, pool, served, in_force } = &*self.shared;
        if let Some(name) = limits.unknown(served) {
            return Err(ServeError::UnknownMethod { method: name.to_owned() });
        }
        // One after another: the last one is the last one everywhere.
        let mut in_force = in_force.lock();
        let rates = limits.rates(in_force.rates.as_deref());
        let of_shard = Arc::new(limits.clone().shared_among(shards.len()));
        pool.configure(limits.queue_rule());
        for shard in shards {
            shard.notify(Notice::Limits(Arc::clone(&of_shard), rates.clone()));
        }
        *in_force = LimitsInForce { limits: Some(limits), rates };
        Ok(())
    }
}

impl fmt::Debug for ServerLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerLimits").field("limits", &self.get()).finish_non_exhaustive()
    }
}
