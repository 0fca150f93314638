//! Calls with streams, once one was opened: when they begin and how they end.

use std::time::Duration;

use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{Failure, Instant};

use super::methods::Passed;
use super::{Attempt, CallState, Fleet, is_good, is_good_of_method, probed_like};
use crate::health::Probed;
use crate::sign::{Sign, sign_of};

/// An attempt that has become a stream: nothing is made again for its call. Give it back exactly once: to
/// [`Fleet::end_stream`], or to [`Fleet::leave_stream`].
#[derive(Debug)]
#[must_use]
pub struct OpenStream {
    attempt: Attempt,
    /// From when on its instance is waited for, if it is and not the caller.
    since: Option<Instant>,
    has_begun: bool,
    /// The breaker at its instance has heard of it already.
    is_judged: bool,
}

impl OpenStream {
    /// One that was opened by this attempt.
    pub fn new(call: &CallState, attempt: Attempt) -> OpenStream {
        let both = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;
        // The only answer of an upload may come long after its last item, or before it; it says nothing until then.
        let is_upload = call.flags & both == request_flags::ITEMS_IN;
        let since = (!is_upload).then_some(attempt.started);
        OpenStream { attempt, since, has_begun: false, is_judged: false }
    }

    /// The caller sends no further items.
    pub fn sent_all(&mut self, now: Instant) {
        self.since = self.since.or(Some(now));
    }

    /// How long its instance has taken so far.
    fn waited(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.since(since))
    }
}

impl<T: Clone> Fleet<T> {
    /// The reply begins: so long has its instance taken, and a call by which one sees whether something works has shown that
    /// it does. The stream may go on for days.
    pub fn begin_stream(
        &mut self,
        now: Instant,
        call: &mut CallState,
        stream: &mut OpenStream,
        header: &ReplyHeader,
    ) {
        if std::mem::replace(&mut stream.has_begun, true) {
            return;
        }
        self.succeeded(now, call);
        if call.pass.is_some_and(Passed::is_probe) {
            self.end_method(now, call, Some(true));
            call.pass = None;
        }
        let host = stream.attempt.host;
        if self.hosts.stats_of(host).is_none() {
            return;
        }
        if stream.attempt.pass.is_some_and(Passed::is_probe) {
            stream.is_judged = true;
            self.end_host(now, call, &stream.attempt, Some(true));
        }
        let is_probe = std::mem::take(&mut stream.attempt.is_probe);
        if is_probe {
            self.probed(now, host.place(), Probed::Works);
            self.refresh(now);
        }
        let stats = self.hosts.stats_mut(host.place());
        stats.observe(now, now.since(stream.attempt.started), true, header.load);
        if is_probe {
            stats.forgive();
        }
        if self.counts_times {
            stats.took(header.queue_us, header.handler_us);
        }
    }

    /// A stream has ended, like this, and its call with it.
    pub fn end_stream(
        &mut self,
        now: Instant,
        call: &CallState,
        stream: OpenStream,
        end: Result<&ReplyHeader, &Failure>,
    ) {
        if call.report.is_some() {
            self.report_end(now, call, &stream.attempt, Some(end));
        }
        let sign = sign_of(end, &self.methods.settings(call.method).retry.errors);
        if sign == Sign::Good && !stream.has_begun {
            self.succeeded(now, call);
        }
        self.observe_stream(now, call, &stream, end, sign);
        self.finish(now, call, Some(end));
    }

    /// Its caller has let go of a stream, and of its call with it. One that had begun was what the caller wanted.
    pub fn leave_stream(&mut self, now: Instant, call: &mut CallState, stream: OpenStream) {
        let is_good = stream.has_begun.then_some(true);
        if call.report.is_some() {
            self.report_end(now, call, &stream.attempt, None);
        }
        self.leave_host(now, call, &stream, is_good);
        self.end_method(now, call, is_good);
        // Its breaker has heard of it.
        call.pass = None;
        self.finish(now, call, None);
    }

    /// What was seen of it, by its instance, its breaker, and its health.
    fn observe_stream(
        &mut self,
        now: Instant,
        call: &CallState,
        stream: &OpenStream,
        end: Result<&ReplyHeader, &Failure>,
        sign: Sign,
    ) {
        let OpenStream { attempt, is_judged, has_begun, .. } = stream;
        let (place, is_good) = (attempt.host.place(), is_good(sign));
        let Some(health) = self.hosts.ended(attempt.host) else { return };
        if let Some(is_good) = is_good {
            health.record(now, is_good);
        }
        if attempt.is_probe {
            self.probed(now, place, probed_like(end, is_good));
            self.refresh(now);
        }
        if !is_judged {
            self.end_host(now, call, attempt, is_good_of_method(sign));
        }
        let Some(is_good) = is_good else { return };
        let latency = stream.waited(now).filter(|_| !has_begun);
        let (load, stats) = (end.map_or(0, |header| header.load), self.hosts.stats_mut(place));
        match latency {
            Some(latency) => stats.observe(now, latency, is_good, load),
            None if !is_good => stats.observe(now, Duration::ZERO, false, load),
            None if load != 0 => stats.says(load),
            None => {}
        }
        if is_good && attempt.is_probe {
            stats.forgive();
        }
        if !is_good {
            self.failed(now, place);
        }
    }

    /// Nobody waits for its instance any more.
    fn leave_host(
        &mut self,
        now: Instant,
        call: &CallState,
        stream: &OpenStream,
        is_good: Option<bool>,
    ) {
        let OpenStream { attempt, is_judged, has_begun, .. } = stream;
        let place = attempt.host.place();
        let Some(health) = self.hosts.ended(attempt.host) else { return };
        if let Some(is_good) = is_good {
            health.record(now, is_good);
        }
        if attempt.is_probe {
            self.probed(now, place, Probed::GivenUp);
            self.refresh(now);
        }
        if !is_judged {
            self.end_host(now, call, attempt, is_good);
        }
        // Or an instance that never begins would look fast.
        if let Some(waited) = stream.waited(now).filter(|_| !has_begun) {
            self.hosts.stats_mut(place).waited(waited);
        }
    }

    /// The method's breaker hears how a call has ended.
    fn end_method(&mut self, now: Instant, call: &CallState, is_good: Option<bool>) {
        if let Some(is_open) = self.methods.end(call.method, now, call.pass, is_good) {
            self.breaker_is(is_open, call.method, None);
        }
    }

    /// The breaker of its method at its instance does.
    fn end_host(
        &mut self,
        now: Instant,
        call: &CallState,
        attempt: &Attempt,
        is_good: Option<bool>,
    ) {
        let place = attempt.host.place();
        let changed = self.methods.end_host(call.method, place, now, attempt.pass, is_good);
        if let Some(is_open) = changed {
            self.breaker_is(is_open, call.method, Some(place));
        }
    }
}
