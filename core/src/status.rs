//! How a call ended, as it stands on the wire.

use core::fmt;
use core::time::Duration;

use crate::Failure;

/// What a caller may conclude from the end of a call. The class is the top two bits of a [`Status`],
/// so that an old client understands a new code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// The handler ran and succeeded.
    Ok,
    /// The other side says that the call was not run: trying again is safe.
    Refused,
    /// The handler ran and answered with an error of its own.
    Application,
    /// The call may have run, wholly or in part.
    Unknown,
}

impl fmt::Display for StatusClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StatusClass::Ok => "ok",
            StatusClass::Refused => "refused",
            StatusClass::Application => "application",
            StatusClass::Unknown => "unknown",
        })
    }
}

/// How a call ended. The codes are ringcall's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Status = Status($code);)*

            /// Every code of v1, with its name.
            pub const ALL: &[(Status, &str)] = &[$((Status::$name, stringify!($name)),)*];

            fn text(self) -> Option<&'static str> {
                match self {
                    $(Status::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// Success.
    OK = 0x0000, "success";
    /// The call wants something that this side does not do: compression, an extension, streams without that
    /// feature.
    UNSUPPORTED = 0x4001, "the server does not support what the call asks for";
    /// No such method.
    UNKNOWN_METHOD = 0x4002, "the server has no such method: is the service registered there, under this name?";
    /// The caller's idea of the types differs from the server's; nothing was decoded.
    SHAPE_MISMATCH = 0x4003, "caller and server were built with different message types for this method";
    /// The method does not take this codec.
    UNKNOWN_CODEC = 0x4004, "the method does not take this codec";
    /// The body is not what its signature says.
    BAD_BODY = 0x4005, "the body did not pass validation";
    /// The deadline passed before the handler started.
    EXPIRED = 0x4006, "the deadline passed before the call was started";
    /// Too much to do.
    OVERLOADED = 0x4007, "the server is overloaded";
    /// The server is stopping.
    DRAINING = 0x4008, "the server is stopping and takes no new calls";
    /// Cancelled before the handler started.
    CANCELLED = 0x4009, "the call was cancelled before it was started";
    /// The header contradicts itself.
    BAD_REQUEST = 0x400a, "the request's header contradicts itself";
    /// Credentials are missing or wrong.
    UNAUTHENTICATED = 0x400b, "credentials are missing or wrong";
    /// The caller may not do this.
    FORBIDDEN = 0x400c, "the caller may not do this";
    /// The server is not in the group that the call was routed to.
    WRONG_GROUP = 0x400d, "the server is not in the group that the call was routed to";
    /// More metadata than the server accepts.
    TOO_MUCH_METADATA = 0x400e, "the call has more metadata than the server accepts";
    /// The caller makes more calls than the server lets it make. Says nothing of how much the server has to do.
    RATE_LIMITED = 0x400f, "the caller makes more calls than the server lets it make";
    /// The handler answered with an error of its own, which is the body.
    APPLICATION_ERROR = 0x8000, "the handler answered with an error";
    /// The handler panicked, or dropped its responder.
    INTERNAL = 0xc001, "the handler failed without an answer";
    /// Cancelled while the handler ran.
    CANCELLED_RUNNING = 0xc002, "the call was cancelled while it ran";
    /// The deadline passed while the handler ran.
    EXPIRED_RUNNING = 0xc003, "the deadline passed while the call ran";
    /// The reply could not be encoded within the caller's message limit.
    REPLY_FAILED = 0xc004, "the reply could not be encoded or is larger than the caller accepts";
    /// The server stopped while the handler ran.
    ABORTED = 0xc005, "the server stopped while the call ran";
    /// An item is not what the signature says.
    BAD_ITEM = 0xc006, "an item of the stream did not pass validation";
}

impl Status {
    /// Its name, such as `OVERLOADED`; `None` if this version does not know it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Status::ALL.iter().find(|(status, _)| *status == self).map(|(_, name)| *name)
    }

    /// From a header.
    #[inline]
    #[must_use]
    pub const fn from_wire(code: u16) -> Status {
        Status(code)
    }

    /// For a header.
    #[inline]
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self.0
    }

    /// The bits that say its class, see [`class`](Self::class).
    pub(crate) const CLASS: u16 = 0b11 << 14;

    /// What a caller may conclude, also for codes that this version does not know.
    #[inline]
    #[must_use]
    pub const fn class(self) -> StatusClass {
        match self.0 >> 14 {
            0 => StatusClass::Ok,
            1 => StatusClass::Refused,
            2 => StatusClass::Application,
            _ => StatusClass::Unknown,
        }
    }
}

/// A server's word that it did not do what a call asked for, so that the call may be made again, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    status: Status,
    retry_after_ms: u16,
}

impl Refusal {
    /// With a status of the class [`Refused`](StatusClass::Refused), one of those here or one of your own; `None` if it is
    /// of another, which would not say that the call did not run.
    #[must_use]
    pub const fn new(status: Status) -> Option<Refusal> {
        match status.class() {
            StatusClass::Refused => Some(Refusal::of(status)),
            _ => None,
        }
    }

    const fn of(status: Status) -> Refusal {
        Refusal { status, retry_after_ms: 0 }
    }

    /// There is too much to do: [`Status::OVERLOADED`].
    #[must_use]
    pub const fn overloaded() -> Refusal {
        Refusal::of(Status::OVERLOADED)
    }

    /// The caller makes more calls than it may: [`Status::RATE_LIMITED`].
    #[must_use]
    pub const fn rate_limited() -> Refusal {
        Refusal::of(Status::RATE_LIMITED)
    }

    /// The caller may not do this: [`Status::FORBIDDEN`].
    #[must_use]
    pub const fn forbidden() -> Refusal {
        Refusal::of(Status::FORBIDDEN)
    }

    /// Credentials are missing or wrong: [`Status::UNAUTHENTICATED`].
    #[must_use]
    pub const fn unauthenticated() -> Refusal {
        Refusal::of(Status::UNAUTHENTICATED)
    }

    /// This server does not do what the call asks for: [`Status::UNSUPPORTED`].
    #[must_use]
    pub const fn unsupported() -> Refusal {
        Refusal::of(Status::UNSUPPORTED)
    }

    /// For a handler that has done nothing but make a call, which failed so: if that certainly did not run
    /// ([`Failure::is_safe_to_retry`]), neither did its own. `None` if it may have run.
    ///
    /// The status is [`OVERLOADED`](Status::OVERLOADED) whatever the call's was, since that was about this server: that *it*
    /// is forbidden something, or speaks of types that nobody knows there, says nothing of its caller. Advice when to try
    /// again is passed on.
    #[must_use]
    pub const fn passing_on(failure: &Failure) -> Option<Refusal> {
        match failure.is_safe_to_retry() {
            true => {
                Some(Refusal { retry_after_ms: failure.retry_after_ms, ..Refusal::overloaded() })
            }
            false => None,
        }
    }

    /// With advice not to try again sooner than this: whole milliseconds, rounded up, 65 534 at most.
    #[must_use]
    pub const fn retry_after(self, time: Duration) -> Refusal {
        let ms = time.as_nanos().div_ceil(1_000_000);
        let most = NO_RETRY - 1;
        let retry_after_ms = if ms < most as u128 { ms as u16 } else { most };
        Refusal { retry_after_ms, ..self }
    }

    /// With advice not to try again at all.
    #[must_use]
    pub const fn do_not_retry(self) -> Refusal {
        Refusal { retry_after_ms: NO_RETRY, ..self }
    }

    /// What the caller is told.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The advice as it stands in a header, see [`ReplyHeader`](crate::frame::ReplyHeader::retry_after_ms).
    #[must_use]
    pub const fn retry_after_ms(&self) -> u16 {
        self.retry_after_ms
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        write_advice(f, self.retry_after_ms)
    }
}

impl core::error::Error for Refusal {}

/// As advice: not to try again.
pub(crate) const NO_RETRY: u16 = u16::MAX;

/// Advice when to try again, behind what it is about.
pub(crate) fn write_advice(f: &mut fmt::Formatter<'_>, retry_after_ms: u16) -> fmt::Result {
    match retry_after_ms {
        0 => Ok(()),
        NO_RETRY => f.write_str(", and advises not to try again"),
        ms => write!(f, ", and advises to try again after {ms} ms"),
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Status({:#06x})", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "status {:#06x}, which this version does not know", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_constants() {
        assert_eq!(Status::OVERLOADED.name(), Some("OVERLOADED"));
        assert_eq!(Status::from_wire(0x7fff).name(), None);
        assert_eq!(alloc::format!("{:?} {}", Status::OK, Status::OK.class()), "OK ok");
    }

    #[test]
    fn the_class_of_every_code_is_the_one_it_was_given() {
        for &(status, name) in Status::ALL {
            let class = match name {
                "OK" => StatusClass::Ok,
                "APPLICATION_ERROR" => StatusClass::Application,
                "INTERNAL" | "CANCELLED_RUNNING" | "EXPIRED_RUNNING" | "REPLY_FAILED"
                | "ABORTED" | "BAD_ITEM" => StatusClass::Unknown,
                _ => StatusClass::Refused,
            };
            assert_eq!(status.class(), class, "{name}");
        }
        assert_eq!(Status::from_wire(0x7fff).class(), StatusClass::Refused);
    }
}
