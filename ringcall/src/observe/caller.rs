//! Calls that are made here, as observers are told of them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::frame::{
    Extension, ExtensionWriter, Extensions, ReplyHeader, request_flags, tag,
};
use ringcall_core::{
    Address, Answer, Cause, Clock, Codec, EncodeError, Encoded, Failure, Instant, Outcome,
    Outgoing, Payload, Transcode, Writer,
};

use super::{Call, CallEnd, End, Event, Observers, Role, next_number, trace_context_of};
use crate::client::PeerAddress;
use crate::shard::MachineClock;

/// Who is told of the calls on a connection, and what the other side is called.
pub(crate) struct Audience {
    pub(crate) observers: Observers,
    pub(crate) peer: PeerAddress,
}

/// A call that has begun and not ended.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    number: u64,
    at: Instant,
    pub(crate) request_bytes: usize,
}

impl Begun {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Audience {
    /// Nobody, if nobody observes.
    pub(crate) fn of(observers: &Observers, peer: PeerAddress) -> Option<Arc<Audience>> {
        let observers = observers.clone();
        (!observers.is_empty()).then(|| Arc::new(Audience { observers, peer }))
    }

    fn call<'a>(
        &self,
        call: &Outgoing,
        peer: Option<&'a Address>,
        number: u64,
        at: Instant,
    ) -> Call<'a> {
        Call {
            number,
            role: Role::Caller,
            method: call.method,
            peer,
            attempt: call.attempt,
            priority: call.priority,
            flags: call.flags,
            codec: call.codec,
            trace_context: None,
            at,
        }
    }

    #[cold]
    pub(crate) fn begin(&self, call: &Outgoing, now: Instant, payload: &dyn Payload) -> Begun {
        let number = next_number();
        let trace_context = trace_context_of(payload.extensions());
        let peer = self.peer.get();
        let told = Call { trace_context, ..self.call(call, peer.as_deref(), number, now) };
        self.observers.tell(&Event::CallBegun(told));
        Begun { number, at: now, request_bytes: 0 }
    }

    /// The extensions of a call, with the trace context that an observer has for it; `None` if none has.
    fn extend(&self, begun: &Begun, extensions: &[u8]) -> Option<Vec<u8>> {
        let context = self.observers.trace_context(begun.number)?;
        let mut writer = ExtensionWriter::new();
        let known = Extensions::new(extensions).map_while(Result::ok);
        for extension in known.filter(|extension| extension.tag != tag::TRACE_CONTEXT) {
            let _fits = writer.push(extension);
        }
        // The state goes on with the trace that it belongs to.
        let before = trace_context_of(extensions).and_then(|bytes| bytes.split_first_chunk());
        let state = before.filter(|(before, _): &(&[u8; 26], _)| before[1..17] == context[1..17]);
        let value = [&context[..], state.map_or(&[], |(_, state)| state)].concat();
        let context = Extension { tag: tag::TRACE_CONTEXT, critical: false, value: &value };
        let _fits = writer.push(context);
        Some(writer.finish())
    }

    /// A body that was encoded, with what observers want to travel with it.
    pub(crate) fn extend_encoded(&self, begun: &Begun, encoded: &mut Encoded) {
        if let Some(extensions) = self.extend(begun, &encoded.extensions) {
            encoded.extensions = extensions.into();
        }
    }

    /// The payload of a call, whose length is looked at.
    pub(crate) fn measure<'a>(&self, begun: &Begun, payload: &'a dyn Payload) -> Measured<'a> {
        let extensions = self.extend(begun, payload.extensions());
        Measured { payload, extensions, bytes: Cell::new(0) }
    }

    #[cold]
    pub(crate) fn repeat(&self, call: &Outgoing, number: u64, now: Instant) {
        let peer = self.peer.get();
        self.observers.tell(&Event::CallRepeated(self.call(call, peer.as_deref(), number, now)));
    }

    #[cold]
    pub(crate) fn end<B: AsRef<[u8]>>(
        &self,
        call: &Outgoing,
        begun: Begun,
        now: Instant,
        result: &Result<Answer<B>, Failure>,
    ) {
        match result {
            Ok(answer) => self.ended(call, begun, now, Ok((&answer.header, answer.body.as_ref()))),
            Err(failure) => self.ended(call, begun, now, Err(*failure)),
        }
    }

    #[cold]
    pub(crate) fn end_with(&self, call: &Outgoing, begun: Begun, now: Instant, outcome: &Outcome) {
        let sent = ReplyHeader::new(ringcall_core::Status::OK);
        let result = match outcome {
            Outcome::Reply(reply) => {
                let ReplyHeader { status, retry_after_ms, .. } = reply.header;
                match Failure::from_status(status, retry_after_ms) {
                    Some(failure) => Err(failure),
                    None => Ok((&reply.header, &*reply.body)),
                }
            }
            Outcome::Failed(failure) => Err(*failure),
            _ => Ok((&sent, &[][..])),
        };
        self.ended(call, begun, now, result);
    }

    fn ended(
        &self,
        call: &Outgoing,
        begun: Begun,
        now: Instant,
        result: Result<(&ReplyHeader, &[u8]), Failure>,
    ) {
        let time = |us: u32| Duration::from_micros(u64::from(us));
        let (end, queued, handled, reply_bytes) = match result {
            Ok(_) if call.flags & request_flags::ONE_WAY != 0 => {
                (End::Sent, Duration::ZERO, Duration::ZERO, 0)
            }
            Ok((header, body)) => (
                End::Answered(header.status),
                time(header.queue_us),
                time(header.handler_us),
                body.len(),
            ),
            Err(failure) => (End::Failed(failure), Duration::ZERO, Duration::ZERO, 0),
        };
        let took = now.since(begun.at);
        let Begun { number, request_bytes, .. } = begun;
        let end = CallEnd { end, took, queued, handled, request_bytes, reply_bytes };
        let peer = self.peer.get();
        self.observers.tell(&Event::CallEnded(self.call(call, peer.as_deref(), number, now), end));
    }
}

/// A call that ends when this does, if not before.
pub(crate) struct Ongoing(Option<(Arc<Audience>, Outgoing, Begun)>);

impl Ongoing {
    pub(crate) fn begin(
        audience: &Arc<Audience>,
        call: &Outgoing,
        now: Instant,
        payload: &dyn Payload,
    ) -> Ongoing {
        Ongoing(Some((Arc::clone(audience), *call, audience.begin(call, now, payload))))
    }

    /// Its payload, whose length is looked at.
    pub(crate) fn measure<'a>(&self, payload: &'a dyn Payload) -> Measured<'a> {
        match &self.0 {
            Some((audience, _, begun)) => audience.measure(begun, payload),
            None => Measured::new(payload),
        }
    }

    pub(crate) fn extend_encoded(&self, encoded: &mut Encoded) {
        if let Some((audience, _, begun)) = &self.0 {
            audience.extend_encoded(begun, encoded);
        }
    }

    /// Its argument has so many bytes.
    pub(crate) fn sends(&mut self, bytes: usize) {
        if let Some((.., begun)) = &mut self.0 {
            begun.request_bytes = bytes;
        }
    }

    pub(crate) fn end_with(&mut self, now: Instant, outcome: &Outcome) {
        if let Some((audience, call, begun)) = self.0.take() {
            audience.end_with(&call, begun, now, outcome);
        }
    }

    pub(crate) fn end<B: AsRef<[u8]>>(
        &mut self,
        now: Instant,
        result: &Result<Answer<B>, Failure>,
    ) {
        if let Some((audience, call, begun)) = self.0.take() {
            audience.end(&call, begun, now, result);
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if self.0.is_some() {
            let given_up = Outcome::Failed(Failure::unknown(Cause::Cancelled));
            self.end_with(MachineClock.now(), &given_up);
        }
    }
}

/// A payload whose length is looked at.
pub(crate) struct Measured<'a> {
    payload: &'a dyn Payload,
    /// Instead of its own.
    extensions: Option<Vec<u8>>,
    bytes: Cell<usize>,
}

impl<'a> Measured<'a> {
    pub(crate) fn new(payload: &'a dyn Payload) -> Measured<'a> {
        Measured { payload, extensions: None, bytes: Cell::new(0) }
    }

    /// How long it was when it was encoded last.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

impl Payload for Measured<'_> {
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        let before = out.message_len();
        self.payload.encode(codec, signature, out)?;
        self.bytes.set(out.message_len() - before);
        Ok(())
    }

    fn transcode(&self) -> Option<Transcode> {
        self.payload.transcode()
    }

    fn extensions(&self) -> &[u8] {
        self.extensions.as_deref().unwrap_or_else(|| self.payload.extensions())
    }
}
