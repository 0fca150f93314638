//! Marks: places and situations that seeds should come to. A simulator that never gets somewhere proves
//! nothing about it, so a run of a thousand seeds that leaves a mark out fails.

use crate::knobs::Fault;

macro_rules! marks {
    ($($(#[$doc:meta])* $mark:ident,)*) => {
        /// Something that should have happened in some seed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mark { $($(#[$doc])* $mark,)* }

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$(Mark::$mark,)*];
        }
    };
}

marks! {
    /// An ordinary answer.
    AnswerOk,
    /// The error of an application.
    AnswerError,
    /// A one-way call was taken by a transport.
    OneWaySent,
    /// A one-way call ran.
    OneWayRan,
    /// An answer of at least 16 KiB.
    LargeAnswer,
    /// An argument of at least 16 KiB.
    LargeArgument,
    /// A body was received straight into its own memory.
    Landed,
    /// A body was copied because it was misaligned.
    CopiedMisaligned,
    /// A body was copied because too much receive memory is held.
    CopiedHoard,
    /// A stream of the caller was read to its end.
    ItemsInEnded,
    /// A stream of an answer was read to its end.
    ItemsOutEnded,
    /// A stream was told to wait.
    StreamBlocked,
    /// A stream was told to go on.
    StreamWritable,
    /// Items of both directions at once.
    BothWaysItems,
    /// A server ended a call whose items were still coming.
    EndedEarly,
    /// A handler called its caller back.
    CalledBack,
    /// A call expired at its caller.
    Expired,
    /// A deadline passed while a handler had the call.
    ExpiredAtServer,
    /// A call was refused because it had expired in a queue.
    ExpiredInQueue,
    /// A caller gave a call up.
    CancelledByCaller,
    /// A handler was told that nobody waits.
    CancelTold,
    /// An answer came for a call that had been given up.
    LateReply,
    /// A call was refused: all slots are in use.
    InFlightMax,
    /// A call was refused: too much waits.
    QueueFull,
    /// A call was refused: too large.
    TooLarge,
    /// A call waited for credit.
    WaitedForCredit,
    /// A reply could not be sent: too large.
    ReplyFailed,
    /// A failure that says *not sent*, of a call that had been accepted.
    NotSent,
    /// A failure that says *refused*.
    Refused,
    /// A failure that says *unknown*.
    Unknown,
    /// A call was made again.
    Retried,
    /// A call was made again, and answered.
    RetriedOk,
    /// A connection was told to stop.
    GoAway,
    /// A request came after the GOAWAY that did not count it.
    AfterGoAway,
    /// A node drained to its end.
    Drained,
    /// A PING was answered.
    Pong,
    /// Limits changed under load.
    LimitsChanged,
    /// A connection ended: its peer was silent.
    PeerSilent,
    /// A connection ended: its peer did not read.
    SendStalled,
    /// A connection ended: a body did not go on.
    BodyStalled,
    /// A connection was closed: it held too much where memory is short.
    MemoryShort,
    /// A connection ended: no HELLO in time.
    HandshakeTimeout,
    /// A connection ended inside a frame.
    Truncated,
    /// A connection ended between frames.
    PeerClosed,
    /// A connection ended by a reset.
    ResetSeen,
    /// Connecting took too long.
    ConnectTimeout,
    /// Nobody listened.
    ConnectRefused,
    /// A connection was drained because it was idle or old.
    Retired,
    /// A connection came to rest with all credit back.
    CreditBack,
    /// A one-way call whose connection had no fault ran.
    OneWayKept,
}

const FAULTS: usize = Fault::ALL.len();
const LEN: usize = FAULTS + Mark::ALL.len();

/// How often each fault and each mark has come about.
#[derive(Clone, Copy, Debug)]
pub struct Marks([u64; LEN]);

impl Default for Marks {
    fn default() -> Marks {
        Marks([0; LEN])
    }
}

impl Marks {
    pub(crate) fn hit(&mut self, mark: Mark) {
        self.0[FAULTS + mark as usize] += 1;
    }

    pub(crate) fn count(&mut self, mark: Mark, n: u64) {
        self.0[FAULTS + mark as usize] += n;
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Adds those of another seed.
    pub fn add(&mut self, other: &Marks) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }

    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let faults = Fault::ALL.iter().map(|fault| format!("fault {}", fault.name()));
        let marks = Mark::ALL.iter().map(|mark| format!("mark {mark:?}"));
        faults.chain(marks).zip(self.0)
    }
}
