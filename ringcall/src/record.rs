//! Records of connections while a program runs, for `cargo xtask replay`.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use ringcall_core::record::{Keep, RecordSettings};
use ringcall_core::{Address, CloseCode, CloseReason, Side};

/// How many records of connections that have ended are kept unless somebody takes them.
const ENDED_MAX: usize = 16;

/// Records connections of servers and shards: what they are told, with bodies and values hidden unless they are
/// wanted. Clones are the same recorder, which may be given to several.
///
/// A connection that is recorded takes some more time for everything, and as much memory as
/// [`Keep`] says. Others take neither.
///
/// ```no_run
/// use ringcall::record::{ConnectionRecorder, Keep, RecordSettings};
///
/// let recorder = ConnectionRecorder::new(RecordSettings::new(Keep::First(1 << 20))).one_in(100);
/// let server = ringcall::Server::bind("127.0.0.1:7000").record(&recorder).start()?;
/// // Later, when a connection has ended with an error, or `server.records()` for those that go on:
/// for record in recorder.take() {
///     std::fs::write(format!("{}.ringrec", record.number), &record.bytes)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ConnectionRecorder(Arc<Inner>);

struct Inner {
    settings: RecordSettings,
    one_in: AtomicU64,
    peers: Mutex<Vec<IpAddr>>,
    /// Connections that could have been recorded.
    seen: AtomicU64,
    ended: Mutex<Vec<ConnectionRecord>>,
}

/// What was recorded of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// Which one, among those that its recorder has seen.
    pub number: u64,
    /// Which end this was.
    pub side: Side,
    /// The other end, if it is known.
    pub peer: Option<Address>,
    /// Why it has ended, if it has.
    pub reason: Option<CloseReason>,
    /// The record, as a file has it: for `cargo xtask replay`.
    pub bytes: Vec<u8>,
}

impl ConnectionRecorder {
    /// Records every connection.
    #[must_use]
    pub fn new(settings: RecordSettings) -> ConnectionRecorder {
        ConnectionRecorder(Arc::new(Inner {
            settings,
            one_in: AtomicU64::new(1),
            peers: Mutex::default(),
            seen: AtomicU64::new(0),
            ended: Mutex::default(),
        }))
    }

    /// Records one connection in `n` only, the first among them; none if it is zero.
    #[must_use]
    pub fn one_in(self, n: u64) -> ConnectionRecorder {
        self.0.one_in.store(n, Ordering::Relaxed);
        self
    }

    /// Records connections with this address only, or with others that were named.
    #[must_use]
    pub fn peer(self, address: IpAddr) -> ConnectionRecorder {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner).push(address);
        self
    }

    /// Takes the records of connections that have ended with an error: other than by a goodbye, of either
    /// side, that says nothing is wrong. The last 16 are kept.
    #[must_use]
    pub fn take(&self) -> Vec<ConnectionRecord> {
        std::mem::take(&mut *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether to record a new connection, and its number.
    pub(crate) fn choose(&self, peer: Option<&Address>) -> Option<(u64, RecordSettings)> {
        let peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = |ip: IpAddr| peers.contains(&ip);
        let is_one = match peer {
            _ if peers.is_empty() => true,
            Some(Address::Tcp(address)) => is_named(address.ip()),
            _ => false,
        };
        if !is_one {
            return None;
        }
        let number = self.0.seen.fetch_add(1, Ordering::Relaxed);
        let is_due = number.checked_rem(self.0.one_in.load(Ordering::Relaxed)) == Some(0);
        is_due.then_some((number, self.0.settings))
    }

    /// A connection has ended.
    pub(crate) fn ended(&self, record: ConnectionRecord) {
        let mut ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() == ENDED_MAX {
            ended.remove(0);
        }
        ended.push(record);
    }
}

/// Whether a connection that ended so is worth looking at.
pub(crate) fn is_error(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::Local | CloseReason::PeerClosed | CloseReason::GoAway(CloseCode::NONE)
    )
}

impl fmt::Debug for ConnectionRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionRecorder")
            .field("settings", &self.0.settings)
            .field("seen", &self.0.seen)
            .finish_non_exhaustive()
    }
}
