//! Whether a call that failed is made again, and when.

use std::fmt;
use std::time::Duration;

use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{Cause, Entropy, Failure, FailureClass, Status};

use crate::sign::is_callers;

/// When calls are made again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RetryConfig {
    /// How many attempts a call has in all: 3; with 1 none is made again. 5 at most.
    pub attempts: u32,
    /// How long to wait before the second: up to 25 ms, twice as long each time; how long exactly is up to
    /// chance ("full jitter").
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub backoff: Duration,
    /// But up to so long at most: 1 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub backoff_max: Duration,
    /// Statuses of application errors that are worth another attempt, of methods that may be run twice. None.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::statuses"))]
    pub errors: Vec<Status>,
}

impl Default for RetryConfig {
    fn default() -> RetryConfig {
        RetryConfig {
            attempts: 3,
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            errors: Vec::new(),
        }
    }
}

/// What a retry policy is told.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// How many attempts were made, this one among them.
    pub attempts: u32,
    /// Flags of the call, see [`request_flags`].
    pub flags: u8,
    /// How the last attempt ended.
    pub end: Result<&'a ReplyHeader, &'a Failure>,
    /// How much of the call's time is left.
    pub left: Duration,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ends like this.
    End,
    /// It is made again after a while, if the budget allows.
    Again(Duration),
}

/// Decides whether a call that failed is made again: [`RetryConfig`], or one of yours.
///
/// It is asked of calls that may have run as well: one that is not [idempotent](request_flags::IDEMPOTENT) then runs twice if
/// it is made again, unless the failure is [safe to retry](Failure::is_safe_to_retry). Deadline and budget hold whatever it
/// says, and eight attempts: a wait that is not over before the deadline ends the call at once.
pub trait RetryPolicy: Send + Sync + fmt::Debug {
    /// What becomes of the call. Whether the budget allows it, and where the next attempt goes, is not its business.
    fn decide(&self, rng: &mut dyn Entropy, attempted: &Attempted<'_>) -> Verdict;
}

impl RetryPolicy for RetryConfig {
    fn decide(&self, rng: &mut dyn Entropy, attempted: &Attempted<'_>) -> Verdict {
        let Attempted { attempts, flags, end, left } = *attempted;
        // Whoever retried above does so for all below.
        if attempts >= self.attempts || flags & request_flags::RETRIED != 0 {
            return Verdict::End;
        }
        let is_idempotent = flags & request_flags::IDEMPOTENT != 0;
        let (is_allowed, advice_ms, is_elsewhere) = match end {
            Ok(header) => {
                let is_listed = self.errors.contains(&header.status);
                (is_listed && is_idempotent, header.retry_after_ms, false)
            }
            Err(failure) => {
                let may_repeat = failure.is_safe_to_retry() || is_idempotent;
                (may_repeat && helps(failure), failure.retry_after_ms, is_elsewhere(failure))
            }
        };
        if !is_allowed || advice_ms == u16::MAX {
            return Verdict::End;
        }
        let wait = match attempts == 1 && is_elsewhere && advice_ms == 0 {
            true => Duration::ZERO,
            false => self.wait(rng, attempts).max(Duration::from_millis(advice_ms.into())),
        };
        if wait < left { Verdict::Again(wait) } else { Verdict::End }
    }
}

impl RetryConfig {
    /// Somewhere between nothing and the back-off of this attempt.
    fn wait(&self, rng: &mut dyn Entropy, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(20);
        let most = self.backoff.saturating_mul(1 << doublings).min(self.backoff_max);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.below(nanos.saturating_add(1)))
    }
}

/// Whether another attempt can be better.
fn helps(failure: &Failure) -> bool {
    match failure.cause {
        Cause::Cancelled
        | Cause::Encode
        | Cause::TooLarge { .. }
        | Cause::StreamEnded
        | Cause::Shutdown
        | Cause::NoInstance { .. }
        | Cause::BreakerOpen
        | Cause::Recovering
        | Cause::Limited => false,
        Cause::Status(status) => !is_callers(status),
        _ => true,
    }
}

/// Whether this says only that *this* instance takes no calls, so that another one may be asked at once.
fn is_elsewhere(failure: &Failure) -> bool {
    failure.class == FailureClass::NotSent
        || matches!(failure.cause, Cause::GoAway | Cause::Status(Status::DRAINING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcall_core::{CloseReason, SplitMix64};

    const LEFT: Duration = Duration::from_secs(10);

    fn decide(attempts: u32, flags: u8, end: Result<&ReplyHeader, &Failure>) -> Verdict {
        let config = RetryConfig { errors: vec![Status::APPLICATION_ERROR], ..Default::default() };
        let attempted = Attempted { attempts, flags, end, left: LEFT };
        config.decide(&mut SplitMix64::new(7), &attempted)
    }

    fn is_again(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Again(_))
    }

    #[test]
    fn d09_only_what_did_not_run_or_may_run_twice_is_made_again() {
        let lost = Cause::Closed(CloseReason::PeerClosed);
        let unknown = Failure::unknown(lost);
        assert_eq!(decide(1, 0, Err(&unknown)), Verdict::End);
        assert!(is_again(decide(1, request_flags::IDEMPOTENT, Err(&unknown))));
        assert!(is_again(decide(1, 0, Err(&Failure::refused(Cause::GoAway)))));
        assert!(is_again(decide(1, 0, Err(&Failure::not_sent(lost)))));
        let internal = Failure::from_status(Status::INTERNAL, 0).unwrap();
        assert_eq!(decide(1, 0, Err(&internal)), Verdict::End);
        // An application error is an answer, unless it is on the list.
        let error = ReplyHeader::new(Status::APPLICATION_ERROR);
        assert_eq!(decide(1, 0, Ok(&error)), Verdict::End, "it ran");
        assert!(is_again(decide(1, request_flags::IDEMPOTENT, Ok(&error))));
        let none = RetryConfig::default();
        let flags = request_flags::IDEMPOTENT;
        let attempted = Attempted { attempts: 1, flags, end: Ok(&error), left: LEFT };
        assert_eq!(none.decide(&mut SplitMix64::new(7), &attempted), Verdict::End);
        // What would fail again, or was wanted.
        for cause in [Cause::Cancelled, Cause::Encode, Cause::Status(Status::FORBIDDEN)] {
            assert_eq!(decide(1, flags, Err(&Failure::not_sent(cause))), Verdict::End);
        }
    }

    #[test]
    fn d11_retried_calls_and_those_that_say_no_are_not_made_again() {
        let overloaded = |advice| Failure::from_status(Status::OVERLOADED, advice).unwrap();
        assert!(is_again(decide(1, 0, Err(&overloaded(0)))));
        assert_eq!(decide(1, request_flags::RETRIED, Err(&overloaded(0))), Verdict::End);
        // However much time is left.
        let (never, left) = (overloaded(u16::MAX), Duration::from_secs(3600));
        let attempted = Attempted { attempts: 1, flags: 0, end: Err(&never), left };
        let config = RetryConfig::default();
        assert_eq!(config.decide(&mut SplitMix64::new(7), &attempted), Verdict::End);
        assert_eq!(decide(3, 0, Err(&overloaded(0))), Verdict::End, "three are enough");
    }

    #[test]
    fn advice_of_the_server_is_waited_for() {
        let failure = Failure::from_status(Status::OVERLOADED, 300).unwrap();
        let Verdict::Again(wait) = decide(1, 0, Err(&failure)) else { panic!("not again") };
        assert_eq!(wait, Duration::from_millis(300));
        let config = RetryConfig::default();
        let left = Duration::from_millis(300);
        let attempted = Attempted { attempts: 1, flags: 0, end: Err(&failure), left };
        assert_eq!(config.decide(&mut SplitMix64::new(7), &attempted), Verdict::End, "too late");
    }

    #[test]
    fn d13_retries_of_many_clients_spread() {
        let config = RetryConfig::default();
        for (attempts, most_ms) in [(1u32, 25u64), (2, 50), (7, 1000), (14, 1000)] {
            let waits: Vec<u64> = (0..10_000)
                .map(|seed| config.wait(&mut SplitMix64::new(seed), attempts).as_micros() as u64)
                .collect();
            assert!(waits.iter().all(|wait| *wait <= most_ms * 1000));
            let tenths = waits.iter().fold([0; 10], |mut tenths, wait| {
                tenths[(wait * 10 / (most_ms * 1000 + 1)) as usize] += 1;
                tenths
            });
            let peak = tenths.into_iter().max().unwrap_or(0);
            assert!(peak <= 3000, "{tenths:?}");
        }
    }
}
