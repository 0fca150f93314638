//! What became of a call: how it was decided, and each of its attempts.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{Failure, Instant, Status};

use super::events::Untold;
use super::{Attempt, CallState, Explanation, Fleet, Readiness};
use crate::route::Asked;

/// What became of a call, for whoever asks for that: see [`Settings::report_one_in`](crate::Settings::report_one_in)
/// and [`Balanced::reporting`](crate::Balanced::reporting).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallReport {
    /// `package.Service/method`.
    pub method: String,
    /// How it was decided when it began: rules, the instances with their scores, breakers, the budget. Where chance decides,
    /// it is that of this call.
    pub decided: Explanation,
    /// In the order in which they were made; none if the call was refused before.
    pub attempts: Vec<AttemptReport>,
    /// How long it took in all.
    pub took: Duration,
    /// How it ended.
    pub end: CallEnd,
    began: Instant,
}

/// One attempt of a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AttemptReport {
    /// 0 for the first one.
    pub number: u8,
    /// The instance that it went to.
    pub instance: String,
    /// It was made beside another one, which took long.
    pub is_hedge: bool,
    /// By it the fleet sees whether an instance that was ejected works.
    pub is_probe: bool,
    /// How bad the policy found this instance then, this attempt counted; lower is better.
    pub score: f64,
    /// Whole retries that the budget allowed behind it.
    pub budget: u64,
    /// How long after the call's beginning it was made: at first what a rule delayed, then back-offs.
    pub after: Duration,
    /// How long it took.
    pub took: Duration,
    /// What of that it waited at the server, and was worked on, if an answer says so.
    pub at_server: Option<(Duration, Duration)>,
    /// How it ended.
    pub end: CallEnd,
}

/// How a call or an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer, if only an error of the application.
    Answered(Status),
    /// Without.
    Failed(Failure),
    /// Nobody waited for it any more: its caller went away, or another attempt was faster.
    GivenUp,
}

impl CallEnd {
    fn of(end: Option<Result<&ReplyHeader, &Failure>>) -> CallEnd {
        match end {
            Some(Ok(header)) => CallEnd::Answered(header.status),
            Some(Err(failure)) => CallEnd::Failed(*failure),
            None => CallEnd::GivenUp,
        }
    }
}

/// Of the calls that are reported. They are apart, so that other calls are no larger.
#[derive(Debug, Default)]
pub(super) struct Reports {
    under_way: BTreeMap<NonZeroU32, CallReport>,
    last: u32,
    ended: Untold<CallReport, 64>,
    /// Calls until one is reported.
    until_next: u32,
}

impl Reports {
    /// One in so many calls is reported from now on; 0: none.
    pub(super) fn count(&mut self, one_in: u32) {
        self.until_next = one_in;
    }

    /// Puts down the report of a call that has begun.
    fn add(&mut self, report: CallReport) -> NonZeroU32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let number = NonZeroU32::new(self.last).unwrap_or(NonZeroU32::MIN);
        self.under_way.insert(number, report);
        number
    }
}

impl<T: Clone> Fleet<T> {
    /// Whether the settings want the call that begins now to be reported.
    #[inline]
    pub(crate) fn is_next_reported(&mut self) -> bool {
        // Without reports it comes to 0 after four billion calls.
        self.reports.until_next = self.reports.until_next.wrapping_sub(1);
        self.reports.until_next == 0 && self.count_again()
    }

    #[cold]
    fn count_again(&mut self) -> bool {
        self.reports.count(self.settings.report_one_in);
        self.settings.report_one_in > 0
    }

    /// [Begins](Fleet::begin) a call of which there is to be a [report](Fleet::poll_report), which says as well how it is
    /// decided: that takes a look at each instance.
    ///
    /// # Errors
    /// As [`begin`](Fleet::begin), and then the report is there at once.
    #[cold]
    pub fn begin_reported(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        flags: u8,
        timeout: Duration,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Result<CallState, Failure> {
        let mut report = CallReport {
            method: asked.name.to_owned(),
            decided: self.explain_call(now, asked, readiness),
            attempts: Vec::new(),
            took: Duration::ZERO,
            end: CallEnd::GivenUp,
            began: now,
        };
        match self.begin(now, asked, flags, timeout) {
            Ok(call) => Ok(CallState { report: Some(self.reports.add(report)), ..call }),
            Err(failure) => {
                report.end = CallEnd::Failed(failure);
                self.reports.ended.tell(report);
                Err(failure)
            }
        }
    }

    /// What became of a call that was to be reported, and was not taken yet; the last 64 are kept.
    pub fn poll_report(&mut self) -> Option<CallReport> {
        self.reports.ended.take()
    }

    /// An attempt of a call that is reported was made.
    #[cold]
    pub(super) fn report_attempt(
        &mut self,
        now: Instant,
        call: &CallState,
        attempt: &Attempt,
        is_hedge: bool,
    ) {
        let report = call.report.and_then(|number| self.reports.under_way.get_mut(&number));
        let Some(report) = report else { return };
        let place = attempt.host.place();
        report.attempts.push(AttemptReport {
            number: attempt.number,
            instance: self.hosts.host(place).listed.instance.name.clone(),
            is_hedge,
            is_probe: attempt.is_probe,
            score: self.balance.score(now, &self.hosts.stats()[place as usize]),
            budget: self.budget.balance(),
            after: now.since(report.began),
            took: Duration::ZERO,
            at_server: None,
            end: CallEnd::GivenUp,
        });
    }

    /// An attempt of a call that is reported has ended, like this.
    #[cold]
    pub(super) fn report_end(
        &mut self,
        now: Instant,
        call: &CallState,
        attempt: &Attempt,
        end: Option<Result<&ReplyHeader, &Failure>>,
    ) {
        let report = call.report.and_then(|number| self.reports.under_way.get_mut(&number));
        let attempts = report.into_iter().flat_map(|report| &mut report.attempts);
        for told in attempts.filter(|told| told.number == attempt.number) {
            told.took = now.since(attempt.started);
            told.end = CallEnd::of(end);
            told.at_server = end.and_then(Result::ok).map(|header| {
                let [waited, worked] = [header.queue_us, header.handler_us];
                (Duration::from_micros(waited.into()), Duration::from_micros(worked.into()))
            });
        }
    }

    /// A call that is reported has ended, like this.
    #[cold]
    pub(super) fn file_report(
        &mut self,
        now: Instant,
        number: NonZeroU32,
        end: Option<Result<&ReplyHeader, &Failure>>,
    ) {
        if let Some(mut report) = self.reports.under_way.remove(&number) {
            report.took = now.since(report.began);
            report.end = CallEnd::of(end);
            self.reports.ended.tell(report);
        }
    }
}

impl fmt::Display for CallEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallEnd::Answered(status) => write!(f, "answered with {status}"),
            CallEnd::Failed(failure) => write!(f, "{failure}"),
            CallEnd::GivenUp => f.write_str("given up"),
        }
    }
}

impl fmt::Display for CallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} took {:?}: {}", self.method, self.took, self.end)?;
        for attempt in &self.attempts {
            writeln!(f, "  {attempt}")?;
        }
        write!(f, "decided by {}", self.decided)
    }
}

impl fmt::Display for AttemptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.is_hedge, self.is_probe, self.number) {
            (true, ..) => "hedge",
            (_, true, _) => "probe",
            (.., 0) => "first",
            _ => "again",
        };
        write!(f, "{what} after {:?} at {}", self.after, self.instance)?;
        write!(f, ", score {:.0}, budget {}", self.score, self.budget)?;
        write!(f, ": {} after {:?}", self.end, self.took)?;
        if let Some((waited, worked)) = self.at_server {
            write!(f, ", of which it waited {waited:?} and was worked on {worked:?}")?;
        }
        Ok(())
    }
}
