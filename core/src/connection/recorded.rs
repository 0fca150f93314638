//! The inputs of a connection that is recorded, see [`crate::record`]: each is done as it would be otherwise, and
//! noted with a digest of what came out.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringcall_buf::{Chunk, ChunkMut};

use super::ahead::RECORDED;
use super::send::refused;
use super::state::ConnectionState;
use super::{Call, Connection, CredentialsTooLong, Event, Item, ItemError, ReplyError, SendQueue};
use crate::frame::ReplyHeader;
use crate::record::{
    Digest, Hides, Input, Pieces, RecordSettings, Recorder, Snapshot, Taped, TooLate,
};
use crate::{CallId, Encoding, Expected, Identity, Instant, Payload, Refused, RequestId, StreamId};

impl<T> Connection<T> {
    /// Records everything that is done to this connection from now on, which must be its beginning. Until
    /// [`stop_recording`](Self::stop_recording) all of it takes longer; a connection that is not recorded pays
    /// a compare for each.
    ///
    /// # Errors
    /// [`TooLate`] when something was done already.
    pub fn record(&mut self, settings: RecordSettings) -> Result<(), TooLate> {
        if !self.is_new() {
            return Err(TooLate);
        }
        // Nothing has changed it since the beginning.
        let began = self.watch.received;
        let recorder = Recorder::new(settings, self.side, &self.config, &self.memory, began);
        self.put_recorder(Box::new(recorder));
        Ok(())
    }

    /// The record so far, if there is one.
    #[must_use]
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_deref().or(self.full_record.as_deref())
    }

    /// Ends the record.
    pub fn stop_recording(&mut self) -> Option<Box<Recorder>> {
        self.take_recorder().or_else(|| self.full_record.take())
    }

    /// How it stands.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state.name(),
            calls_in_flight: self.calls_in_flight(),
            in_flight_limit: self.in_flight_limit(),
            calls_served: self.calls_served(),
            credit_available: self.credit_available(),
            credit_held: self.credit_held(),
            items_held: self.items_held(),
            bytes_queued: self.bytes_queued(),
            hint: self.receive_hint(),
            timeout: self.poll_timeout(),
        }
    }

    /// Whether nothing was done to it that a record would have to have.
    fn is_new(&self) -> bool {
        self.state == ConnectionState::Preface
            && self.recorder().is_none()
            && self.counters.bytes_received == 0
            && self.given == 0
            && self.ending.is_none()
            && !self.input_ended
            && self.introduction.is_new()
            && self.retirement.is_new()
            && self.in_flight_max == self.config.in_flight_max
            && self.message_bytes_max == self.config.message_bytes_max
    }

    // ---- what is done ----

    /// Does something that is no more than its arguments, and notes it.
    #[cold]
    #[inline(never)]
    pub(super) fn recorded<R>(
        &mut self,
        now: Option<Instant>,
        input: Input<'_>,
        act: impl FnOnce(&mut Self) -> R,
        tell: fn(&mut Digest, &R),
    ) -> R {
        self.noted(now, |this, _| (act(this), input), tell)
    }

    /// Does something, and notes what it says that it was.
    fn noted<'a, R>(
        &mut self,
        now: Option<Instant>,
        act: impl FnOnce(&mut Self, &mut Recorder) -> (R, Input<'a>),
        tell: impl FnOnce(&mut Digest, &R),
    ) -> R {
        // While it is away, what is done is done as if nobody recorded it.
        let Some(mut recorder) = self.take_recorder() else { unreachable!("it was looked at") };
        recorder.begin(now, &self.memory);
        let (result, input) = act(self, &mut recorder);
        let snapshot = self.snapshot();
        recorder.end(&input, &self.memory, &snapshot, |digest| tell(digest, &result));
        match recorder.is_full() {
            true => self.full_record = Some(recorder),
            false => self.put_recorder(recorder),
        }
        result
    }

    /// From now on whatever does something comes here first: by looking at the recorder, or, where ordinary calls
    /// go and nothing may be added, because nothing counts as ordinary.
    fn put_recorder(&mut self, recorder: Box<Recorder>) {
        self.ahead.set(RECORDED, true);
        self.is_plain = false;
        self.recorder = Some(recorder);
    }

    /// Takes it away again.
    fn take_recorder(&mut self) -> Option<Box<Recorder>> {
        let recorder = self.recorder.take()?;
        self.ahead.set(RECORDED, false);
        self.is_plain = self.state == ConnectionState::Open;
        Some(recorder)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn recorded_received(&mut self, now: Instant, chunk: Chunk) {
        let mut scratch = Vec::new();
        let receive = |this: &mut Self, recorder: &mut Recorder| {
            let phase = (chunk.as_ptr() as usize % 64) as u8;
            let bytes = recorder.arrived(&chunk, &mut scratch);
            this.handle_received(now, chunk);
            ((), Input::Received { phase, bytes })
        };
        self.noted(Some(now), receive, Digest::nothing);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn recorded_landed(&mut self, now: Instant, buffer: ChunkMut, n: usize) {
        let mut scratch = Vec::new();
        let land = |this: &mut Self, recorder: &mut Recorder| {
            let capacity = buffer.capacity();
            let filled = buffer.filled_len().saturating_sub(n);
            let bytes = buffer.filled().get(filled..).unwrap_or_default();
            let bytes = recorder.arrived(bytes, &mut scratch);
            this.handle_landed(now, buffer, n);
            ((), Input::Landed { capacity, filled, bytes })
        };
        self.noted(Some(now), land, Digest::nothing);
    }

    #[cold]
    #[inline(never)]
    pub(super) fn recorded_event(&mut self, now: Instant) -> Option<Event<T>> {
        self.noted(Some(now), |this, _| (this.poll_event(now), Input::PollEvent), Digest::event)
    }

    /// [`poll_items`](Self::poll_items) where the next item is not ordinary.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual_items(
        &mut self,
        now: Instant,
        stream: StreamId,
        max: u32,
        take: &mut dyn FnMut(Item),
    ) -> u32 {
        if self.recorder.is_none() {
            return 0;
        }
        let poll = |this: &mut Self, recorder: &mut Recorder| {
            let digest = recorder.digest();
            let mut take: &mut dyn FnMut(Item) = &mut |item| {
                digest.item(&item);
                take(item);
            };
            (this.poll_items(now, stream, max, &mut take), Input::PollItems { stream, max })
        };
        self.noted(Some(now), poll, |_, _| ())
    }

    #[cold]
    #[inline(never)]
    pub(super) fn recorded_transmit(&mut self, now: Instant, queue: &mut impl SendQueue) {
        let mut scratch = Vec::new();
        self.noted(
            Some(now),
            |this: &mut Self, recorder: &mut Recorder| {
                let mut tapped = recorder.tap(queue);
                this.give(now, &mut tapped);
                let (bytes, is_full, sent) = tapped.taken();
                let sent = sent.map(|sent| recorder.left(&sent, &mut scratch));
                (bytes, Input::PollTransmit { bytes, is_full, sent })
            },
            |digest, bytes| digest.transmitted(*bytes),
        );
    }

    /// [`call`](Self::call) on a connection that is not plain.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual_call<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        call: &Call,
        payload: &P,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        self.do_call(now, call, &payload, ticket)
    }

    fn do_call(
        &mut self,
        now: Instant,
        call: &Call,
        payload: &dyn Payload,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        if self.recorder.is_none() {
            return refused(ticket, self.why_not_open());
        }
        let taped = Taped::new(payload, self.hides_payloads());
        let make = |this: &mut Self, _: &mut Recorder| {
            let result = match this.state {
                ConnectionState::Open => this.make_call::<dyn Payload>(now, call, &taped, ticket),
                _ => refused(ticket, this.why_not_open()),
            };
            (result, Input::Call { call: *call, payload: taped.recorded() })
        };
        self.noted(Some(now), make, Digest::called)
    }

    /// [`reply`](Self::reply) on a connection that is not plain. Header and result are numbers, so that ordinary
    /// answers need not have them in memory only because they could go here.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual_reply<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        request: RequestId,
        header: [u64; 4],
        payload: &P,
    ) -> (u64, usize) {
        let header = ReplyHeader::from_words(header);
        ReplyError::to_numbers(self.do_reply(now, request, header, &payload))
    }

    fn do_reply(
        &mut self,
        now: Instant,
        request: RequestId,
        header: ReplyHeader,
        payload: &dyn Payload,
    ) -> Result<(), ReplyError> {
        if self.recorder.is_none() {
            return self.answer::<_, false>(now, request, header, payload);
        }
        let taped = Taped::new(payload, self.hides_payloads());
        let answer = |this: &mut Self, _: &mut Recorder| {
            let result = this.answer::<dyn Payload, false>(now, request, header, &taped);
            (result, Input::Reply { request, header, payload: taped.recorded() })
        };
        self.noted(Some(now), answer, Digest::replied)
    }

    /// [`send_item`](Self::send_item) on a connection that is not plain.
    #[cold]
    #[inline(never)]
    pub(super) fn unusual_item<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        stream: StreamId,
        encoding: Encoding,
        payload: &P,
    ) -> Result<(), ItemError> {
        self.do_item(now, stream, encoding, &payload)
    }

    fn do_item(
        &mut self,
        now: Instant,
        stream: StreamId,
        encoding: Encoding,
        payload: &dyn Payload,
    ) -> Result<(), ItemError> {
        if self.recorder.is_none() {
            return self.send_stream_item(now, stream, encoding, payload);
        }
        let taped = Taped::new(payload, self.hides_payloads());
        let send = |this: &mut Self, _: &mut Recorder| {
            let result = this.send_stream_item::<dyn Payload>(now, stream, encoding, &taped);
            (result, Input::SendItem { stream, encoding, payload: taped.recorded() })
        };
        self.noted(Some(now), send, Digest::item_sent)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn recorded_begin(
        &mut self,
        now: Instant,
        request: RequestId,
        header: ReplyHeader,
        extensions: &[u8],
    ) -> Result<(), ReplyError> {
        let mut scratch = Vec::new();
        self.noted(
            Some(now),
            |this: &mut Self, recorder: &mut Recorder| {
                let result = this.begin_stream(now, request, header, extensions);
                let extensions = recorder.extensions(extensions, &mut scratch);
                (result, Input::BeginItems { request, header, extensions })
            },
            Digest::replied,
        )
    }

    #[cold]
    pub(super) fn recorded_present(&mut self, shown: &[u8]) -> Result<(), CredentialsTooLong> {
        let mut scratch = Vec::new();
        self.noted(
            None,
            |this: &mut Self, _: &mut Recorder| {
                let result = this.present(shown);
                (result, Input::Present { credentials: Pieces::hidden(shown.len(), &mut scratch) })
            },
            |_, _| (),
        )
    }

    #[cold]
    pub(super) fn recorded_introduce(
        &mut self,
        identity: &Identity,
    ) -> Result<(), CredentialsTooLong> {
        let mut scratch = Vec::new();
        self.noted(
            None,
            |this: &mut Self, _: &mut Recorder| {
                let result = this.introduce(identity);
                let identity = Pieces::kept(identity.as_str().as_bytes(), &mut scratch);
                (result, Input::Introduce { identity })
            },
            |_, _| (),
        )
    }

    #[cold]
    pub(super) fn recorded_expect_peer(&mut self, expected: &Expected) {
        let mut scratch = Vec::new();
        self.noted(
            None,
            |this: &mut Self, _: &mut Recorder| {
                this.expect_peer(expected.clone());
                let identity = Pieces::kept(expected.identity.as_str().as_bytes(), &mut scratch);
                ((), Input::ExpectPeer { identity, is_required: expected.is_required })
            },
            |_, ()| (),
        );
    }

    fn hides_payloads(&self) -> Hides {
        self.recorder.as_ref().map_or(Hides::default(), |recorder| recorder.hides_payloads())
    }
}
