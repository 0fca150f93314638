//! Bytes as the first that a connection receives.

use std::time::Duration;

use crate::harness::raw::Raw;
use ringcall_core::{CloseReason, Config, Expected, Identity, Memory, MemoryLimits, Side};

thread_local! {
    /// That of all runs, since most of their time would go into making it.
    static MEMORY: Memory = Memory::new(MemoryLimits::default());
    /// Who is expected, if the other side says who it is.
    static EXPECTED: Expected = Expected::new(Identity::new("a1").expect("it is one"));
}

/// Gives a preface and a HELLO, or what may be one, to a connection of either side.
///
/// # Panics
/// When it depends on how the bytes are cut, takes limits that make no sense, answers a stranger, says
/// what its other end would not accept, or waits for longer than it should.
pub fn handshake(data: &[u8]) {
    let Some((&mode, bytes)) = data.split_first() else { return };
    let side = if mode & 1 == 0 { Side::Server } else { Side::Client };
    let split = 1 + usize::from(mode >> 1);
    let whole = open(side, usize::MAX, bytes);
    let cut = open(side, split, bytes);
    // Somebody who says goodbye is left as soon as nothing else has arrived.
    if !whole.said_goodbye {
        assert_eq!(whole, cut, "{side:?}, cut at {split}");
    }
}

#[derive(Debug, PartialEq)]
struct Opened {
    established: bool,
    said_goodbye: bool,
    closed: Option<CloseReason>,
    sent: Vec<u8>,
}

fn open(side: Side, split: usize, bytes: &[u8]) -> Opened {
    let memory = MEMORY.with(Memory::clone);
    let at_first = memory.pool().stats().lent_bytes;
    let mut raw = Raw::with_memory(side, Config::new(), &memory);
    raw.split = split;
    raw.connection.expect_peer(EXPECTED.with(Expected::clone));
    let before = raw.now;
    raw.send_bytes(bytes);
    let sent = raw.transmit(before, usize::MAX);
    let (established, closed) = (raw.established, raw.closed);
    if let Some(CloseReason::UnknownPreface(_) | CloseReason::PeerSpeaksTls) = closed {
        assert!(side == Side::Client || sent.is_empty(), "a stranger gets nothing");
    }
    assert!(sent.len() < 4096);
    if !established {
        let lent = raw.lent().saturating_sub(at_first);
        assert!(lent <= (64 << 10) + 2 * 4096, "{lent} bytes are held before HELLO");
    }
    let wrong = EXPECTED.with(|it| it.check(raw.connection.identity()).is_err());
    assert_eq!(
        wrong,
        closed == Some(CloseReason::WrongInstance),
        "{:?}",
        raw.connection.identity()
    );
    assert_eq!(raw.connection.mismatch().is_some(), wrong);
    if let Some(hello) = raw.connection.peer() {
        assert!(established && hello.version_min <= 1 && hello.version_max >= 1);
        assert!(hello.in_flight_max > 0 && hello.message_bytes_max > 0);
        for window in [hello.calls_window, hello.replies_window] {
            assert!(window >= hello.message_bytes_max.saturating_mul(2) && window <= 1 << 48);
        }
    }
    understood(side.other(), closed, &sent);
    raw.pass(Duration::from_secs(6));
    assert!(established || raw.closed.is_some(), "a handshake has five seconds");
    raw.end(CloseReason::Local);
    Opened { established, said_goodbye: raw.goaways > 0, closed, sent }
}

/// The other end takes whatever this one has said.
fn understood(side: Side, closed: Option<CloseReason>, sent: &[u8]) {
    let mut other = MEMORY.with(|memory| Raw::with_memory(side, Config::new(), memory));
    other.send_bytes(sent);
    match (other.closed, closed) {
        // Both were told to go.
        (None | Some(CloseReason::Local), _) => {}
        (Some(CloseReason::GoAway(code)), Some(reason)) => assert_eq!(code, reason.code()),
        (Some(fault), _) => panic!("{fault:?} in what it says"),
    }
}
