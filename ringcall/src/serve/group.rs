//! The group that a server is in, and how it is moved to another one while it serves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringcall_core::Instant;

use crate::shard::{Notice, Remote};

/// The group of a server that serves: from [`RunningServer::group`](crate::RunningServer::group), or handed to
/// [`Register::take_group`](crate::Register::take_group) by one that is [run](crate::Server::run). Clones are of the same server.
///
/// ```no_run
/// use std::time::Duration;
///
/// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
/// # struct Mirror;
/// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
/// let server = ringcall::Server::bind("127.0.0.1:7000").service(Mirror.into_echo()).group("green").start()?;
/// let group = server.group().clone();
/// // Calls that were routed to green are served for 15 s more, since callers hear of it one after another.
/// group.move_to("blue", Duration::from_secs(15));
/// # Ok::<(), ringcall::ServeError>(())
/// ```
#[derive(Clone)]
pub struct ServedGroup(Arc<Shared>);

struct Shared {
    shards: Vec<Arc<Remote>>,
    /// What it was started with.
    own: Option<Arc<str>>,
    now: Mutex<Option<Arc<str>>>,
}

impl ServedGroup {
    pub(crate) fn new(shards: Vec<Arc<Remote>>, own: Option<Arc<str>>) -> ServedGroup {
        ServedGroup(Arc::new(Shared { shards, now: Mutex::new(own.clone()), own }))
    }

    /// The group that it is in; `None` if it serves calls that were routed to any.
    #[must_use]
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.now.lock().clone()
    }

    /// Moves it to this group: calls that were routed to another one are refused, as by [`Server::group`](crate::Server::group),
    /// but for those to the group that it leaves, which are served for as long as `grace`. Each shard goes by it from its next turn
    /// on, which is a moment after this returns. Where it is already nothing changes.
    ///
    /// Of groups that were left shortly one after another the last four are known.
    pub fn move_to(&self, group: &str, grace: Duration) {
        self.set(Some(group.into()), grace);
    }

    /// Moves it back to what [`Server::group`](crate::Server::group) said, or to serving calls to all groups if that said nothing.
    pub fn move_back(&self, grace: Duration) {
        self.set(self.0.own.clone(), grace);
    }

    fn set(&self, group: Option<Arc<str>>, grace: Duration) {
        // One after another: the last one is the last one everywhere.
        let mut now = self.0.now.lock();
        if *now == group {
            return;
        }
        for shard in &self.0.shards {
            shard.notify(Notice::Group(group.clone(), grace));
        }
        *now = group;
    }
}

impl fmt::Debug for ServedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedGroup").field("group", &self.get()).finish_non_exhaustive()
    }
}

/// Groups that were left and are served still.
const LEFT_MAX: usize = 4;

/// The groups whose calls a shard serves. `None` is all of them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    current: Option<Arc<str>>,
    /// Until when.
    left: Vec<(Option<Arc<str>>, Instant)>,
}

impl Groups {
    pub(crate) fn new(current: Option<Arc<str>>) -> Groups {
        Groups { current, left: Vec::new() }
    }

    /// Whether it matters what calls were routed to.
    pub(crate) fn matter(&self) -> bool {
        self.current.is_some()
    }

    pub(crate) fn serve(&self, group: Option<&[u8]>, now: impl FnOnce() -> Instant) -> bool {
        let serves =
            |own: &Option<Arc<str>>| own.as_ref().is_none_or(|own| group == Some(own.as_bytes()));
        if serves(&self.current) {
            return true;
        }
        if self.left.is_empty() {
            return false;
        }
        let now = now();
        self.left.iter().any(|(left, until)| now < *until && serves(left))
    }

    pub(crate) fn move_to(&mut self, group: Option<Arc<str>>, now: Instant, until: Instant) {
        if group == self.current {
            return;
        }
        self.left.retain(|(_, until)| now < *until);
        if self.left.len() == LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push((std::mem::replace(&mut self.current, group), until));
    }
}
