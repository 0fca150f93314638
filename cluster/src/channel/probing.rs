//! Instances are asked how busy they are, beside calls.
//!
//! A question is the cheapest call that every server answers, and whose answer says how busy it is: for the part of its
//! table of methods behind the last one. Nobody waits for the answer and nobody is woken for it: it is looked at when
//! the next call begins, which is when it is of use, and when somebody watches the channel's instances or asks for its
//! counts.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Codec, EncodeError, Instant, METHODS_PAGE, Outgoing, OwnedChannel, Payload, Writer, method_id,
};

use super::{Connector, Guard as _, Shared};
use crate::fleet::{CallState, LoadProbe};

/// The questions of a channel that are under way.
pub(super) struct Probing<N: Connector> {
    running: Vec<Running<N>>,
    /// Kept for the next call.
    wanted: Vec<(LoadProbe, N::Channel)>,
}

struct Running<N: Connector> {
    future: <N::Channel as OwnedChannel>::Owned<Behind>,
    probe: LoadProbe,
    until: Instant,
}

/// Asks for the part of a table of methods behind the last one.
#[derive(Clone, Copy, Debug)]
struct Behind;

impl Payload for Behind {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        Ok(out.put(&u64::MAX.to_le_bytes())?)
    }
}

impl<N: Connector> Default for Probing<N> {
    fn default() -> Probing<N> {
        Probing { running: Vec::new(), wanted: Vec::new() }
    }
}

impl<N: Connector> Shared<N> {
    /// A call begins: hears what instances have answered, and asks those that balancing wants to be asked.
    pub(super) fn probe_loads(&self, call: &CallState) {
        let now = self.connector.now();
        let mut probing = self.probing.with(std::mem::take);
        self.hear(now, &mut probing.running);
        let (wanted, connector) = (&mut probing.wanted, &self.connector);
        self.fleet.with(|fleet| {
            let readiness = |channel: &N::Channel| connector.readiness(channel);
            fleet.load_probes(now, call, readiness, |probe, channel| wanted.push((probe, channel)));
        });
        let before = probing.running.len();
        let begin = |(probe, channel)| Running::new(now, probe, channel);
        probing.running.extend(probing.wanted.drain(..).map(begin));
        // They are sent when they are first looked at.
        if probing.running.len() > before {
            self.hear(now, &mut probing.running);
        }
        self.probing.with(|kept| kept.give_back(probing));
    }

    /// Hears what instances have answered.
    pub(super) fn look_at_probes(&self) {
        let mut probing = self.probing.with(std::mem::take);
        if !probing.running.is_empty() {
            self.hear(self.connector.now(), &mut probing.running);
        }
        self.probing.with(|kept| kept.give_back(probing));
    }

    /// Without the guard: a connection may run code of somebody's, such as a filter.
    fn hear(&self, now: Instant, running: &mut Vec<Running<N>>) {
        let mut at = 0;
        while let Some(question) = running.get_mut(at) {
            match question.look(now) {
                Poll::Pending => at += 1,
                Poll::Ready(load) => {
                    let Running { future, probe, .. } = running.swap_remove(at);
                    drop(future);
                    self.fleet.with(|fleet| fleet.end_load_probe(probe, load));
                }
            }
        }
    }
}

impl<N: Connector> Probing<N> {
    /// Those that go on; another thread may have begun some meanwhile.
    fn give_back(&mut self, mut other: Probing<N>) {
        if self.running.is_empty() {
            *self = other;
        } else {
            self.running.append(&mut other.running);
        }
    }
}

impl<N: Connector> Running<N> {
    /// One that is sent when it is looked at first.
    fn new(now: Instant, probe: LoadProbe, channel: N::Channel) -> Running<N> {
        let call = Outgoing {
            name: METHODS_PAGE,
            method: method_id(METHODS_PAGE),
            in_signature: 0,
            out_signature: 0,
            codec: Codec::RAW,
            compression: 0,
            timeout: probe.timeout,
            priority: 0,
            attempt: 0,
            flags: 0,
            wait_for_ready: false,
        };
        Running { future: channel.call_owned(call, Behind), until: now + probe.timeout, probe }
    }

    /// How busy the instance says it is, once the question is over.
    fn look(&mut self, now: Instant) -> Poll<Option<u16>> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.future).poll(&mut cx) {
            Poll::Ready(end) => Poll::Ready(end.ok().map(|answer| answer.header.load)),
            Poll::Pending if self.until <= now => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
