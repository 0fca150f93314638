//! How a call ended, as it stands on the wire.

use core::fmt;

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

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Status::ALL.iter().find(|(status, _)| status == self) {
            Some((_, name)) => f.write_str(name),
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
