//! What is known of the server, and how that is kept up.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use ringcall::reflection::ReflectionClient;
use ringcall::{AnyChannel, CallOptions};
use ringcall_generic::{Catalog, CatalogError};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep, timeout};

/// How long it may take to say what there is.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// How long until the server is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(2);

/// What a server serves, as it was told last, and what is made of that.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) catalog: Catalog,
    pub(crate) listing: OnceLock<Bytes>,
    pub(crate) openapi: OnceLock<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Known {
    state: RwLock<State>,
    /// When it was asked last; held while it is.
    asked: Mutex<Option<Instant>>,
    /// Calls go as if it were different by now.
    is_stale: Notify,
}

#[derive(Debug)]
struct State {
    /// The last that was good.
    snapshot: Option<Arc<Snapshot>>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
}

impl Known {
    pub(crate) fn new() -> Known {
        let failure = Some("it was not asked yet".to_owned());
        Known {
            state: RwLock::new(State { snapshot: None, failure }),
            asked: Mutex::new(None),
            is_stale: Notify::new(),
        }
    }

    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.state.read().snapshot.clone()
    }

    /// Why what is known may be old.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state.read().failure.clone()
    }

    /// Has it looked up soon.
    pub(crate) fn doubt(&self) {
        self.is_stale.notify_one();
    }

    /// Asks the server, unless that was done within this time. Whoever comes while it is asked waits for the answer.
    pub(crate) async fn refresh(&self, channel: &AnyChannel, pause: Duration) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        // Also if whoever waits for it gives up.
        *asked = Some(Instant::now());
        let told = match timeout(FETCH_MAX, fetch(channel)).await {
            Ok(told) => told.map_err(|error| error.to_string()),
            Err(_) => Err("the server takes too long to say what it serves".to_owned()),
        };
        *asked = Some(Instant::now());
        self.learn(told);
    }

    fn learn(&self, told: Result<Catalog, String>) {
        let mut state = self.state.write();
        match told {
            Ok(catalog) => {
                if state.failure.take().is_some() {
                    log::info!("the server has {} services", catalog.services().len());
                }
                state.snapshot = Some(Arc::new(Snapshot { catalog, ..Snapshot::default() }));
            }
            Err(failure) => {
                if state.failure.as_ref() != Some(&failure) {
                    log::warn!("what the server serves is not known for sure: {failure}");
                }
                state.failure = Some(failure);
            }
        }
    }

    /// Asks every so often, for ever.
    pub(crate) async fn keep_fresh(
        &self,
        channel: &AnyChannel,
        refresh: Duration,
        pause: Duration,
    ) {
        loop {
            self.refresh(channel, pause.min(refresh)).await;
            let time = if self.failure().is_some() { refresh.min(RETRY) } else { refresh };
            tokio::select! {
                () = sleep(time) => {}
                () = self.is_stale.notified() => sleep(pause).await,
            }
        }
    }
}

/// Boxed, since the compiler does not see elsewhere that it may go to other threads.
fn fetch(
    channel: &AnyChannel,
) -> Pin<Box<dyn Future<Output = Result<Catalog, CatalogError>> + Send>> {
    let patient = CallOptions::new().deadline(FETCH_MAX);
    let reflection = ReflectionClient::new(channel.clone()).with_options(patient);
    Box::pin(async move { Catalog::fetch_by(&reflection).await })
}
