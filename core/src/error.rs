//! Why calls fail and connections end.

use core::fmt;
use core::time::Duration;

use ringcall_buf::ObjectError;

use crate::EncodeError;
use crate::status::{NO_RETRY, write_advice};
use crate::{Status, StatusClass};

/// Why a connection ended. `Copy`, so that every call that it takes along can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    // The other side broke the protocol.
    /// The first bytes are not ringcall's; they are here so that a gateway can tell whose they are.
    UnknownPreface([u8; 8]),
    /// It began with a TLS record, and this side was not set up for TLS.
    PeerSpeaksTls,
    /// It speaks ringcall without TLS, which this side requires.
    PeerSpeaksPlaintext,
    /// TLS failed.
    Tls(TlsFault),
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

    /// Whoever it is may not connect here, or made too many calls that it may not make.
    Denied,
    /// This side's memory was at its bound, and this connection was among those that held the most of it.
    MemoryShort,
    /// Another instance than was [expected](crate::Expected) answers at the address, or one that does not say which it is.
    /// Who that is, the connection says: [`Connection::mismatch`](crate::Connection::mismatch).
    WrongInstance,
}

/// What went wrong in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsFault {
    // The other side's certificate.
    /// Its time is over.
    CertificateExpired,
    /// Its time has not begun.
    CertificateNotYetValid,
    /// Nobody whom this side trusts has signed it; it may have been signed by itself.
    CertificateUnknownIssuer,
    /// It is for other names than the one that was connected to.
    CertificateWrongName,
    /// Its issuer has revoked it.
    CertificateRevoked,
    /// It is malformed, badly signed, or not for this purpose.
    CertificateBad,
    /// There is none, although this side requires one.
    CertificateMissing,

    // What the two sides could not agree upon.
    /// No common version of TLS.
    NoCommonVersion,
    /// No common cipher suite, group or signature scheme.
    NoCommonSuite,
    /// The other side speaks TLS, but not ringcall inside.
    NoCommonProtocol,

    // The record layer.
    /// The other side refused with this alert.
    Alert(u8),
    /// A record was changed on its way, or is out of order.
    Tampered,
    /// A record or a message of TLS is malformed, or came when it must not.
    Malformed,
    /// The connection ended without a goodbye inside TLS: what came last may have been cut off.
    Truncated,
    /// More of TLS's own messages than anybody has a use for.
    TooMuch,
    /// The connection ended before the other side had answered the first message: it may not speak TLS.
    Unanswered,
    /// This side could not go on: out of randomness, or of the numbers of a key.
    Internal,
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
    /// The host's name has no address, or could not be looked up.
    Unresolved,
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
    /// Whoever reads it may not connect, or made too many calls that it may not make.
    pub const DENIED: CloseCode = CloseCode(29);
    /// Whoever said it ran out of memory for its connections, and whoever reads it held much of it.
    pub const MEMORY_SHORT: CloseCode = CloseCode(31);
    /// Whoever said it had expected another instance here than whoever reads it.
    pub const WRONG_INSTANCE: CloseCode = CloseCode(41);
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
            CloseReason::UnknownPreface(_)
            | CloseReason::PeerSpeaksTls
            | CloseReason::PeerSpeaksPlaintext => 1,
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
            CloseReason::Denied => CloseCode::DENIED.0,
            CloseReason::BadStream => 30,
            CloseReason::MemoryShort => CloseCode::MEMORY_SHORT.0,
            CloseReason::Tls(_) => 40,
            CloseReason::WrongInstance => CloseCode::WRONG_INSTANCE.0,
        })
    }

    /// Whether the other side broke the protocol (rather than ended, or was slow).
    #[must_use]
    pub const fn is_protocol_error(self) -> bool {
        match self {
            CloseReason::GoAway(_) => false,
            CloseReason::Tls(fault) => {
                matches!(fault, TlsFault::Tampered | TlsFault::Malformed | TlsFault::TooMuch)
            }
            reason => matches!(reason.code().0, 1..=20 | 25..=28 | 30 | 32..=39),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            CloseReason::UnknownPreface(bytes) if is_http(bytes) => {
                "the peer speaks HTTP, not ringcall"
            }
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
            CloseReason::PeerSpeaksTls => {
                "the peer speaks TLS and this side does not: give it `Connect::tls`, or `Server::tls`"
            }
            CloseReason::PeerSpeaksPlaintext => {
                "the peer does not speak TLS, which this side requires: give it `Connect::tls`"
            }
            CloseReason::Tls(fault) => return write!(f, "TLS: {fault}"),
            CloseReason::Denied => {
                "the peer may not connect, or made too many calls that it may not make"
            }
            CloseReason::MemoryShort => {
                "memory was short, and this connection held much of it (see `MemoryLimits::total_bytes`)"
            }
            CloseReason::WrongInstance => {
                "another instance than was expected answers at the address, or one that does not say which it is"
            }
            CloseReason::GoAway(CloseCode::WRONG_INSTANCE) => {
                "the peer had expected another instance at this address: its list may be old"
            }
            CloseReason::GoAway(CloseCode::MEMORY_SHORT) => {
                "the peer ran out of memory for its connections, and this one held much of it"
            }
            CloseReason::GoAway(CloseCode::DENIED) => {
                "the peer refused this side: its certificate or credentials are not accepted there"
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

/// Whether a stranger's first bytes are those of a request of HTTP.
fn is_http(bytes: &[u8; 8]) -> bool {
    let verbs: [&[u8]; 8] =
        [b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"PRI * "];
    verbs.iter().any(|verb| bytes.starts_with(verb))
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsFault::CertificateExpired => {
                "the peer's certificate has expired (or this machine's clock is wrong)"
            }
            TlsFault::CertificateNotYetValid => {
                "the peer's certificate is not valid yet (or this machine's clock is wrong)"
            }
            TlsFault::CertificateUnknownIssuer => {
                "the peer's certificate was not signed by an authority that this side trusts: add \
                 the authority's certificate to `TlsRoots`"
            }
            TlsFault::CertificateWrongName => {
                "the peer's certificate is for other names than the one that was connected to: \
                 connect by such a name, or give it with `TlsClient::server_name`"
            }
            TlsFault::CertificateRevoked => "the peer's certificate has been revoked",
            TlsFault::CertificateBad => {
                "the peer's certificate is malformed, badly signed, or not for this purpose"
            }
            TlsFault::CertificateMissing => {
                "the peer has no certificate, which this side requires: give it one with `TlsClient::mutual`"
            }
            TlsFault::NoCommonVersion => "no common version: this side speaks TLS 1.3",
            TlsFault::NoCommonSuite => "no common cipher suite, group or signature scheme",
            TlsFault::NoCommonProtocol => "the peer does not offer the protocol `ringcall/1` (ALPN)",
            TlsFault::Alert(alert) => return write_alert(f, *alert),
            TlsFault::Tampered => "a record was changed on its way",
            TlsFault::Malformed => "the peer sent a malformed or unexpected message",
            TlsFault::Truncated => "the connection was cut off without a goodbye",
            TlsFault::TooMuch => "the peer sent too many messages of TLS's own",
            TlsFault::Unanswered => {
                "the peer ended the connection instead of answering: does it speak TLS (`Server::tls`)?"
            }
            TlsFault::Internal => "this side could not go on",
        })
    }
}

/// Alerts by their numbers in RFC 8446, and what they mean for whoever gets them.
fn write_alert(f: &mut fmt::Formatter<'_>, alert: u8) -> fmt::Result {
    let text = match alert {
        10 => "the peer did not expect this message: does it speak TLS (`Server::tls`)?",
        20 => "the peer received a record that was changed on its way",
        40 | 47 | 71 => "the peer and this side cannot agree upon parameters",
        42 | 43 => "the peer does not accept this side's certificate",
        44 => "this side's certificate has been revoked, says the peer",
        45 => "this side's certificate has expired, says the peer",
        48 => "the peer does not trust whoever signed this side's certificate",
        49 => "the peer refuses this side's certificate",
        51 => {
            "the peer could not verify this side's certificate: it may know another authority of that name"
        }
        70 => "the peer speaks no common version of TLS",
        112 => "the peer does not know the name that was connected to (`TlsClient::server_name`)",
        116 => "the peer requires a certificate of this side: give it one with `TlsClient::mutual`",
        120 => "the peer does not speak `ringcall/1` inside TLS (ALPN)",
        other => return write!(f, "the peer refused with alert {other}"),
    };
    f.write_str(text)
}

impl core::error::Error for TlsFault {}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransportError::Refused => "connection refused: nobody listens at the address",
            TransportError::Reset => "the connection was reset",
            TransportError::TimedOut => "the connection timed out",
            TransportError::Unreachable => "the address cannot be reached",
            TransportError::Unresolved => {
                "the host's name has no address, or could not be looked up (the log says why)"
            }
            TransportError::AddressInUse => "the address is already in use",
            TransportError::BadAddress => {
                "the address is not usable here: not one of this machine, too long a path, or not \
                 written like 127.0.0.1:7000, host:7000 or unix:/path"
            }
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
    /// It certainly did not run: the other side says so, or its argument did not arrive whole.
    Refused,
    /// It may have run.
    Unknown,
}

impl FailureClass {
    /// A word for it that will not change, such as for a label of a metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureClass::NotSent => "not_sent",
            FailureClass::Refused => "refused",
            FailureClass::Unknown => "unknown",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FailureClass::NotSent => "not sent",
            FailureClass::Refused => "refused",
            FailureClass::Unknown => "may have run",
        })
    }
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
    /// The deadline passed: a second after the call was made, unless the call, its method or `CallOptions::deadline` says
    /// otherwise, or the call that it was made for had less left.
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
    /// The message could not be encoded. The log says why, once for each type.
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
    /// A part of the argument lies in a file that could not be read to its end.
    Unreadable(ObjectError),
    /// What the reply brought could not be written to its place, because the disk is full, for example.
    Unwritable(ObjectError),
    /// There is no instance of the service to call: a balanced channel says so.
    NoInstance {
        /// Why there is none.
        why: Missing,
        /// Which service, if the channel knows.
        service: Option<ServiceName>,
    },
    /// Too many calls like this one have failed lately: a breaker stops them for a while.
    BreakerOpen,
    /// All instances of the service were gone, and too few are back for this call.
    Recovering,
    /// As many calls are under way, or have just begun, as this side's own settings allow.
    Limited,
}

/// Why a balanced channel has nobody for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// The list has no instance, or there was none yet.
    NoneKnown,
    /// The list does not have the one that was asked for by its name.
    NotListed,
    /// There are some, but each has a weight of 0, so that it takes no calls.
    Weightless,
    /// There are some, but none in the group that is asked for, nor in those to fall back on.
    NotInGroup,
    /// There are some, but rules leave out all that there are, or lead to others.
    LeftOut,
    /// There are some, but all are ejected, and settings say that such are not used.
    Ejected,
}

impl Missing {
    /// A word for it that will not change, such as for a label of a metric.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Missing::NoneKnown => "none_known",
            Missing::NotListed => "not_listed",
            Missing::Weightless => "weightless",
            Missing::NotInGroup => "not_in_group",
            Missing::LeftOut => "left_out",
            Missing::Ejected => "ejected",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::NoneKnown => "none is known (`Balanced::ready` waits for a list)",
            Missing::NotListed => "none that is known has this name",
            Missing::Weightless => "all that are known have a weight of 0",
            Missing::NotInGroup => {
                "none that is known is in the group that is asked for, or in one to fall back on (`Groups`)"
            }
            Missing::LeftOut => {
                "rules leave out all that are known (`Balanced::explain_call` says which)"
            }
            Missing::Ejected => "all are ejected, and `HealthConfig::panic_percent` is 0",
        })
    }
}

/// The name of a service that instances are called by: a pointer, since failures are moved in every call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceName(&'static &'static str);

impl ServiceName {
    /// For whoever keeps the names of services.
    #[must_use]
    pub const fn new(name: &'static &'static str) -> ServiceName {
        ServiceName(name)
    }

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

// Every answer is moved in the room that there is for a failure.
const _: () = assert!(size_of::<Cause>() <= 16);

impl Cause {
    /// There is no instance to call, of a service that is not known.
    #[must_use]
    pub const fn no_instance(why: Missing) -> Cause {
        Cause::NoInstance { why, service: None }
    }

    /// A word for it that will not change, such as for a label of a metric: without what it carries, for which there
    /// are too many values. [`Failure::status`] and [`Status::name`] say more of a status.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Cause::Status(_) => "status",
            Cause::Closed(_) => "closed",
            Cause::GoAway => "go_away",
            Cause::NotReady => "not_ready",
            Cause::Expired => "expired",
            Cause::Cancelled => "cancelled",
            Cause::InFlightMax => "in_flight_max",
            Cause::QueueFull => "queue_full",
            Cause::TooLarge { .. } => "too_large",
            Cause::Encode => "encode",
            Cause::TooMuchMetadata => "too_much_metadata",
            Cause::BadReply => "bad_reply",
            Cause::StreamEnded => "stream_ended",
            Cause::Shutdown => "shutdown",
            Cause::Unreadable(_) => "unreadable",
            Cause::Unwritable(_) => "unwritable",
            Cause::NoInstance { .. } => "no_instance",
            Cause::BreakerOpen => "breaker_open",
            Cause::Recovering => "recovering",
            Cause::Limited => "limited",
        }
    }
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

    /// How long the server advises to wait before the call is made again; `None` if it says nothing, or
    /// [not at all](Failure::forbids_retry).
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self.retry_after_ms {
            0 | NO_RETRY => None,
            ms => Some(Duration::from_millis(ms as u64)),
        }
    }

    /// Whether the server advises not to make the call again. Where that is safe it is advice all the same.
    #[must_use]
    pub const fn forbids_retry(&self) -> bool {
        self.retry_after_ms == NO_RETRY
    }

    /// The status of the answer, if the other side gave one.
    #[must_use]
    pub const fn status(&self) -> Option<Status> {
        match self.cause {
            Cause::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the call's time was over, at either side.
    #[must_use]
    pub const fn is_expired(&self) -> bool {
        matches!(
            self.cause,
            Cause::Expired | Cause::Status(Status::EXPIRED | Status::EXPIRED_RUNNING)
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cause, self.class)?;
        write_advice(f, self.retry_after_ms)
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
            Cause::Expired => f.write_str("the deadline passed (`CallOptions::deadline`; a second if nobody sets one)"),
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
            Cause::Encode => f.write_str("the message could not be encoded, the log says why"),
            Cause::TooMuchMetadata => f.write_str(
                "too much metadata, to be sent (`Config::extension_bytes_max`) or in the answer (`Config::metadata_max`)",
            ),
            Cause::BadReply => f.write_str("the reply is not of the type that the caller expects"),
            Cause::StreamEnded => f.write_str("the call takes no further items"),
            Cause::Shutdown => f.write_str("the client has shut down"),
            Cause::Unreadable(error) => write!(f, "the argument's file could not be read: {error}"),
            Cause::Unwritable(error) => write!(f, "the reply could not be written: {error}"),
            Cause::NoInstance { why, service: None } => {
                write!(f, "there is no instance of the service to call: {why}")
            }
            Cause::NoInstance { why, service: Some(service) } => {
                write!(f, "there is no instance of {:?} to call: {why}", service.as_str())
            }
            Cause::BreakerOpen => {
                f.write_str("too many calls like this one have failed lately (`BreakerConfig`)")
            }
            Cause::Limited => f.write_str(
                "as many calls as this side's settings allow are under way or have just begun: \
                 `limit` of the service or the method",
            ),
            Cause::Recovering => f.write_str(
                "all instances of the service were gone, and too few are back (`RecoveryConfig`)",
            ),
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
