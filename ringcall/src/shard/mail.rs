//! What other threads leave for a shard.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, SyncSender};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Address, Bell as _, CloseReason, Encoded, Handle, Instant, Outgoing, Park, RequestId,
    TransportError,
};

use super::choice::TransportInfo;
use super::drain::Goodbye;
use super::draining::Farewell;
use super::engine::{Bell, Socket};
use super::incidents::Register;
use super::rousing::Crowds;
use crate::client::{
    Bridge, ConnectSlot, Destination, Outbox, PeerShared, RemoteEnd, RemoteSlot, Route, Security,
    Services,
};
use crate::observe::{Lines, Observers};
use crate::record::ConnectionRecord;
use crate::serve::limits::{Limits, Rates};
use crate::serve::{Sleeper, Tie};
use crate::sync::{ArrayQueue, AtomicBool, AtomicUsize, Mutex, Ordering, SegQueue, fence};

/// How many calls of other threads may wait for their shard; more wait with their callers.
const CALLS_MAX: usize = if cfg!(ringcall_loom) { 1 } else { 4096 };

/// A shard, as other threads see it.
pub(crate) struct Remote {
    bell: Bell,
    transport: TransportInfo,
    pub(crate) register: Register,
    /// Who is told of the calls that other threads make to its peers.
    pub(crate) observers: Observers,
    /// How long a body may be: of its peers, and of the connections that it opens.
    pub(crate) message_bytes_max: [usize; 2],
    calls: ArrayQueue<RemoteCall>,
    /// Callers that found `calls` full.
    crowded: Mutex<Vec<Waker>>,
    /// Everything that must not be refused. Bounded by what it is about: a cancel by its call, a reply
    /// by its request, and so on.
    notices: SegQueue<Notice>,
    woken: SegQueue<u32>,
    /// Callers whose answers are there.
    pub(super) crowds: Crowds,
    /// The future that drives the shard wants to be polled.
    root_woken: AtomicBool,
    /// How many drive it, one within another. Changed on its thread only.
    roots: AtomicUsize,
    /// The connections of which somebody holds a [`Peer`](crate::Peer).
    peers: Mutex<HashMap<Handle, Arc<PeerShared>>>,
    /// What their calls are made of.
    outbox: OnceLock<Outbox>,
    /// How many connections the shard has, or is about to have.
    pub(crate) connections: AtomicUsize,
    /// For handlers that go on for as long as the shard serves.
    pub(crate) farewell: Farewell,
    /// The shard is gone: nobody will read what is left here.
    is_gone: AtomicBool,
    /// About handlers that fail unexpectedly.
    pub(crate) internal_lines: Lines,
    /// About arguments and items that could not be read.
    pub(crate) unread_lines: Lines,
}

/// Fewer in a simulation, where shards begin and end all the time, and a full queue should come about.
fn calls_max() -> usize {
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated() {
        return 16;
    }
    CALLS_MAX
}

/// A call that another thread makes.
pub(crate) struct RemoteCall {
    pub(crate) to: Destination,
    pub(crate) outgoing: Outgoing,
    pub(crate) deadline: Instant,
    /// Whether it waits for room on its connection, or is refused when there is none.
    pub(crate) waits: bool,
    pub(crate) payload: Encoded,
    pub(crate) end: RemoteEnd,
}

/// A call with streams that another thread makes.
pub(crate) struct RemoteOpening {
    pub(crate) to: Destination,
    pub(crate) outgoing: Outgoing,
    pub(crate) payload: Encoded,
    pub(crate) bridge: Arc<Bridge>,
}

/// Where a shard listens.
#[derive(Debug)]
pub(crate) enum Place {
    Address(Address),
    /// A socket that listens already.
    Socket(OwnedFd),
}

/// Anything else that another thread has to say.
pub(crate) enum Notice {
    /// Nobody waits for this call any more.
    Cancel(Arc<RemoteSlot>),
    /// A call with streams.
    Open(Box<RemoteOpening>),
    Connect(Route, Security, Services, Arc<ConnectSlot>),
    /// The addresses of the name that has this number among those that are looked up.
    Found(u32, Result<Vec<Address>, String>),
    /// Somebody wants to hear of the end of this connection, which may be over already.
    Watch(Handle),
    /// Somebody waits for this client, which may not have connected yet.
    WakeUp(u32),
    /// The last client of a connection is gone.
    Release(u32),
    /// A connection that another shard has accepted.
    Adopt(Socket),
    /// An answer that was made on another thread.
    Reply {
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: Encoded,
    },
    /// A handler on another thread begins with a tied call.
    Begun(Handle, Tie),
    /// Wake somebody on another thread after a while.
    Timer(Duration, Arc<Sleeper>),
    /// End the service; and say when that has begun.
    Goodbye(Goodbye, Option<SyncSender<()>>),
    /// Listen there, and nowhere else; and say where that is.
    Listen(Place, SyncSender<Result<Address, TransportError>>),
    /// A successor wants the listener.
    HandOver(SyncSender<Result<Socket, TransportError>>),
    /// Other limits, those of one shard, and what counts their rates.
    Limits(Arc<Limits>, Option<Arc<Rates>>),
    /// The server is in another group; calls to the one before are served for so long.
    Group(Option<Arc<str>>, Duration),
    /// Somebody wants what is recorded of its connections.
    Records(Sender<Vec<ConnectionRecord>>),
}

impl Remote {
    pub(crate) fn new(
        bell: Bell,
        transport: TransportInfo,
        register: Register,
        observers: Observers,
        message_bytes_max: [usize; 2],
    ) -> Arc<Remote> {
        Arc::new(Remote {
            bell,
            transport,
            register,
            observers,
            message_bytes_max,
            calls: ArrayQueue::new(calls_max()),
            crowded: Mutex::new(Vec::new()),
            notices: SegQueue::new(),
            woken: SegQueue::new(),
            crowds: Crowds::default(),
            root_woken: AtomicBool::new(false),
            roots: AtomicUsize::new(0),
            peers: Mutex::default(),
            outbox: OnceLock::new(),
            connections: AtomicUsize::new(0),
            farewell: Farewell::default(),
            is_gone: AtomicBool::new(false),
            internal_lines: Lines::default(),
            unread_lines: Lines::default(),
        })
    }

    // ---- from other threads ----

    /// Leaves a call; gives it back if there is no room, and wakes `waker` when there is, or when the shard is
    /// gone. A call that was left has its end, whatever becomes of the shard.
    #[expect(clippy::result_large_err, reason = "comes back as it was; a box would allocate")]
    pub(crate) fn call(&self, call: RemoteCall, waker: &Waker) -> Result<(), RemoteCall> {
        let Err(call) = self.calls.push(call) else {
            self.has_left();
            return Ok(());
        };
        self.crowded.lock().push(waker.clone());
        // There may have been room again before we were on the list.
        let Err(call) = self.calls.push(call) else {
            self.has_left();
            return Ok(());
        };
        Err(call)
    }

    pub(crate) fn notify(&self, notice: Notice) {
        self.notices.push(notice);
        self.has_left();
    }

    /// Something lies in the mailbox.
    fn has_left(&self) {
        // After what was left: either whoever closes the mailbox sees it, or we see that it is closed.
        self.bell.ring();
        if self.is_gone() {
            self.return_mail();
        }
    }

    pub(crate) fn wake_task(&self, index: u32) {
        self.woken.push(index);
        self.bell.ring();
    }

    pub(crate) fn wake_root(&self) {
        self.root_woken.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// It is to turn, although nothing was left.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// Which engine it runs on.
    pub(crate) fn transport(&self) -> &TransportInfo {
        &self.transport
    }

    /// The shard's own thread has left work elsewhere than in the mailbox.
    #[inline]
    pub(crate) fn ring_oneself(&self) {
        self.bell.ring_oneself();
    }

    /// The other side of a connection, for whoever wants to call it.
    pub(crate) fn peer(self: &Arc<Self>, handle: Handle) -> Arc<PeerShared> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(&handle) {
            return Arc::clone(peer);
        }
        let outbox = self.outbox.get_or_init(Outbox::default).clone();
        let peer = Arc::new(PeerShared::new(Arc::clone(self), handle, outbox));
        if self.is_gone() {
            peer.end(CloseReason::Local);
            return peer;
        }
        peers.insert(handle, Arc::clone(&peer));
        drop(peers);
        self.notify(Notice::Watch(handle));
        peer
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    // ---- from the shard ----

    pub(crate) fn has_mail(&self) -> bool {
        !self.calls.is_empty()
            || !self.notices.is_empty()
            || !self.woken.is_empty()
            // One that has ended can be woken for ever, and nobody would poll it.
            || (self.root_woken.load(Ordering::Acquire) && self.roots.load(Ordering::Relaxed) > 0)
    }

    /// A future begins to drive the shard: it is polled first.
    pub(crate) fn enter_root(&self) {
        self.roots.fetch_add(1, Ordering::Relaxed);
        self.wake_root();
    }

    /// It has ended. What it was woken for may have been for the one around it.
    pub(crate) fn leave_root(&self) {
        self.roots.fetch_sub(1, Ordering::Relaxed);
        self.wake_root();
    }

    /// Waits, unless there is mail.
    pub(crate) fn park<E: Park>(&self, engine: &mut E, timeout: Option<Duration>) {
        engine.arm();
        // From here on whoever leaves work rings; what was left before is seen here.
        engine.park(if self.has_mail() { Some(Duration::ZERO) } else { timeout });
    }

    // To look for something in vain is a fence, and there is hardly ever something. What is missed is seen before the
    // shard waits.
    pub(crate) fn next_call(&self) -> Option<RemoteCall> {
        if self.calls.is_empty() { None } else { self.calls.pop() }
    }

    /// There is room for calls again.
    pub(crate) fn admit_crowd(&self) {
        // Looking costs less than locking, and whoever comes later tries again by itself.
        if self.calls.is_empty() {
            let crowd = std::mem::take(&mut *self.crowded.lock());
            crowd.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn next_notice(&self) -> Option<Notice> {
        if self.notices.is_empty() { None } else { self.notices.pop() }
    }

    pub(crate) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// A task that another thread has woken.
    pub(crate) fn next_woken(&self) -> Option<u32> {
        if self.has_woken() { self.woken.pop() } else { None }
    }

    pub(crate) fn take_root_woken(&self) -> bool {
        self.root_woken.swap(false, Ordering::AcqRel)
    }

    /// A connection is over.
    pub(crate) fn end_peer(&self, handle: Handle, reason: CloseReason) {
        let peer = self.peers.lock().remove(&handle);
        if let Some(peer) = peer {
            peer.end(reason);
        }
    }

    /// The shard ends: whoever waits for it is told.
    pub(crate) fn close(&self) {
        self.is_gone.store(true, Ordering::Release);
        // Before the mailbox is emptied: pairs with the fence of `ring`.
        fence(Ordering::SeqCst);
        self.return_mail();
        self.farewell.say();
        let crowd = std::mem::take(&mut *self.crowded.lock());
        crowd.into_iter().for_each(Waker::wake);
        let peers = std::mem::take(&mut *self.peers.lock());
        peers.into_values().for_each(|peer| peer.end(CloseReason::Local));
    }

    /// Nobody will read what lies in the mailbox. What the shard has taken is not there any more, and has its end
    /// from the shard: only of the rest it is certain that it did not run.
    fn return_mail(&self) {
        while let Some(call) = self.calls.pop() {
            call.end.shut_down();
        }
        while let Some(notice) = self.notices.pop() {
            match notice {
                Notice::Connect(_, _, _, slot) => slot.shut_down(),
                Notice::Open(opening) => opening.bridge.shut_down(),
                // There is no time here any more: what was to be waited for is over.
                Notice::Timer(_, sleeper) => sleeper.wake(),
                _ => {}
            }
        }
    }
}

#[cfg(all(test, not(ringcall_loom)))]
mod tests {
    use std::sync::mpsc::{TryRecvError, sync_channel};

    use ringcall_net::Doorbell;

    use super::*;

    #[test]
    fn what_is_left_for_a_shard_that_is_gone_comes_back() {
        let transport = TransportInfo::new("none", String::new());
        let register = Register::new(Arc::default());
        let bell = Doorbell::new().unwrap();
        let remote = Remote::new(bell, transport, register, Observers::default(), [0; 2]);
        remote.close();
        let (successor, waiting) = sync_channel(1);
        remote.notify(Notice::HandOver(successor));
        assert!(matches!(waiting.try_recv(), Err(TryRecvError::Disconnected)));
    }
}
