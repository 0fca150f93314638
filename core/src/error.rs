//! Why calls fail and connections end.

use core::fmt;

use crate::EncodeError;
use crate::{Status, StatusClass};

/// Why a connection ended. `Copy`, so that every call that it takes along can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    // The other side broke the protocol.
    /// The first bytes are not ringcall's; they are here so that a gateway can tell whose they are.
    UnknownPreface([u8; 8]),
    /// No common version; the other side speaks these.
    Version {
        /// The lowest version it speaks.
        min: u8,
        /// The highest one.
        max: u8,
    },
    /// A frame is longer than announced limits allow.
    FrameTooLarge,
    /// A header is not a multiple of 16, longer than its frame, or shorter than its kind's fixed part.
    BadHeader,
    /// Bytes between frames are not zero.
    BadPadding,
    /// A frame of a kind that may not be ignored.
    UnknownKind(u8),
    /// A flag that may not be ignored.
    UnknownFlags(u8),
    /// A frame of a kind without body has one, or a body contradicts its announced length.
    BadLength,
    /// The first frame is not HELLO, a second HELLO came, or its limits make no sense.
    BadHello,
    /// An extension of HELLO that may not be ignored.
    UnknownExtension(u16),
    /// A frame names a call that its sender cannot have made.
    BadId,
    /// A slot is not below the limit.
    SlotOutOfRange,
    /// A slot is used again before its call ended.
    IdReused,
    /// DATA does not continue its body where it stopped.
    DataOutOfOrder,
    /// More body bytes than there was credit for.
    CreditExceeded,
    /// Credit of zero, or more than any window can have.
    BadCredit,
    /// Too many replies to calls that do not exist.
    UnknownReplies,
    /// Too many bytes of frames that had to be ignored.
    TooMuchIgnored,
    /// It uses a part of the protocol that was not agreed upon.
    NotNegotiated,
    /// The stream ended inside a frame.
    Truncated,
    /// It asks for signs of life too often.
    TooManyPings,
    /// It cancels more calls, right after making them, than anybody has a use for.
    TooManyCancels,
    /// Control frames that nothing calls for.
    TooManyControlFrames,
    /// Bodies in parts that are hardly more than their heads.
    SmallParts,
    /// An ITEM, an END, or a REPLY that begins a stream, where the call has no such stream, or has no more.
    BadStream,

    // The other side took too long.
    /// No HELLO in time.
    HandshakeTimeout,
    /// An announced body stopped arriving.
    BodyStalled,
    /// It stopped reading, or reads hardly anything.
    SendStalled,
    /// It gave no sign of life, also when it was asked for one.
    PeerSilent,

    // Orderly ends.
    /// The other side said goodbye with this code.
    GoAway(CloseCode),
    /// The other side closed the connection between frames.
    PeerClosed,
    /// This side closed it.
    Local,

    // The transport's reasons.
    /// Nobody listens there, or the connection was reset.
    Transport(TransportError),
}

/// What went wrong below the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody listens at the address.
    Refused,
    /// The peer's machine reset the connection.
    Reset,
    /// The peer's machine did not answer in time.
    TimedOut,
    /// The address cannot be reached.
    Unreachable,
    /// The address is already in use.
    AddressInUse,
    /// The address is not one of this machine, or not of a form that the transport can use.
    BadAddress,
    /// The operating system does not allow it.
    PermissionDenied,
    /// No file descriptor or kernel memory left.
    Exhausted,
    /// What the transport cannot do.
    Unsupported,
    /// Another error of the operating system, by its number.
    Os(i32),
}

/// Why a connection ends, as it stands in a GOAWAY frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// No fault: stopping, idle, too old.
    pub const NONE: CloseCode = CloseCode(0);
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl CloseReason {
    /// The one place where reasons become wire codes.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        CloseCode(match self {
            CloseReason::Local | CloseReason::PeerClosed | CloseReason::Transport(_) => 0,
            CloseReason::GoAway(code) => code.0,
            CloseReason::UnknownPreface(_) => 1,
            CloseReason::Version { .. } => 2,
            CloseReason::FrameTooLarge => 3,
            CloseReason::BadHeader => 4,
            CloseReason::BadPadding => 5,
            CloseReason::UnknownKind(_) => 6,
            CloseReason::UnknownFlags(_) => 7,
            CloseReason::BadLength => 8,
            CloseReason::BadHello => 9,
            CloseReason::UnknownExtension(_) => 10,
            CloseReason::BadId => 11,
            CloseReason::SlotOutOfRange => 12,
            CloseReason::IdReused => 13,
            CloseReason::DataOutOfOrder => 14,
            CloseReason::CreditExceeded => 15,
            CloseReason::BadCredit => 16,
            CloseReason::UnknownReplies => 17,
            CloseReason::TooMuchIgnored => 18,
            CloseReason::NotNegotiated => 19,
            CloseReason::Truncated => 20,
            CloseReason::HandshakeTimeout => 21,
            CloseReason::BodyStalled => 22,
            CloseReason::SendStalled => 23,
            CloseReason::PeerSilent => 24,
            CloseReason::TooManyPings => 25,
            CloseReason::TooManyCancels => 26,
            CloseReason::TooManyControlFrames => 27,
            CloseReason::SmallParts => 28,
            CloseReason::BadStream => 30,
        })
    }

    /// Whether the other side broke the protocol (rather than ended, or was slow).
    #[must_use]
    pub const fn is_protocol_error(self) -> bool {
        matches!(self.code().0, 1..=20 | 25..=28 | 30..=39)
            && !matches!(self, CloseReason::GoAway(_))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            CloseReason::UnknownPreface(bytes) => {
                return write!(
                    f,
                    "the peer does not speak ringcall: its first bytes are {bytes:02x?}"
                );
            }
            CloseReason::Version { min, max } => {
                return write!(f, "no common version: the peer speaks {min} to {max}, this side 1");
            }
            CloseReason::UnknownKind(kind) => {
                return write!(f, "the peer sent a frame of unknown kind {kind}");
            }
            CloseReason::UnknownFlags(flags) => {
                return write!(f, "the peer sent a frame with unknown flags {flags:#04x}");
            }
            CloseReason::UnknownExtension(tag) => {
                return write!(f, "the peer insists on an unknown extension {tag}");
            }
            CloseReason::GoAway(code) if code.0 == 0 => "the peer said goodbye",
            CloseReason::GoAway(code) => {
                return write!(
                    f,
                    "the peer closed the connection with code {}, see docs/PROTOCOL.md",
                    code.0
                );
            }
            CloseReason::Transport(error) => return write!(f, "{error}"),
            CloseReason::FrameTooLarge => {
                "the peer sent a frame above the limit (`Config::message_bytes_max`)"
            }
            CloseReason::BadHeader => "the peer sent a malformed header",
            CloseReason::BadPadding => "the peer sent padding that is not zero",
            CloseReason::BadLength => "the peer sent a body that contradicts its announced length",
            CloseReason::BadHello => "the peer's HELLO is missing, repeated or senseless",
            CloseReason::BadId => "the peer named a call that it cannot know",
            CloseReason::SlotOutOfRange => {
                "the peer has more calls in flight than it may (`Config::in_flight_max`)"
            }
            CloseReason::IdReused => "the peer used the id of a running call again",
            CloseReason::DataOutOfOrder => "the peer sent parts of a body out of order",
            CloseReason::CreditExceeded => "the peer sent more than it had credit for",
            CloseReason::BadCredit => "the peer gave credit of zero or beyond any window",
            CloseReason::UnknownReplies => "the peer answered too many calls that do not exist",
            CloseReason::TooMuchIgnored => "the peer sent too much that had to be ignored",
            CloseReason::NotNegotiated => "the peer used a feature that was not agreed upon",
            CloseReason::BadStream => {
                "the peer sent an item or an end that its call's streams do not allow"
            }
            CloseReason::Truncated => "the connection ended inside a frame",
            CloseReason::HandshakeTimeout => {
                "the peer did not finish the handshake in time (`Config::handshake_timeout`)"
            }
            CloseReason::BodyStalled => {
                "the peer stopped sending inside a body (`Config::stall_timeout`)"
            }
            CloseReason::SendStalled => "the peer stopped reading (`Config::stall_timeout`)",
            CloseReason::PeerSilent => {
                "the peer is silent (`Config::keepalive_idle`, `Config::keepalive_busy`)"
            }
            CloseReason::TooManyPings => {
                "the peer sent too many PINGs (`Config::ping_interval_min`)"
            }
            CloseReason::TooManyCancels => {
                "the peer cancelled too many calls (`Config::cancels_max`)"
            }
            CloseReason::TooManyControlFrames => {
                "the peer sent too many control frames (`Config::control_frames_max`)"
            }
            CloseReason::SmallParts => "the peer sent bodies in too small parts",
            CloseReason::PeerClosed => "the peer closed the connection",
            CloseReason::Local => "the connection was closed by this side",
        };
        f.write_str(text)
    }
}

impl core::error::Error for CloseReason {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportError::Refused => "connection refused: nobody listens at the address",
            TransportError::Reset => "the connection was reset",
            TransportError::TimedOut => "the connection timed out",
            TransportError::Unreachable => "the address cannot be reached",
            TransportError::AddressInUse => "the address is already in use",
            TransportError::BadAddress => "the address is not usable here",
            TransportError::PermissionDenied => "permission denied by the operating system",
            TransportError::Exhausted => {
                "out of file descriptors or kernel memory (raise `ulimit -n`, or lower `connections_max`)"
            }
            TransportError::Unsupported => "the transport cannot do that",
            TransportError::Os(number) => return write!(f, "operating system error {number}"),
        })
    }
}

impl core::error::Error for TransportError {}

/// What a failed call did at the other side. Whether trying again is safe follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No byte of the call was ever in a batch that a transport took.
    NotSent,
    /// The other side says that it did not run the call.
    Refused,
    /// It may have run.
    Unknown,
}

/// Why a call ended without an answer of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Whether it may have run.
    pub class: FailureClass,
    /// What happened.
    pub cause: Cause,
    /// The server's advice when to try again, in milliseconds; `u16::MAX`: not at all.
    pub retry_after_ms: u16,
}

/// What ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The other side answered with this status.
    Status(Status),
    /// The connection ended.
    Closed(CloseReason),
    /// The other side is stopping and did not take the call.
    GoAway,
    /// The connection is not established yet.
    NotReady,
    /// The deadline passed.
    Expired,
    /// This side cancelled the call.
    Cancelled,
    /// As many calls as the other side allows are in flight.
    InFlightMax,
    /// Too much waits to be sent already.
    QueueFull,
    /// The message is larger than the other side accepts.
    TooLarge {
        /// What it accepts, in bytes.
        limit: u64,
    },
    /// The message could not be encoded.
    Encode,
    /// The call has more metadata and other extensions than this side may send, or its answer more metadata
    /// than this side takes.
    TooMuchMetadata,
    /// The reply is not what its signature says, or has another signature.
    BadReply,
    /// The call takes no further items: it has ended, or its stream was ended.
    StreamEnded,
    /// The client or its shard has shut down.
    Shutdown,
}

impl From<EncodeError> for Cause {
    fn from(error: EncodeError) -> Cause {
        match error {
            EncodeError::Full(full) => Cause::TooLarge { limit: full.limit as u64 },
            EncodeError::Extensions(_) => Cause::TooMuchMetadata,
            EncodeError::Codec(_) | EncodeError::Failed => Cause::Encode,
        }
    }
}

impl Failure {
    /// A failure before anything was sent.
    #[must_use]
    pub const fn not_sent(cause: Cause) -> Failure {
        Failure { class: FailureClass::NotSent, cause, retry_after_ms: 0 }
    }

    /// A failure after which the call may have run.
    #[must_use]
    pub const fn unknown(cause: Cause) -> Failure {
        Failure { class: FailureClass::Unknown, cause, retry_after_ms: 0 }
    }

    /// The other side said that it did not run the call.
    #[must_use]
    pub const fn refused(cause: Cause) -> Failure {
        Failure { class: FailureClass::Refused, cause, retry_after_ms: 0 }
    }

    /// The failure that a status stands for; `None` if the handler answered.
    #[must_use]
    pub const fn from_status(status: Status, retry_after_ms: u16) -> Option<Failure> {
        let class = match status.class() {
            StatusClass::Ok | StatusClass::Application => return None,
            StatusClass::Refused => FailureClass::Refused,
            StatusClass::Unknown => FailureClass::Unknown,
        };
        Some(Failure { class, cause: Cause::Status(status), retry_after_ms })
    }

    /// Whether the call certainly did not run.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        !matches!(self.class, FailureClass::Unknown)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            FailureClass::NotSent => "not sent",
            FailureClass::Refused => "refused",
            FailureClass::Unknown => "may have run",
        };
        write!(f, "{} ({class})", self.cause)
    }
}

impl core::error::Error for Failure {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Status(status) => write!(f, "{status}"),
            Cause::Closed(reason) => write!(f, "{reason}"),
            Cause::GoAway => f.write_str("the server is stopping and did not take the call"),
            Cause::NotReady => f.write_str("the connection is not established yet"),
            Cause::Expired => f.write_str("the deadline passed"),
            Cause::Cancelled => f.write_str("the call was cancelled by its caller"),
            Cause::InFlightMax => f.write_str(
                "too many calls are in flight on this connection (the server's `Config::in_flight_max`)",
            ),
            Cause::QueueFull => {
                f.write_str("too much waits to be sent already (`Config::send_queue_max`)")
            }
            Cause::TooLarge { limit } => write!(
                f,
                "the message is larger than the {limit} bytes that the peer accepts (its `Config::message_bytes_max`)",
            ),
            Cause::Encode => f.write_str("the message could not be encoded"),
            Cause::TooMuchMetadata => f.write_str(
                "too much metadata, to be sent (`Config::extension_bytes_max`) or in the answer (`Config::metadata_max`)",
            ),
            Cause::BadReply => f.write_str("the reply is not of the type that the caller expects"),
            Cause::StreamEnded => f.write_str("the call takes no further items"),
            Cause::Shutdown => f.write_str("the client has shut down"),
        }
    }
}

/// A call that was not accepted, with the caller's ticket.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// What the caller gave with the call.
    pub ticket: T,
    /// Why; always of class [`FailureClass::NotSent`].
    pub failure: Failure,
}
