//! What happens to connections and calls, told as it happens.
//!
//! An [`Observer`] is told [`Event`]s: by a server ([`Server::observer`](crate::Server::observer)), by a shard
//! ([`ShardConfig::observers`](crate::ShardConfig::observers)), and by a client of any thread
//! ([`Connect::observer`](crate::Connect::observer)). Where nobody observes, a call costs one branch more. Where
//! somebody does, an event is a value on the stack that is passed by reference: nothing is allocated or queued.
//!
//! Every call that begins ends exactly once, in whichever way, and so does every connection that opened: an
//! observer can count on it.
//!
//! What connections ask each other by themselves (the table of methods) is not told: nobody called.
//!
//! Nothing of what calls carry is in an event: neither bodies nor metadata, only how long they are.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use ringcall::observe::{Event, Observer};
//!
//! #[derive(Default)]
//! struct Errors(AtomicU64);
//!
//! impl Observer for Errors {
//!     fn observe(&self, event: &Event<'_>) {
//!         if let Event::CallEnded(_, end) = event && end.end.is_error() {
//!             self.0.fetch_add(1, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! let errors = Arc::new(Errors::default());
//! let server = ringcall::Server::bind("127.0.0.1:0").observer(errors.clone());
//! ```

mod caller;
mod lines;
mod names;
mod scope;
mod slow;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringcall_core::frame::{Extensions, request_flags, tag};
use ringcall_core::{
    Address, Cause, CloseReason, Codec, Counters, Failure, FailureClass, Instant, Side, Status,
    StatusClass,
};

pub(crate) use caller::{Audience, Begun, Measured, Ongoing};
pub(crate) use lines::Lines;
pub use names::method_name;
pub(crate) use names::{known_name, remember};
pub use scope::Scope;
pub(crate) use scope::{Entered, enter};
pub use slow::SlowCalls;

use crate::DrainStep;

/// Is told what happens.
///
/// It is called in the midst of work: it must be quick, and must neither block nor wait for anything. A panic
/// of it is caught and logged.
pub trait Observer: Send + Sync {
    /// Something has happened.
    fn observe(&self, event: &Event<'_>);

    /// A part of its own for one shard, which is called on that shard's thread alone, so that what it counts
    /// needs no lock and is contended by nobody. By default a shard uses the observer itself.
    fn for_shard(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    /// The trace context that is to travel with a call that is made here, in W3C's binary form: version, 16
    /// bytes of trace id, 8 of span id, flags. Asked behind the call's [`CallBegun`](Event::CallBegun), by its
    /// [number](Call::number). It takes the place of one that the call has already, which `CallBegun` tells.
    fn trace_context(&self, _call: u64) -> Option<[u8; 26]> {
        None
    }

    /// What the handler of a call that is served here runs in, by the call's [number](Call::number). Asked once,
    /// behind the call's [`CallBegun`](Event::CallBegun), and on the same thread.
    fn scope(&self, _call: u64) -> Option<Arc<dyn Scope>> {
        None
    }
}

/// Who is told. A handle: clones are the same list.
#[derive(Clone, Default)]
pub struct Observers(Option<Arc<[Arc<dyn Observer>]>>);

impl Observers {
    /// Adds one.
    pub fn add(&mut self, observer: Arc<dyn Observer>) {
        let before = self.0.iter().flat_map(|list| list.iter().cloned());
        self.0 = Some(before.chain([observer]).collect());
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Their parts for a shard.
    pub(crate) fn for_shard(&self) -> Observers {
        let part = |of: &Arc<dyn Observer>| of.for_shard().unwrap_or_else(|| Arc::clone(of));
        Observers(self.0.as_ref().map(|list| list.iter().map(part).collect()))
    }

    /// The trace context of a call, if one of them has it.
    pub(crate) fn trace_context(&self, call: u64) -> Option<[u8; 26]> {
        self.0.iter().flat_map(|list| list.iter()).find_map(|it| {
            catch_unwind(AssertUnwindSafe(|| it.trace_context(call))).unwrap_or_default()
        })
    }

    /// What a handler runs in: the scopes of all of them.
    pub(crate) fn scope(&self, call: u64) -> Option<Arc<dyn Scope>> {
        let scopes =
            self.0.iter().flat_map(|list| list.iter()).filter_map(|it| {
                catch_unwind(AssertUnwindSafe(|| it.scope(call))).unwrap_or_default()
            });
        scopes.reduce(scope::both)
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        for observer in self.0.iter().flat_map(|list| list.iter()) {
            // Somebody's code: with a panic of it, calls would be lost.
            if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
                log::error!("an observer panicked; the shard goes on");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observers").field(&self.0.as_ref().map_or(0, |list| list.len())).finish()
    }
}

/// What happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection is being opened, or was accepted.
    ConnectionOpened(Connection<'a>),
    /// Both sides have said HELLO: calls may be made.
    ConnectionEstablished(Connection<'a>),
    /// It is over.
    ConnectionClosed(Connection<'a>, CloseReason),
    /// A connection was closed at once, because there were too many.
    ConnectionTurnedAway,
    /// A call begins: at its caller before it is encoded, at its server before its handler is looked for.
    CallBegun(Call<'a>),
    /// A call that certainly did not run, because of its connection, is made again on the next one.
    CallRepeated(Call<'a>),
    /// A call is over.
    CallEnded(Call<'a>, CallEnd),
    /// A subscriber of a [`Topic`](crate::Topic) was too slow: it has missed an item, or was closed.
    SlowSubscriber {
        /// It gets nothing more.
        is_closed: bool,
    },
    /// A shard that ends its service has come so far.
    Draining(DrainStep),
    /// What the connections of a shard have done so far, in all. Told a second after something happened,
    /// and when the shard ends.
    Counted(&'a Counters),
}

/// A connection that something happens to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Connection<'a> {
    /// Names it among those of its shard.
    pub number: u64,
    /// [`Side::Client`] if it was opened here, [`Side::Server`] if it was accepted.
    pub side: Side,
    /// The other side's address, if it has one that says something: those who come by a unix socket have none.
    pub peer: Option<&'a Address>,
}

/// Which part of a call is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is made here.
    Caller,
    /// It is served here.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Caller => "caller",
            Role::Server => "server",
        })
    }
}

/// A call that something happens to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// Names it in this process, the same in all of its events; 0 in [`Event::CallRepeated`] of a call with a
    /// callback. Its two sides are told with different numbers.
    pub number: u64,
    /// Whose part of it.
    pub role: Role,
    /// The method's number; a server is told those of peers, which may be any.
    pub method: u64,
    /// The other side's address, as for a [`Connection`].
    pub peer: Option<&'a Address>,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// 0 is the most ordinary. What was claimed, whether or not the caller may.
    pub priority: u8,
    /// See [`request_flags`].
    pub flags: u8,
    /// How the argument is encoded.
    pub codec: Codec,
    /// The trace context that it came with, or that its caller was handed down, as it travels. Told when it
    /// begins, and anything that a peer likes.
    pub trace_context: Option<&'a [u8]>,
    /// When this happened.
    pub at: Instant,
}

/// Numbers of calls.
static NEXT: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The trace context among the extensions of a header.
pub(crate) fn trace_context_of(extensions: &[u8]) -> Option<&[u8]> {
    if extensions.is_empty() {
        return None;
    }
    let mut known = Extensions::new(extensions).map_while(Result::ok);
    known.find(|extension| extension.tag == tag::TRACE_CONTEXT).map(|extension| extension.value)
}

impl Call<'_> {
    /// `package.Service/method`, if this process knows a service with it. Takes a lock, and belongs in a cache.
    #[must_use]
    pub fn method_name(&self) -> Option<&'static str> {
        method_name(self.method)
    }

    /// Whether nobody will answer it.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.flags & request_flags::ONE_WAY != 0
    }

    /// Whether it has a stream of items in either direction.
    #[must_use]
    pub fn has_items(&self) -> bool {
        self.flags & (request_flags::ITEMS_IN | request_flags::ITEMS_OUT) != 0
    }

    /// Whether its argument is neither an archive nor raw: its caller was built from other types, or is of
    /// another language.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.codec != Codec::RKYV && self.codec != Codec::RAW
    }
}

/// How a call ended, and what it took.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallEnd {
    /// How.
    pub end: End,
    /// From its beginning to its end, on this side's clock.
    pub took: Duration,
    /// How long it waited at the server for its handler. A caller knows this from the answer; zero without one.
    pub queued: Duration,
    /// How long its handler had it, as above.
    pub handled: Duration,
    /// The length of the argument, in bytes, as it was encoded. 0 if it was not.
    pub request_bytes: usize,
    /// The length of the answer, in bytes. Items are not counted.
    pub reply_bytes: usize,
}

impl CallEnd {
    /// What is left for everything between the two sides: the network, and the queues before it.
    #[must_use]
    pub fn on_the_way(&self) -> Duration {
        self.took.saturating_sub(self.queued).saturating_sub(self.handled)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It was answered with this status. A caller is told successes and the handler's own errors so; a server
    /// whatever it said, refusals included.
    Answered(Status),
    /// A one-way call was sent. It may run.
    Sent,
    /// There is no answer.
    Failed(Failure),
}

/// What an end came to, in few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It is as it should be.
    Ok,
    /// The handler answered with its own error.
    Application,
    /// Nothing was sent.
    NotSent,
    /// It was not run.
    Refused,
    /// It may have run.
    Unknown,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] =
        [Class::Ok, Class::Application, Class::NotSent, Class::Refused, Class::Unknown];

    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::Ok => "ok",
            Class::Application => "application",
            Class::NotSent => "not_sent",
            Class::Refused => "refused",
            Class::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl End {
    /// What it came to.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            End::Sent => Class::Ok,
            End::Answered(status) => match status.class() {
                StatusClass::Ok => Class::Ok,
                StatusClass::Application => Class::Application,
                StatusClass::Refused => Class::Refused,
                StatusClass::Unknown => Class::Unknown,
            },
            End::Failed(failure) => match failure.class {
                FailureClass::NotSent => Class::NotSent,
                FailureClass::Refused => Class::Refused,
                FailureClass::Unknown => Class::Unknown,
            },
        }
    }

    /// Whether it is anything but a success.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.class() != Class::Ok
    }

    /// The status that was sent or received, if one was.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            End::Answered(status) => Some(*status),
            End::Sent => None,
            End::Failed(failure) => failure.status(),
        }
    }

    /// Whether its time was over.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        match self {
            End::Failed(failure) => failure.is_expired(),
            _ => matches!(self.status(), Some(Status::EXPIRED | Status::EXPIRED_RUNNING)),
        }
    }

    /// Whether it was refused to protect somebody: too much was going on.
    #[must_use]
    pub fn is_shed(&self) -> bool {
        self.status() == Some(Status::OVERLOADED)
            || matches!(
                self,
                End::Failed(Failure { cause: Cause::QueueFull | Cause::InFlightMax, .. })
            )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Answered(status) => write!(f, "{status}"),
            End::Sent => f.write_str("sent"),
            End::Failed(failure) => write!(f, "{failure}"),
        }
    }
}
