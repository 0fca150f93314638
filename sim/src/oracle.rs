//! What must hold at every step, seen from outside: memory, credit, and who may be accused of what.

use ringcall_core::{CloseReason, Connection, Handle, TransportError};

use crate::app::End;
use crate::ledger::CallNo;
use crate::net::{LinkId, Net};
use crate::node::{IN_FLIGHT_SET, Life, MESSAGE_MAX, Sizes};
use crate::shared::Shared;
use crate::transport::CHUNK_BYTES;

/// What holds a body that came in an ordinary receive.
const CHUNK_BLOCK: u64 = (CHUNK_BYTES + 16) as u64;
const BLOCK: u64 = ringcall_buf::BLOCK_BYTES as u64;

/// A shard holds no more than ARCHITECTURE.md says ("Memory that a peer can make us hold"), for each of its
/// connections.
pub(crate) fn memory(life: &Life, sizes: &Sizes, shared: &mut Shared, node: usize) {
    let (pool, one) = (life.memory.pool(), of_connection(sizes) as usize);
    let (held, bound) = (pool.held_bytes(), pool.bound().full);
    assert!(
        held <= bound.saturating_add(one),
        "node {node} holds {held} bytes, {bound} and what one connection may hold are allowed"
    );
    let lent = pool.stats().lent_bytes as u64;
    if lent <= BLOCK {
        return;
    }
    // Handlers of a connection that has just gone may still hold their arguments.
    let connections = 1 + life.end.connections() as u64;
    let most = BLOCK + connections * of_connection(sizes);
    shared.memory_worst = shared.memory_worst.max(lent * 1000 / most);
    assert!(lent <= most, "node {node} holds {lent} bytes, {most} are allowed");
}

fn of_connection(sizes: &Sizes) -> u64 {
    // A body has the next power of two as its size.
    let windows = 2 * (sizes.calls_window + sizes.replies_window);
    // Each call that runs, and each item that nobody took, may keep its receive buffer.
    let in_flight = u64::from(sizes.in_flight_max.max(IN_FLIGHT_SET));
    let items = (sizes.calls_window + sizes.replies_window) / 1024 + 128;
    let kept = (2 * in_flight + items) * CHUNK_BLOCK;
    // A frame in pieces, and what the transport has not handed over.
    let receiving = 6 * CHUNK_BLOCK;
    // What is not sent: own calls up to the queue's limit and one message; answers to all calls, of which
    // long ones are not in the pool; and the blocks that their first and last bytes keep.
    let sending = sizes.send_queue_max + MESSAGE_MAX + in_flight * CHUNK_BLOCK + 4 * BLOCK;
    windows + kept + receiving + sending
}

/// What may excuse an end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Whose clock jumps again and again asks too often for the others.
    pub(crate) is_wild: bool,
    pub(crate) is_peer_wild: bool,
    pub(crate) has_peer_little_memory: bool,
}

/// Two honest sides never accuse each other, and nobody gives up a connection to which nothing happened.
pub(crate) fn closed(
    net: &Net,
    link: LinkId,
    node: usize,
    reason: CloseReason,
    facts: Facts,
    ends: String,
) {
    let link_ = &net.links[link];
    let (disturbed, cut) = (link_.is_disturbed, link_.is_cut);
    let is_fine = match reason {
        CloseReason::Local | CloseReason::PeerClosed | CloseReason::MemoryShort => true,
        CloseReason::Transport(TransportError::Reset | TransportError::Os(_)) => cut,
        CloseReason::Transport(_)
        | CloseReason::Truncated
        | CloseReason::HandshakeTimeout
        | CloseReason::BodyStalled
        | CloseReason::SendStalled
        | CloseReason::PeerSilent => disturbed,
        CloseReason::TooManyPings => disturbed && facts.is_peer_wild,
        CloseReason::GoAway(code) => match code.0 {
            0 => true,
            20..=24 => disturbed,
            25 => disturbed && facts.is_wild,
            31 => facts.has_peer_little_memory,
            _ => false,
        },
        _ => false,
    };
    assert!(
        is_fine,
        "node {node} ends link {link} for {reason:?} (disturbed {disturbed}, cut {cut}): {ends}"
    );
}

/// What one side may send and what the other one holds are never more than the window.
pub(crate) fn credit(sender: &End, receiver: &End, handles: [Handle; 2], sizes: &Sizes) {
    let (Some(from), Some(to)) = (sender.connection(handles[0]), receiver.connection(handles[1]))
    else {
        return;
    };
    if from.has_ended() || to.has_ended() {
        return;
    }
    // Less by what is on its way, in either direction.
    let ((calls, replies), granted) = (from.credit_available(), to.credit_granted());
    assert!(calls <= granted.0, "{calls} of the calls pool, {} were granted", granted.0);
    assert!(replies <= granted.1, "{replies} of the replies pool, {} were granted", granted.1);
    let (calls_held, replies_held) = to.credit_held();
    assert!(granted.0 + calls_held <= sizes.calls_window, "{granted:?} and {calls_held} of calls");
    let all = granted.1 + replies_held;
    assert!(all <= sizes.replies_window, "{granted:?} and {replies_held} of replies");
}

/// Both ends of a connection, with their settings.
pub(crate) struct Pair<'a>(pub(crate) [(&'a Connection<CallNo>, &'a Sizes); 2]);

impl Pair<'_> {
    /// How much waits to be sent.
    pub(crate) fn bytes_queued(&self) -> usize {
        self.0.iter().map(|(connection, _)| connection.bytes_queued()).sum()
    }

    /// Whether nothing does, and no call that was given up waits for its answer.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle =
            |(connection, _): &(&Connection<CallNo>, _)| connection.calls_in_flight() == 0;
        self.bytes_queued() == 0 && self.0.iter().all(is_idle)
    }
}

/// A connection at rest is as it was at the beginning.
pub(crate) fn at_rest(pair: &Pair<'_>) {
    let Pair([one, other]) = *pair;
    for ((from, _), (to, sizes)) in [(one, other), (other, one)] {
        assert_eq!((to.calls_in_flight(), to.calls_served()), (0, 0), "slots are left");
        assert_eq!(to.credit_held(), (0, 0), "bodies are held that nobody has");
        assert_eq!(to.items_held(), (0, 0), "items are held that nobody has");
        assert_eq!(from.bytes_queued(), 0, "bytes wait for nothing");
        let (calls, replies) = from.credit_available();
        assert_eq!((calls, replies), to.credit_granted(), "credit was lost or made on its way");
        // What is kept back is less than a quarter.
        for (left, window) in [(calls, sizes.calls_window), (replies, sizes.replies_window)] {
            assert!(left > window / 4 * 3 - 4, "credit was lost: {left} of {window} is left");
            assert!(left <= window, "credit was made: {left} of {window}");
        }
    }
}
