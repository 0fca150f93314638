//! What the end of a call says about the instance that it was made to.

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{Cause, CloseReason, Failure, FailureClass, Status, TransportError};

/// What the end of a call says about its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// It does not have this method: nothing else is known of it. Whoever has not been replaced by a newer version yet
    /// works as it did.
    Unable,
    /// Nothing: the fault is this side's or the caller's, or the instance is stopping as it should.
    Neutral,
}

/// Reads the end of a call. An application error is an answer, and a good sign; unless the method's settings
/// list its status as one that is worth another attempt.
#[must_use]
pub fn sign_of(end: Result<&ReplyHeader, &Failure>, retried_errors: &[Status]) -> Sign {
    match end {
        Ok(header) if retried_errors.contains(&header.status) => Sign::Bad,
        Ok(_) => Sign::Good,
        Err(failure) => sign_of_failure(failure),
    }
}

fn sign_of_failure(failure: &Failure) -> Sign {
    match failure.cause {
        // A filter of this side has said so; the instance was not asked.
        Cause::Status(_) if failure.class == FailureClass::NotSent => Sign::Neutral,
        Cause::Status(status) => sign_of_status(status),
        // Whoever was met is not that instance.
        Cause::Closed(CloseReason::Local | CloseReason::WrongInstance)
        | Cause::Closed(CloseReason::Transport(
            TransportError::Exhausted
            | TransportError::PermissionDenied
            | TransportError::AddressInUse
            | TransportError::Unsupported,
        )) => Sign::Neutral,
        Cause::Closed(CloseReason::GoAway(_)) => Sign::Neutral,
        Cause::Closed(_) | Cause::NotReady | Cause::BadReply => Sign::Bad,
        // A call that was sent and did not come back in time; not one that never left.
        Cause::Expired if failure.class == FailureClass::Unknown => Sign::Bad,
        _ => Sign::Neutral,
    }
}

fn sign_of_status(status: Status) -> Sign {
    match status {
        Status::UNKNOWN_METHOD => Sign::Unable,
        Status::DRAINING | Status::RATE_LIMITED => Sign::Neutral,
        status if is_callers(status) => Sign::Neutral,
        _ => Sign::Bad,
    }
}

/// Whether a status is the caller's own fault, or wish: another instance would say the same.
pub(crate) fn is_callers(status: Status) -> bool {
    matches!(
        status,
        Status::BAD_BODY
            | Status::BAD_REQUEST
            | Status::TOO_MUCH_METADATA
            | Status::UNAUTHENTICATED
            | Status::FORBIDDEN
            | Status::CANCELLED
            | Status::CANCELLED_RUNNING
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_this_side_are_not_the_instances() {
        let sign = |failure| sign_of(Err(&failure), &[]);
        assert_eq!(sign(Failure::not_sent(Cause::Encode)), Sign::Neutral);
        assert_eq!(sign(Failure::not_sent(Cause::InFlightMax)), Sign::Neutral);
        assert_eq!(sign(Failure::not_sent(Cause::Expired)), Sign::Neutral);
        let filtered = Failure::not_sent(Cause::Status(Status::OVERLOADED));
        assert_eq!(sign(filtered), Sign::Neutral);
        let exhausted = CloseReason::Transport(TransportError::Exhausted);
        assert_eq!(sign(Failure::not_sent(Cause::Closed(exhausted))), Sign::Neutral);
        assert_eq!(sign(Failure::refused(Cause::GoAway)), Sign::Neutral);
        let other = Cause::Closed(CloseReason::WrongInstance);
        assert_eq!(sign(Failure::not_sent(other)), Sign::Neutral);
        let refused = CloseReason::Transport(TransportError::Refused);
        assert_eq!(sign(Failure::not_sent(Cause::Closed(refused))), Sign::Bad);
        assert_eq!(sign(Failure::unknown(Cause::Expired)), Sign::Bad);
        for (status, is) in [
            (Status::OVERLOADED, Sign::Bad),
            (Status::UNKNOWN_METHOD, Sign::Unable),
            (Status::INTERNAL, Sign::Bad),
            (Status::DRAINING, Sign::Neutral),
            (Status::RATE_LIMITED, Sign::Neutral),
            (Status::BAD_BODY, Sign::Neutral),
        ] {
            assert_eq!(sign(Failure::from_status(status, 0).unwrap()), is, "{status:?}");
        }
        let answer = ReplyHeader::new(Status::APPLICATION_ERROR);
        assert_eq!(sign_of(Ok(&answer), &[]), Sign::Good);
        assert_eq!(sign_of(Ok(&answer), &[Status::APPLICATION_ERROR]), Sign::Bad);
    }
}
