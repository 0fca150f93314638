//! What arriving frames do to a connection: the dispatch, and frames that belong to no call.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::Chunk;

use super::credit::Allowance;
use super::inbound::{Found, stranger};
use super::state::{CallInput, CallState, ConnectionInput};
use super::stream::pool_items;
use super::{BodyTarget, Connection, Event, Outcome};
use crate::config::{MetadataMax, WINDOW_MAX};
use crate::frame::{
    self, Credit, CreditPool, CreditUnit, Extension, Extensions, FLAG_ACK, GoAway, Head, Hello,
    Kind, Limits, MAGIC, PREFACE_LEN, Ping, VERSION, parse_metadata, tag,
};
use crate::{Attached, Cause, CloseReason, Failure, Instant, MessageId, Side, Status};

/// What a frame leads to: an event, nothing, or the end.
pub(super) type Received<T> = Result<Option<Event<T>>, CloseReason>;

impl<T> Connection<T> {
    /// Parses until there is an event, or nothing more to parse.
    #[inline]
    pub(super) fn receive(&mut self, now: Instant) -> Received<T> {
        if self.liveness.is_paused() {
            self.give_back_pause(now);
        }
        while !self.is_paused() {
            let found = match self.ahead.take_stalled() {
                Some(stalled) => stalled,
                None => match self.inbound.next(&self.memory, &mut self.counters)? {
                    Some(found) => found,
                    None => {
                        if self.inbound.is_inside_frame() {
                            self.look_after_by(now + self.config.stall_timeout);
                        }
                        return Ok(None);
                    }
                },
            };
            let event = match found {
                Found::Frame(head, frame) => self.frame(now, head, frame)?,
                Found::Part(part) => self.part(now, part),
                Found::Large(head, header) => self.large(now, head, header)?,
                Found::Preface(bytes) => self.preface(bytes)?,
            };
            if event.is_some() {
                return Ok(event);
            }
            // A frame may have caused several events, or wait for memory.
            if self.ahead.is_stalled() || self.ahead.has_events() {
                return Ok(self.ahead.pop());
            }
        }
        self.liveness.pause(now);
        Ok(None)
    }

    fn preface(&mut self, bytes: [u8; PREFACE_LEN]) -> Received<T> {
        let [magic @ .., version] = bytes;
        if magic != MAGIC {
            return Err(stranger(bytes));
        }
        // Also to someone of another version: our HELLO says which ones we speak.
        self.control.hello |= self.side == Side::Server;
        self.step(ConnectionInput::PrefaceRead);
        if version != VERSION {
            return Err(CloseReason::Version { min: version, max: version });
        }
        Ok(None)
    }

    /// A frame that is here whole.
    #[inline]
    fn frame(&mut self, now: Instant, head: Head, frame: Chunk) -> Received<T> {
        match self.classify(&head)? {
            Some(Kind::Request) => self.request(now, head, frame),
            Some(Kind::Reply) => self.reply_frame(now, head, frame),
            Some(Kind::Item) if self.has_streams() => self.item_frame(now, head, frame),
            Some(Kind::End) if self.is_end_of_reply(&head) => self.reply_frame(now, head, frame),
            Some(Kind::Data) => self.data_frame(now, head, frame),
            Some(kind) => self.other(now, kind, head, &frame),
            None => self.ignore(now, head.length as usize).map(|()| None),
        }
    }

    /// The header of a frame whose body follows in parts.
    fn large(&mut self, now: Instant, head: Head, header: Chunk) -> Received<T> {
        self.body_target = BodyTarget::Nothing;
        let begin = match self.classify(&head)? {
            Some(Kind::Request) => Self::large_request,
            Some(Kind::Reply) => Self::large_reply,
            Some(Kind::End) if self.is_end_of_reply(&head) => Self::large_reply,
            Some(Kind::Item) if self.has_streams() => Self::large_item,
            Some(Kind::Data) => return self.data(now, &head, &header).map(|()| None),
            Some(kind) => return self.other(now, kind, head, &header),
            None => return self.ignore(now, head.length as usize).map(|()| None),
        };
        if !begin(self, now, &head, &header)? {
            self.stall(now, Found::Large(head, header));
        }
        Ok(None)
    }

    /// A frame that is here whole and begins a body that continues in others.
    pub(super) fn first_part(
        &mut self,
        now: Instant,
        head: Head,
        mut frame: Chunk,
        begin: impl FnOnce(&mut Self, Instant, &Head, &Chunk) -> Result<bool, CloseReason>,
    ) -> Received<T> {
        let header_len = usize::from(head.header_len);
        let header = frame.slice(0..header_len);
        if !begin(self, now, &head, &header)? {
            self.stall(now, Found::Frame(head, frame));
            return Ok(None);
        }
        frame.advance(header_len);
        Ok(self.part(now, frame))
    }

    /// Whether an END is the end of an answer to a call of this side.
    fn is_end_of_reply(&self, head: &Head) -> bool {
        self.has_streams() && head.id.side() == self.side
    }

    /// The landing budget does not allow the body now: `poll_event` tries again.
    pub(super) fn stall(&mut self, now: Instant, found: Found) {
        self.ahead.stall(found);
        self.look_after_by(now + crate::Wheel::TICK);
    }

    /// The kind, if flags, body and the state of the handshake fit it; `None` to ignore the frame.
    #[inline]
    fn classify(&mut self, head: &Head) -> Result<Option<Kind>, CloseReason> {
        let Some(kind) = Kind::from_wire(head.kind) else {
            return match (self.peer.is_some(), Kind::is_ignorable(head.kind)) {
                (false, _) => Err(CloseReason::BadHello),
                (true, true) => Ok(None),
                (true, false) => Err(CloseReason::UnknownKind(head.kind)),
            };
        };
        if self.peer.is_some() == (kind == Kind::Hello) {
            return Err(CloseReason::BadHello);
        }
        let unknown_flags = head.flags & !kind.known_flags();
        if unknown_flags != 0 {
            return Err(CloseReason::UnknownFlags(unknown_flags));
        }
        if !kind.has_body() && head.body_len() != Some(0) {
            return Err(CloseReason::BadLength);
        }
        if usize::from(head.header_len) < kind.fixed_len() {
            return Err(CloseReason::BadHeader);
        }
        Ok(Some(kind))
    }

    /// Frames that are neither a call's beginning nor its end nor a part of a body.
    fn other(&mut self, now: Instant, kind: Kind, head: Head, frame: &Chunk) -> Received<T> {
        let is_about_a_call = matches!(kind, Kind::Cancel | Kind::Item | Kind::End | Kind::Credit);
        if !is_about_a_call && head.id != MessageId::CONNECTION {
            return Err(CloseReason::BadId);
        }
        if matches!(kind, Kind::Credit | Kind::Pong | Kind::GoAway | Kind::Limits) {
            self.count_control(now)?;
        }
        match kind {
            Kind::Hello => return self.hello(&head, frame).map(Some),
            Kind::Credit => self.granted(now, &head, frame)?,
            Kind::Cancel => return self.cancelled(now, &head, frame),
            Kind::Ping => {
                self.control.pong = Some(plain_header(&head, frame, Ping::parse)?);
                self.count_ping(now)?;
            }
            Kind::Pong => {
                let pong = plain_header(&head, frame, Ping::parse)?;
                return Ok(self.ponged(now, pong.opaque));
            }
            Kind::GoAway => {
                let go_away = plain_header(&head, frame, GoAway::parse)?;
                return self.go_away_received(go_away);
            }
            Kind::Limits => self.limits(now, &head, frame)?,
            Kind::End if self.has_streams() => return self.caller_ends(now, &head, frame),
            // Without streams they are refused when they are asked for, so these belong to nothing.
            Kind::Item | Kind::End => self.skip_stream(now, &head)?,
            Kind::Request | Kind::Reply | Kind::Data => {}
        }
        Ok(None)
    }

    fn hello(&mut self, head: &Head, frame: &Chunk) -> Result<Event<T>, CloseReason> {
        let (hello, extensions) = split_header(head, frame, Hello::parse)?;
        check_extensions(extensions)?;
        if hello.version_min > VERSION || hello.version_max < VERSION {
            return Err(CloseReason::Version { min: hello.version_min, max: hello.version_max });
        }
        let mut windows = [hello.calls_window, hello.replies_window].into_iter();
        if hello.in_flight_max == 0
            || hello.message_bytes_max == 0
            || hello.stream_window > WINDOW_MAX
            || windows.any(|window| window / 2 < hello.message_bytes_max || window > WINDOW_MAX)
        {
            return Err(CloseReason::BadHello);
        }
        self.inbound.set_body_max(self.message_bytes_max);
        self.credit.calls_out = Allowance::new(hello.calls_window);
        self.credit.replies_out = Allowance::new(hello.replies_window);
        self.credit.call_items_out = Allowance::new(pool_items(hello.calls_window));
        self.credit.reply_items_out = Allowance::new(pool_items(hello.replies_window));
        self.watch.handshake = Instant::FAR;
        self.look_after_by(self.retirement.next());
        self.bounds.their_in_flight_max = hello.in_flight_max;
        self.bounds.their_message_bytes_max = hello.message_bytes_max;
        self.introduction.read(extensions)?;
        self.peer = Some(hello);
        self.step(ConnectionInput::HelloRead);
        Ok(Event::Established(hello))
    }

    fn granted(&mut self, now: Instant, head: &Head, frame: &Chunk) -> Result<(), CloseReason> {
        // An unknown pool or unit belongs to a feature that was not agreed upon.
        let (credit, extensions) = Credit::parse(frame).ok_or(CloseReason::NotNegotiated)?;
        check_extensions(extensions)?;
        let has_streams = self.has_streams();
        let allowance = match (credit.pool, credit.unit) {
            (CreditPool::Calls, CreditUnit::Bytes) => &mut self.credit.calls_out,
            (CreditPool::Replies, CreditUnit::Bytes) => &mut self.credit.replies_out,
            (CreditPool::Call, CreditUnit::Bytes | CreditUnit::Items) if has_streams => {
                return self.stream_granted(now, head.id, &credit);
            }
            (CreditPool::Calls, CreditUnit::Items) if has_streams => {
                &mut self.credit.call_items_out
            }
            (CreditPool::Replies, CreditUnit::Items) if has_streams => {
                &mut self.credit.reply_items_out
            }
            _ => return Err(CloseReason::NotNegotiated),
        };
        if head.id != MessageId::CONNECTION {
            return Err(CloseReason::BadId);
        }
        allowance.grant(credit.amount)?;
        self.fund();
        self.wake_crowded();
        Ok(())
    }

    fn limits(&mut self, now: Instant, head: &Head, frame: &Chunk) -> Result<(), CloseReason> {
        let limits = plain_header(head, frame, Limits::parse)?;
        if head.flags & FLAG_ACK != 0 {
            self.limits_confirmed(now, limits);
            return Ok(());
        }
        let window = self.peer.map_or(0, |peer| peer.calls_window.min(peer.replies_window));
        if limits.in_flight_max == 0
            || limits.message_bytes_max == 0
            || limits.message_bytes_max > window / 2
        {
            return Err(CloseReason::BadLength);
        }
        if let Some(peer) = &mut self.peer {
            peer.in_flight_max = limits.in_flight_max;
            peer.message_bytes_max = limits.message_bytes_max;
            self.bounds.their_in_flight_max = limits.in_flight_max;
            self.bounds.their_message_bytes_max = limits.message_bytes_max;
        }
        // Of several that arrive before an answer has left, the last one is answered; behind all calls
        // that were made under the limits before it.
        self.control.limits_ack = Some((limits, self.outbound.mark()));
        Ok(())
    }

    fn go_away_received(&mut self, go_away: GoAway) -> Received<T> {
        let before = self.goaway_received.unwrap_or(GoAway::SOON);
        if go_away.accepted < before {
            self.goaway_received = Some(go_away.accepted);
            self.refused_by_go_away(go_away.accepted);
        }
        if go_away.code != crate::CloseCode::NONE {
            return Err(CloseReason::GoAway(go_away.code));
        }
        self.goaway_received.get_or_insert(GoAway::SOON);
        self.step(ConnectionInput::GoAway);
        Ok(Some(Event::GoAway(go_away.code)))
    }

    /// Calls that the other side says it has not taken will not be run.
    fn refused_by_go_away(&mut self, accepted: u64) {
        for slot in 0..self.calls.slots() {
            let Some(entry) = self.calls.at(slot) else { continue };
            // A call without a number is not in the send order, and must not enter it any more.
            if entry.number != 0 && entry.number <= accepted {
                continue;
            }
            let (ticket, state) = (entry.ticket.take(), entry.state);
            if matches!(state, CallState::Held | CallState::Sending)
                && let Some(id) = self.calls.id_at(slot)
            {
                self.stop_sending(id);
            }
            if let Some(id) = self.calls.id_at(slot) {
                self.stop_streams(id);
            }
            if let Some(mut arriving) = self.calls.at(slot).and_then(|entry| entry.arriving.take())
            {
                self.credit.replies_in.release(arriving.ignore());
            }
            self.calls.step(slot, CallInput::End);
            let failure = match state {
                CallState::Held => Failure::not_sent(Cause::GoAway),
                _ => Failure::refused(Cause::GoAway),
            };
            self.complete(ticket, failure);
        }
        for (number, ticket) in core::mem::take(&mut self.one_ways) {
            if number > accepted {
                self.complete(Some(ticket), Failure::refused(Cause::GoAway));
            } else {
                self.one_ways.push_back((number, ticket));
            }
        }
    }

    pub(super) fn complete(&mut self, ticket: Option<T>, failure: Failure) {
        if let Some(ticket) = ticket {
            self.counters.calls_ended = self.counters.calls_ended.wrapping_add(1);
            self.ahead.push(Event::Completed(ticket, Outcome::Failed(failure)));
        }
    }

    fn skip_stream(&mut self, now: Instant, head: &Head) -> Result<(), CloseReason> {
        let len = head.body_len().unwrap_or(0);
        let window = match head.id.side() == self.side {
            true => &mut self.credit.replies_in,
            false => &mut self.credit.calls_in,
        };
        window.charge(len)?;
        window.release(len);
        self.ignore(now, len)
    }

    /// Counts bytes that are ignored, within a budget.
    pub(super) fn ignore(&mut self, now: Instant, len: usize) -> Result<(), CloseReason> {
        // A head costs something, too.
        let bytes = (len as u64).saturating_add(Head::LEN as u64);
        self.counters.bytes_ignored = self.counters.bytes_ignored.wrapping_add(bytes);
        match self.ignored.add(now, bytes, self.config.ignored_bytes_max) {
            true => Ok(()),
            false => Err(CloseReason::TooMuchIgnored),
        }
    }

    /// A body where the application may keep it: aligned, and not pinning what is scarce.
    #[inline]
    pub(super) fn settle(&mut self, body: Chunk) -> Chunk {
        if body.is_empty() {
            // Does not hold on to the frame's memory.
            return Chunk::empty();
        }
        let misaligned = !body.is_aligned_to(frame::ALIGN);
        if !misaligned && !self.memory.is_hoarded() {
            return body;
        }
        let counter = match misaligned {
            true => &mut self.counters.copied_misaligned,
            false => &mut self.counters.copied_hoard,
        };
        *counter = counter.wrapping_add(body.len() as u64);
        self.memory.pool().copy(&body)
    }

    /// A part of a header that the application may keep.
    pub(super) fn keep(&self, extensions: Chunk) -> Chunk {
        match self.memory.is_hoarded() {
            true => self.memory.pool().copy(&extensions),
            false => extensions,
        }
    }
}

/// What the TLVs of a header say to core.
pub(super) struct Announced {
    pub(super) total_len: Option<u64>,
    /// How much of the end of the body is beside the message.
    attachment_len: Option<u64>,
    /// A critical extension that core does not know.
    pub(super) unknown_critical: Option<u16>,
    /// Whether there is anything that the application may want.
    pub(super) has_others: bool,
    /// Entries of metadata, and how many bytes they take.
    metadata: MetadataMax,
    /// One of them is none.
    has_bad_metadata: bool,
}

impl Announced {
    /// `understood`: the critical ones that are the application's, see [`Config::understands`].
    #[inline]
    pub(super) fn parse(extensions: &[u8], understood: u64) -> Result<Announced, CloseReason> {
        let mut announced = Announced {
            total_len: None,
            attachment_len: None,
            unknown_critical: None,
            has_others: false,
            metadata: MetadataMax { entries: 0, bytes: 0 },
            has_bad_metadata: false,
        };
        if !extensions.is_empty() {
            announced.read(extensions, understood)?;
        }
        Ok(announced)
    }

    fn read(&mut self, extensions: &[u8], understood: u64) -> Result<(), CloseReason> {
        for extension in Extensions::new(extensions) {
            let Extension { tag, critical, value } =
                extension.map_err(|_| CloseReason::BadHeader)?;
            let length = match tag {
                tag::TOTAL_LEN => Some(&mut self.total_len),
                tag::ATTACHMENT_LEN => Some(&mut self.attachment_len),
                _ => None,
            };
            if let Some(length) = length {
                let value = value.try_into().map_err(|_| CloseReason::BadHeader)?;
                if length.replace(u64::from_le_bytes(value)).is_some() {
                    return Err(CloseReason::BadHeader);
                }
                continue;
            }
            self.has_others = true;
            if tag == tag::METADATA {
                self.has_bad_metadata |= parse_metadata(value).is_none();
                // A header has room for a few thousand entries.
                let MetadataMax { entries, bytes } = &mut self.metadata;
                *entries = entries.saturating_add(1);
                *bytes = bytes.saturating_add(value.len()).saturating_add(4);
            }
            let is_known = understood.checked_shr(u32::from(tag)).is_some_and(|bits| bits & 1 != 0);
            if critical && !is_known {
                self.unknown_critical = Some(tag);
            }
        }
        Ok(())
    }

    /// How metadata is refused that is too much, or none at all.
    #[inline]
    pub(super) fn refused_metadata(&self, max: MetadataMax) -> Option<Status> {
        let MetadataMax { entries, bytes } = self.metadata;
        if entries > max.entries || bytes > max.bytes {
            return Some(Status::TOO_MUCH_METADATA);
        }
        self.has_bad_metadata.then_some(Status::BAD_REQUEST)
    }

    /// The same of a frame whose critical extensions cannot be refused, only obeyed.
    pub(super) fn parse_known(extensions: &[u8]) -> Result<Announced, CloseReason> {
        let announced = Announced::parse(extensions, 0)?;
        match announced.unknown_critical {
            Some(tag) => Err(CloseReason::UnknownExtension(tag)),
            None => Ok(announced),
        }
    }

    /// How long the whole body will be, if head and extensions agree about it.
    #[inline]
    pub(super) fn total(&self, head: &Head, max: usize) -> Result<usize, CloseReason> {
        let body_len = head.body_len().unwrap_or(0);
        let more = head.flags & frame::FLAG_MORE != 0;
        // The frame that confirms a body follows in any case.
        let confirm = awaits_confirmation(head);
        let body_len = body_len as u64;
        let total = match self.total_len {
            None if !more && !confirm => body_len,
            Some(total) if more == (confirm || total > body_len) && total >= body_len => total,
            _ => return Err(CloseReason::BadLength),
        };
        if self.attachment_len.is_some_and(|len| len > total) {
            return Err(CloseReason::BadLength);
        }
        match usize::try_from(total) {
            Ok(total) if total <= max => Ok(total),
            _ => Err(CloseReason::FrameTooLarge),
        }
    }
}

impl Announced {
    /// What of the body is beside the message; [`total`](Self::total) has been asked for before.
    #[inline]
    pub(super) fn attached(&self) -> Attached {
        match self.attachment_len.and_then(|len| usize::try_from(len).ok()) {
            None | Some(0) => Attached::Nothing,
            Some(len) => Attached::InBody(len),
        }
    }
}

/// Whether a body counts only when it was confirmed.
pub(super) fn awaits_confirmation(head: &Head) -> bool {
    head.flags & frame::FLAG_CONFIRM != 0
}

/// Parses the fixed part of a frame's header and returns it with the header's rest.
#[inline]
pub(super) fn split_header<'a, H>(
    head: &Head,
    frame: &'a [u8],
    parse: impl FnOnce(&'a [u8]) -> Option<(H, &'a [u8])>,
) -> Result<(H, &'a [u8]), CloseReason> {
    let header = frame.get(..usize::from(head.header_len)).ok_or(CloseReason::BadHeader)?;
    parse(header).ok_or(CloseReason::BadHeader)
}

/// Parses the header of a frame in which extensions have no meaning yet.
pub(super) fn plain_header<'a, H>(
    head: &Head,
    frame: &'a [u8],
    parse: impl FnOnce(&'a [u8]) -> Option<(H, &'a [u8])>,
) -> Result<H, CloseReason> {
    let (header, extensions) = split_header(head, frame, parse)?;
    check_extensions(extensions)?;
    Ok(header)
}

/// Critical extensions of a frame that belongs to no call cannot be refused, only obeyed.
fn check_extensions(extensions: &[u8]) -> Result<(), CloseReason> {
    Announced::parse_known(extensions).map(|_| ())
}
