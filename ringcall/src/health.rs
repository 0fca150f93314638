//! A service that says whether a server, or one of its services, is ready for calls: for load balancers, orchestrators and
//! tools, as gRPC's health checking protocol is.
//!
//! ```
//! use ringcall::health::{Health, HealthClient, Readiness, Status};
//!
//! # #[ringcall::service(name = "market.Quotes")]
//! # trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! # struct Book;
//! # impl Quotes for Book { async fn last(&self, _: String) -> u64 { 42 } }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let readiness = Readiness::new();
//! let server = ringcall::Server::bind("127.0.0.1:0")
//!     .service(Book.into_quotes())
//!     .service(readiness.clone().into_health())
//!     .start()?;
//!
//! let health = HealthClient::connect(server.address()).wait()?;
//! let quotes = "market.Quotes".to_owned();
//! assert_eq!(health.check(&quotes).wait()?.to_native(), Status::Serving);
//! readiness.set("market.Quotes", Status::NotServing); // its database is away
//! assert_eq!(health.check(&quotes).wait()?.to_native(), Status::NotServing);
//! # Ok(()) }
//! ```
//!
//! Channels over many instances do not ask it: they go by what becomes of calls, and a server that drains tells its clients itself.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use parking_lot::Mutex;

use crate::reflection::NoSuchService;
use crate::{Context, SlowConsumer, Subscription, Topic};

/// Whether services are ready for calls.
#[crate::service(crate = crate)]
pub trait Health {
    /// Whether a service is, by its full name; the server as a whole, if the name is empty.
    #[method(idempotent)]
    async fn check(&self, cx: &Context, service: String) -> Result<Status, NoSuchService>;

    /// The same, now and whenever it changes. It ends when the server drains, with [`Status::NotServing`].
    async fn watch(
        &self,
        cx: &Context,
        service: String,
    ) -> Result<impl Stream<Item = Status>, NoSuchService>;
}

/// Whether a service is ready for calls.
#[crate::message(crate = crate)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, PartialEq, Eq))]
pub enum Status {
    /// It is.
    Serving,
    /// It is not: call another one, if there is one.
    NotServing,
}

impl ArchivedStatus {
    /// The same.
    #[must_use]
    pub const fn to_native(self) -> Status {
        match self {
            ArchivedStatus::Serving => Status::Serving,
            ArchivedStatus::NotServing => Status::NotServing,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Serving => "serving",
            Status::NotServing => "not serving",
        })
    }
}

/// What a program says of itself. Until it says something else all services that it serves are ready, and none once it
/// drains. Clones are the same, on any thread.
#[derive(Clone)]
pub struct Readiness(Arc<Shared>);

struct Shared {
    said: Mutex<BTreeMap<String, Status>>,
    /// Tells that something was said.
    changes: Topic<()>,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::new()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&*self.0.said.lock()).finish()
    }
}

impl Readiness {
    /// Everything is ready.
    #[must_use]
    pub fn new() -> Readiness {
        // Whoever has been told that there is something new need not be told twice.
        let changes = Topic::new(1, SlowConsumer::DropOldest);
        Readiness(Arc::new(Shared { said: Mutex::default(), changes }))
    }

    /// Says it of a service, by its full name, or of the server as a whole, whose name is empty: if that is not ready,
    /// none of its services is.
    pub fn set(&self, service: &str, status: Status) {
        let before = self.0.said.lock().insert(service.to_owned(), status);
        if before != Some(status) {
            let _ = self.0.changes.publish(());
        }
    }

    fn of(&self, service: &str) -> Status {
        let said = self.0.said.lock();
        let is_ready = |name: &str| said.get(name) != Some(&Status::NotServing);
        if is_ready("") && is_ready(service) { Status::Serving } else { Status::NotServing }
    }
}

fn expect_service(cx: &Context, service: &str) -> Result<(), NoSuchService> {
    let is_there = |name: &str| cx.services().iter().any(|table| table.name() == name);
    if service.is_empty() || is_there(service) { Ok(()) } else { Err(NoSuchService) }
}

impl Health for Readiness {
    async fn check(&self, cx: &Context, service: String) -> Result<Status, NoSuchService> {
        expect_service(cx, &service)?;
        Ok(if cx.is_draining() { Status::NotServing } else { self.of(&service) })
    }

    async fn watch(
        &self,
        cx: &Context,
        service: String,
    ) -> Result<impl Stream<Item = Status>, NoSuchService> {
        expect_service(cx, &service)?;
        let changes = Some(self.0.changes.subscribe().until(cx.draining()));
        Ok(Watch { readiness: self.clone(), service, changes, told: None })
    }
}

/// What is said of a service, as it changes.
struct Watch {
    readiness: Readiness,
    service: String,
    /// `None` once the server drains.
    changes: Option<Subscription<()>>,
    told: Option<Status>,
}

impl Stream for Watch {
    type Item = Status;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Status>> {
        let this = self.get_mut();
        loop {
            let Some(changes) = &mut this.changes else { return Poll::Ready(None) };
            // First, since it tells of a drain, which may have begun before this did.
            let polled = Pin::new(changes).poll_next(cx);
            if let Poll::Ready(None) = polled {
                this.changes = None;
                return match this.told {
                    Some(Status::NotServing) => Poll::Ready(None),
                    _ => Poll::Ready(Some(Status::NotServing)),
                };
            }
            // It listens already, so nothing is missed behind this look.
            let status = this.readiness.of(&this.service);
            if this.told != Some(status) {
                this.told = Some(status);
                return Poll::Ready(Some(status));
            }
            if polled.is_pending() {
                return Poll::Pending;
            }
        }
    }
}
