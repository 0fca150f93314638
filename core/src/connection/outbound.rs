//! What waits to be sent, and in which order.
//!
//! Control frames go first. Then whole frames, in the order in which they were made, coalesced where
//! they lie side by side. Then parts of large bodies, one part a body in turn, so that a large body
//! never blocks small calls. Bodies without credit wait apart, first come first served.

use alloc::collections::VecDeque;

use ringcall_buf::{Arena, Chunk, Reservation, Run, Segment};

use super::credit::Allowance;
use crate::frame::{
    DataHeader, ExtensionWriter, FLAG_CONFIRM, FLAG_MORE, Head, ItemHeader, Kind, Limits,
    ReplyHeader, RequestHeader, request_flags, tag,
};
use crate::{Instant, Memory, MessageId};

/// Where a connection puts what it sends: a batch that goes to the transport at once.
pub trait SendQueue {
    /// How many more bytes are welcome. A single segment may exceed it.
    fn room(&self) -> usize;
    /// Appends a segment.
    fn push(&mut self, segment: Segment);
}

#[derive(Debug)]
pub(super) struct Outbound {
    /// Whole frames in order, that do not lie behind each other in memory.
    ready: VecDeque<Ready>,
    /// The last of them: frames that do.
    run: Run,
    /// How many bytes of the run are replies.
    run_replies: u32,
    /// How many of its frames are [prompt](Frame::Prompt), those of [`count_prompt`](Self::count_prompt) among them.
    run_prompts: u32,
    /// Bodies with credit, of which a part is sent in turn.
    bodies: VecDeque<Body>,
    /// Bodies all of which was given to the transport, but that must be confirmed when it has sent them. With
    /// how much it must have sent until then.
    unconfirmed: VecDeque<(u64, Body)>,
    /// Those that it has.
    confirmed: VecDeque<Body>,
    /// Requests of calls with streams that wait until others are over. Apart, so that what they wait for, and calls
    /// without streams, pass them.
    pub(super) held_openings: VecDeque<Body>,
    /// Requests that wait for credit.
    pub(super) held_calls: VecDeque<Body>,
    /// Replies that wait for credit.
    pub(super) held_replies: VecDeque<Body>,
    /// Items that wait for credit: those of calls, and those of replies. Apart, so that streams that nobody
    /// reads do not hold up calls.
    pub(super) held_call_items: VecDeque<Body>,
    pub(super) held_reply_items: VecDeque<Body>,
    /// All bytes that wait here: a sum, since each call asks for it.
    queued: usize,
    /// How many bytes of whole frames that wait for nothing but the transport are replies, without those of the run.
    ready_replies: usize,
    ready_prompts: u32,
    /// Bytes of bodies apart, and how many of them are replies.
    body_bytes: usize,
    body_replies: usize,
    /// How many bodies have been queued.
    entered: u64,
    /// How many REQUEST frames have been numbered.
    numbered: u64,
    /// How many of them were in batches that a transport took.
    taken: u64,
}

/// What a whole frame is, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Request,
    Reply,
    /// A reply that no [choking](super::Connection::is_choked) holds back: core's own, or that of a call with streams.
    Prompt,
    Item,
    Control,
}

/// Whole frames that lie behind each other in memory.
#[derive(Debug)]
struct Ready {
    run: Chunk,
    /// How many REQUESTs have been numbered at its end.
    numbered: u64,
    /// How many of its bytes are replies.
    replies: usize,
    prompts: u32,
}

/// A request or reply whose body does not go out at once.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) id: MessageId,
    pub(super) header: BodyHeader,
    pub(super) flags: u8,
    extensions: Chunk,
    front: Chunk,
    within: Option<Segment>,
    back: Chunk,
    rest: Option<Segment>,
    /// How much at its end is beside the message.
    beside: usize,
    /// Whether a part of it is read by the transport, which may fail: then the other side must not take it
    /// for good before it was sent.
    pub(super) is_external: bool,
    pub(super) total: usize,
    pub(super) sent: usize,
    /// The how-many-th body it is.
    entered: u64,
    /// What of it lies in memory that is no block of the pool's.
    reserved: Option<Reservation>,
}

#[derive(Debug)]
pub(super) enum BodyHeader {
    /// With its deadline, since the time left is known only when it is sent.
    Request(RequestHeader, Instant),
    Reply(ReplyHeader),
    /// An item of a stream.
    Item(ItemHeader),
    /// The end of a stream that is an answer.
    End(ReplyHeader),
}

/// A pool of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Calls,
    Replies,
}

/// What a part of a body did to its call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) id: MessageId,
    pub(super) of: Part,
    /// The number of the REQUEST frame, if this was its first part.
    pub(super) number: Option<u64>,
    pub(super) last: bool,
}

/// What a part of a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Request,
    Item,
    /// An answer, or the end of one.
    Reply,
}

const ZEROS: [u8; 16] = [0; 16];

impl Outbound {
    pub(super) fn new() -> Outbound {
        Outbound {
            ready: VecDeque::new(),
            run: Run::empty(),
            run_replies: 0,
            run_prompts: 0,
            bodies: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            confirmed: VecDeque::new(),
            held_openings: VecDeque::new(),
            held_calls: VecDeque::new(),
            held_replies: VecDeque::new(),
            held_call_items: VecDeque::new(),
            held_reply_items: VecDeque::new(),
            queued: 0,
            ready_replies: 0,
            ready_prompts: 0,
            body_bytes: 0,
            body_replies: 0,
            entered: 0,
            numbered: 0,
            taken: 0,
        }
    }

    /// All bytes that wait here.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// How much of it are replies.
    #[inline]
    pub(super) fn queued_replies(&self) -> usize {
        self.ready_replies + self.run_replies as usize + self.body_replies
    }

    /// Whether there is something that could be sent now.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        !self.run.is_empty() || !self.ready.is_empty() || self.has_parts()
    }

    /// Whether all that could be sent is replies that wait for credit.
    pub(super) fn is_only_held_replies(&self) -> bool {
        !self.is_waiting()
            && self.unconfirmed.is_empty()
            && self.held_openings.is_empty()
            && self.held_calls.is_empty()
            && self.held_call_items.is_empty()
    }

    /// Whether nothing waits, with or without credit.
    pub(super) fn is_empty(&self) -> bool {
        self.is_only_held_replies()
            && self.held_replies.is_empty()
            && self.held_reply_items.is_empty()
    }

    /// How many REQUEST frames have been numbered.
    pub(super) fn numbered(&self) -> u64 {
        self.numbered
    }

    /// How many REQUEST frames were in batches that a transport took.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The number that the next REQUEST frame will have.
    #[inline]
    pub(super) fn next_number(&self) -> u64 {
        self.numbered + 1
    }

    /// What the next whole frame is appended to.
    #[inline(always)]
    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// Appends the frame that was begun in an arena, when `complete` has filled in what of it was left open: it gets
    /// what was written, and how long that was before zeros were put behind it.
    #[inline(always)]
    pub(super) fn push_begun(
        &mut self,
        arena: &mut Arena,
        what: Frame,
        complete: impl FnOnce(&mut [u8], usize),
    ) {
        let (len, before) = arena.finish_onto(&mut self.run, complete);
        if let Some(run) = before {
            self.end_run(run);
        }
        self.count(len, what);
    }

    /// Appends a whole frame.
    pub(super) fn push(&mut self, frame: Chunk, what: Frame) {
        let len = frame.len();
        if let Some(run) = self.run.push(frame) {
            self.end_run(run);
        }
        self.count(len, what);
    }

    #[inline]
    fn count(&mut self, len: usize, what: Frame) {
        self.queued += len;
        match what {
            Frame::Request => self.numbered += 1,
            // A run is a chunk, shorter than 4 GiB.
            Frame::Reply => self.run_replies += len as u32,
            Frame::Prompt => {
                self.run_replies += len as u32;
                self.run_prompts += 1;
            }
            Frame::Item | Frame::Control => {}
        }
    }

    /// What was the run cannot be continued.
    #[inline(never)]
    fn end_run(&mut self, run: Chunk) {
        let replies = core::mem::take(&mut self.run_replies) as usize;
        let prompts = core::mem::take(&mut self.run_prompts);
        if !run.is_empty() {
            self.ready_replies += replies;
            self.ready_prompts += prompts;
            self.ready.push_back(Ready { run, replies, prompts, numbered: self.numbered });
        }
    }

    /// The reply that was pushed last, if it is in the run, was a [prompt](Frame::Prompt) one.
    pub(super) fn count_prompt(&mut self) {
        self.run_prompts += u32::from(!self.run.is_empty());
    }

    /// How many of those wait for nothing but the transport.
    pub(super) fn prompts(&self) -> u32 {
        self.ready_prompts + self.run_prompts
    }

    /// Bytes of whole replies that wait for nothing but the transport.
    pub(super) fn whole_replies(&self) -> usize {
        self.ready_replies + self.run_replies as usize
    }

    /// Appends the frame of a body that is too long, or has no credit, to go out at once.
    pub(super) fn push_body(&mut self, mut body: Body, queue: Queue) {
        self.entered += 1;
        body.entered = self.entered;
        self.queued += body.total;
        self.body_bytes += body.total;
        if body.header.part() == Part::Reply {
            self.body_replies += body.total;
        }
        match queue {
            Queue::Funded => self.bodies.push_back(body),
            Queue::Openings => self.held_openings.push_back(body),
            Queue::Calls => self.held_calls.push_back(body),
            Queue::Replies => self.held_replies.push_back(body),
            Queue::Items(Pool::Calls) => self.held_call_items.push_back(body),
            Queue::Items(Pool::Replies) => self.held_reply_items.push_back(body),
        }
    }

    /// So much of the bodies apart waits no more.
    fn forget_body_bytes(&mut self, n: usize) {
        self.queued -= n;
        self.body_bytes -= n;
    }

    /// Bytes of whole frames that wait for nothing but the transport.
    #[inline]
    pub(super) fn ready_bytes(&self) -> usize {
        self.queued - self.body_bytes
    }

    /// A mark behind all that is queued now, for [`is_past`](Self::is_past).
    pub(super) fn mark(&self) -> u64 {
        self.entered
    }

    /// Whether all requests that had begun before a mark have gone, and whatever else was there by then and is
    /// beyond these limits. Those that wait for other streams to end, which may be never, have not begun.
    pub(super) fn is_past(&self, mark: u64, limits: Limits) -> bool {
        let held =
            [&self.held_calls, &self.held_replies, &self.held_call_items, &self.held_reply_items];
        let sent = self.unconfirmed.iter().map(|(_, body)| body).chain(&self.confirmed);
        let mut bodies = self.bodies.iter().chain(held.into_iter().flatten()).chain(sent);
        let is_long = |body: &Body| {
            body.total as u64 > limits.message_bytes_max && !bug!("limits_confirmed_early")
        };
        let is_beyond = |body: &Body| body.id.slot() >= limits.in_flight_max || is_long(body);
        self.ready.is_empty()
            && self.run.is_empty()
            && !bodies
                .any(|body| body.entered <= mark && (body.header.is_request() || is_long(body)))
            && !self.held_openings.iter().any(|body| body.entered <= mark && is_beyond(body))
    }

    /// Moves bodies that wait for credit on, as far as it reaches.
    pub(super) fn fund(&mut self, calls: &mut Allowance, replies: &mut Allowance) {
        let held = [(&mut self.held_calls, &mut *calls), (&mut self.held_replies, &mut *replies)];
        for (held, allowance) in held {
            while held.front().is_some_and(|body| allowance.take(body.total)) {
                self.bodies.extend(held.pop_front());
            }
        }
        self.fund_items(calls, replies);
    }

    /// Items come after whole messages, and leave a reserve to them.
    fn fund_items(&mut self, calls: &mut Allowance, replies: &mut Allowance) {
        let calls = (&mut self.held_call_items, self.held_calls.is_empty(), calls);
        let replies = (&mut self.held_reply_items, self.held_replies.is_empty(), replies);
        for (held, may_take, allowance) in [calls, replies] {
            while may_take && held.front().is_some_and(|body| allowance.take_item(body.total)) {
                self.bodies.extend(held.pop_front());
            }
        }
    }

    /// Stops sending the item of a call that is under way, if one is.
    pub(super) fn abandon_item(&mut self, id: MessageId) -> Unsent {
        let of_call = |body: &Body| body.id == id && body.header.part() == Part::Item;
        for held in [&mut self.held_call_items, &mut self.held_reply_items] {
            if let Some(at) = held.iter().position(of_call) {
                let total = held.remove(at).map_or(0, |body| body.total);
                (self.queued, self.body_bytes) = (self.queued - total, self.body_bytes - total);
                return Unsent { bytes: 0, items: 1 };
            }
        }
        let Some(body) = self.take_begun(of_call) else { return Unsent::default() };
        match body.sent {
            0 => Unsent { bytes: body.total, items: 1 },
            _ => Unsent::default(),
        }
    }

    /// Stops sending a request's body; returns its credit if nothing of it was sent, otherwise it is
    /// spent.
    pub(super) fn abandon_request(&mut self, id: MessageId) -> usize {
        for held in [&mut self.held_openings, &mut self.held_calls] {
            if let Some(at) = held.iter().position(|body| body.id == id) {
                let total = held.remove(at).map_or(0, |body| body.total);
                (self.queued, self.body_bytes) = (self.queued - total, self.body_bytes - total);
                return 0;
            }
        }
        let of_call = |body: &Body| body.id == id && body.header.is_request();
        let Some(body) = self.take_begun(of_call) else { return 0 };
        if body.sent == 0 { body.total } else { 0 }
    }

    /// Stops sending the body of which the transport could not read a part; says what it was.
    pub(super) fn abandon_unreadable(&mut self, id: MessageId) -> Option<(Part, Kind)> {
        let body = self.take_begun(|body: &Body| body.id == id && body.is_external)?;
        Some((body.header.part(), body.header.kind()))
    }

    /// Takes a body with credit out, wherever it is.
    fn take_begun(&mut self, is_it: impl Fn(&Body) -> bool) -> Option<Body> {
        if let Some(at) = self.bodies.iter().position(&is_it) {
            let body = self.bodies.remove(at)?;
            let unsent = body.total - body.sent;
            self.forget_body_bytes(unsent);
            if body.header.part() == Part::Reply {
                self.body_replies -= unsent;
            }
            return Some(body);
        }
        if let Some(at) = self.unconfirmed.iter().position(|(_, body)| is_it(body)) {
            return self.unconfirmed.remove(at).map(|(_, body)| body);
        }
        let at = self.confirmed.iter().position(is_it)?;
        self.confirmed.remove(at)
    }

    /// The transport was given so many bytes until now, bodies without their confirmation among them.
    #[inline]
    pub(super) fn given(&mut self, given: u64) {
        if !self.unconfirmed.is_empty() {
            self.mark_unconfirmed(given);
        }
    }

    #[cold]
    fn mark_unconfirmed(&mut self, given: u64) {
        for (mark, _) in self.unconfirmed.iter_mut().rev() {
            if *mark != u64::MAX {
                break;
            }
            *mark = given;
        }
    }

    /// The transport has sent so many bytes until now.
    #[inline]
    pub(super) fn transmitted(&mut self, sent: u64) {
        if !self.unconfirmed.is_empty() {
            self.confirm_until(sent);
        }
    }

    #[cold]
    fn confirm_until(&mut self, sent: u64) {
        while self.unconfirmed.front().is_some_and(|(mark, _)| *mark <= sent) {
            self.confirmed.extend(self.unconfirmed.pop_front().map(|(_, body)| body));
        }
    }

    /// Confirms a body to the other side.
    fn confirm(&mut self, memory: &Memory, queue: &mut impl SendQueue) -> Option<Progress> {
        let body = self.confirmed.pop_front()?;
        let header = DataHeader { offset: body.total as u64 };
        let frame = HeadBytes::frame(Kind::Data, 0, body.id, &header.encode(), &[], 0, 0);
        queue.push(memory.outgoing(&frame).into());
        Some(Progress { id: body.id, of: body.header.part(), number: None, last: true })
    }

    /// Forgets a reply that waits for credit; `false` if none does.
    pub(super) fn unhold_reply(&mut self, id: MessageId) -> bool {
        let Some(at) = self.held_replies.iter().position(|body| body.id == id) else {
            return false;
        };
        let total = self.held_replies.remove(at).map_or(0, |body| body.total);
        self.forget_body_bytes(total);
        self.body_replies -= total;
        true
    }

    /// Forgets everything that waits.
    pub(super) fn clear(&mut self) {
        let Outbound { numbered, taken, entered, .. } = *self;
        *self = Outbound { numbered, taken, entered, ..Outbound::new() };
    }

    /// Moves whole frames to `queue`, as many as it has room for; says whether all went.
    #[inline]
    pub(super) fn send_ready(&mut self, queue: &mut impl SendQueue) -> bool {
        if !self.ready.is_empty() {
            self.send_runs(queue);
        }
        if self.run.is_empty() || !self.ready.is_empty() || queue.room() == 0 {
            return self.ready.is_empty() && self.run.is_empty();
        }
        self.taken = self.numbered;
        self.queued = self.body_bytes;
        (self.run_replies, self.run_prompts) = (0, 0);
        queue.push(self.run.take().into());
        true
    }

    /// The same for all but the last run.
    #[inline(never)]
    fn send_runs(&mut self, queue: &mut impl SendQueue) {
        while queue.room() > 0
            && let Some(ready) = self.ready.pop_front()
        {
            self.queued -= ready.run.len();
            self.ready_replies -= ready.replies;
            self.ready_prompts -= ready.prompts;
            self.taken = ready.numbered;
            queue.push(ready.run.into());
        }
    }

    /// Whether a body, or what confirms one, is to be sent.
    #[inline]
    pub(super) fn has_parts(&self) -> bool {
        !self.bodies.is_empty() || !self.confirmed.is_empty()
    }

    /// Moves one part of the next body to `queue`.
    pub(super) fn send_part(
        &mut self,
        now: Instant,
        cut: usize,
        memory: &Memory,
        queue: &mut impl SendQueue,
    ) -> Option<Progress> {
        if queue.room() == 0 {
            return None;
        }
        if !self.confirmed.is_empty() {
            return self.confirm(memory, queue);
        }
        let mut body = self.bodies.pop_front()?;
        let part = cut.min(body.total - body.sent);
        let first = body.sent == 0;
        let is_all = body.sent + part == body.total;
        let last = is_all && !body.is_external;
        let of = body.header.part();
        queue.push(memory.outgoing(&body.head(now, part, last)).into());
        if !body.extensions.is_empty() {
            queue.push(core::mem::take(&mut body.extensions).into());
        }
        body.take(part, queue);
        if is_all && part % 16 != 0 {
            queue.push(Chunk::from_static(&ZEROS[part % 16..]).into());
        }
        self.forget_body_bytes(part);
        if of == Part::Reply {
            self.body_replies -= part;
        }
        let number = (first && of == Part::Request).then(|| self.next_number());
        self.numbered = number.unwrap_or(self.numbered);
        self.taken = number.unwrap_or(self.taken);
        let progress = Progress { id: body.id, of, number, last };
        if !is_all {
            self.bodies.push_back(body);
        } else if !last {
            self.unconfirmed.push_back((u64::MAX, body));
        }
        Some(progress)
    }
}

/// Credit that an abandoned item had taken and has not spent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsent {
    pub(super) bytes: usize,
    pub(super) items: usize,
}

/// Which queue a body waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Its credit is taken.
    Funded,
    /// For the end of other calls with streams.
    Openings,
    /// For credit of the calls pool.
    Calls,
    /// For credit of the replies pool.
    Replies,
    /// For credit that items may take of a pool.
    Items(Pool),
}

impl BodyHeader {
    fn is_request(&self) -> bool {
        matches!(self, BodyHeader::Request(..))
    }

    fn kind(&self) -> Kind {
        match self {
            BodyHeader::Request(..) => Kind::Request,
            BodyHeader::Reply(_) => Kind::Reply,
            BodyHeader::Item(_) => Kind::Item,
            BodyHeader::End(_) => Kind::End,
        }
    }

    fn part(&self) -> Part {
        match self {
            BodyHeader::Request(..) => Part::Request,
            BodyHeader::Item(..) => Part::Item,
            BodyHeader::Reply(_) | BodyHeader::End(_) => Part::Reply,
        }
    }
}

/// An encoded body and its extensions, without what lies in front of them in their frame: four parts, in this order.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) extensions: Chunk,
    pub(super) front: Chunk,
    /// What is attached within.
    within: Option<Segment>,
    /// What was written behind that.
    back: Chunk,
    /// What is attached at the end.
    rest: Option<Segment>,
    /// How much of the rest is beside the message.
    beside: usize,
}

impl Parts {
    /// What was encoded behind `front_len` bytes: extensions, and the body.
    pub(super) fn take(arena: &mut Arena, front_len: usize, extensions_len: usize) -> Parts {
        let beside = arena.frame().beside_len();
        let mut front = arena.finish();
        front.advance(front_len);
        let extensions = match extensions_len {
            // An empty chunk of a block would hold on to it.
            0 => Chunk::empty(),
            len => front.split_to(len),
        };
        let (mut within, mut back) = (None, Chunk::empty());
        if let Some((at, segment)) = arena.take_within() {
            let in_front = front.split_to(at - front_len - extensions_len);
            back = core::mem::replace(&mut front, in_front);
            within = Some(segment);
        }
        Parts { extensions, front, within, back, rest: arena.take_attached(), beside }
    }

    /// Whether all of it is in front.
    pub(super) fn is_whole(&self) -> bool {
        self.within.is_none() && self.rest.is_none()
    }
}

impl Body {
    pub(super) fn new(id: MessageId, header: BodyHeader, flags: u8, parts: Parts) -> Body {
        let Parts { extensions, front, within, back, mut rest, beside } = parts;
        let attached = [&within, &rest].into_iter().flatten().map(Segment::len).sum::<usize>();
        let total = front.len() + back.len() + attached;
        let mut is_external = false;
        if let Some(Segment::External(range)) = &mut rest {
            range.set_owner(id.to_wire());
            is_external = true;
        }
        let (sent, entered) = (0, 0);
        Body {
            id,
            header,
            flags,
            extensions,
            front,
            within,
            back,
            rest,
            beside,
            is_external,
            total,
            sent,
            entered,
            reserved: None,
        }
    }

    /// What of it is no block of the pool's counts as well: the other side decides how long it lies here.
    pub(super) fn counted(mut self, memory: &Memory) -> Body {
        let attached = [&self.within, &self.rest].into_iter().flatten();
        let foreign = attached.map(Segment::foreign_len).sum::<usize>();
        self.reserved = (foreign > 0).then(|| memory.pool().reserve(foreign));
        self
    }

    /// Head and header of the frame that carries the next `part` bytes; its extensions follow if it is the
    /// first.
    fn head(&self, now: Instant, part: usize, last: bool) -> HeadBytes {
        if self.sent > 0 {
            let header = DataHeader { offset: self.sent as u64 };
            return HeadBytes::frame(Kind::Data, 0, self.id, &header.encode(), &[], 0, part);
        }
        let others = self.extensions.len();
        let confirm = if self.is_external { FLAG_CONFIRM } else { 0 };
        let more = if last { 0 } else { FLAG_MORE | confirm };
        let mut total = ExtensionWriter::new();
        let lengths = [
            (tag::TOTAL_LEN, self.total, !last),
            (tag::ATTACHMENT_LEN, self.beside, self.beside > 0),
        ];
        for (tag, len, _) in lengths.into_iter().filter(|(.., is_said)| *is_said) {
            let value = (len as u64).to_le_bytes();
            let _fits = total.push(crate::frame::Extension { tag, critical: true, value: &value });
        }
        let total = total.finish();
        match &self.header {
            BodyHeader::Request(header, deadline) => {
                let has_streams = self.flags & (request_flags::ITEMS_IN | request_flags::ITEMS_OUT);
                let deadline_us = wire_deadline(now, *deadline, has_streams != 0);
                let header = RequestHeader { deadline_us, ..*header }.encode();
                HeadBytes::frame(
                    Kind::Request,
                    self.flags | more,
                    self.id,
                    &header,
                    &total,
                    others,
                    part,
                )
            }
            BodyHeader::Reply(header) => {
                let (flags, header) = (self.flags | more, header.encode());
                HeadBytes::frame(Kind::Reply, flags, self.id, &header, &total, others, part)
            }
            BodyHeader::Item(header) => {
                HeadBytes::frame(Kind::Item, more, self.id, &header.encode(), &total, others, part)
            }
            BodyHeader::End(header) => {
                HeadBytes::frame(Kind::End, more, self.id, &header.encode(), &total, others, part)
            }
        }
    }

    /// Moves the next `part` bytes to `queue`.
    fn take(&mut self, part: usize, queue: &mut impl SendQueue) {
        self.sent += part;
        let mut left = part;
        left -= take_written(&mut self.front, left, queue);
        left -= take_attached(&mut self.within, left, &mut self.reserved, queue);
        left -= take_written(&mut self.back, left, queue);
        left -= take_attached(&mut self.rest, left, &mut self.reserved, queue);
        debug_assert_eq!(left, 0);
    }
}

/// Moves up to `most` bytes to `queue`; how many.
fn take_written(written: &mut Chunk, most: usize, queue: &mut impl SendQueue) -> usize {
    let len = most.min(written.len());
    if len > 0 {
        let taken = match len == written.len() {
            true => core::mem::take(written),
            false => written.split_to(len),
        };
        queue.push(taken.into());
    }
    len
}

/// The same of what is attached, which counts no more then if it was `reserved`.
fn take_attached(
    attached: &mut Option<Segment>,
    most: usize,
    reserved: &mut Option<Reservation>,
    queue: &mut impl SendQueue,
) -> usize {
    let Some(segment) = attached.as_mut().filter(|_| most > 0) else { return 0 };
    let len = most.min(segment.len());
    let taken = segment.split_to(len);
    if let Some(reserved) = reserved {
        reserved.shrink(taken.foreign_len());
    }
    if segment.is_empty() {
        *attached = None;
    }
    if len > 0 {
        queue.push(taken);
    }
    len
}

/// What is left of a deadline, as a REQUEST says it: never 0 while there is something left. Only a call
/// with a stream may have none.
#[inline]
pub(super) fn wire_deadline(now: Instant, deadline: Instant, has_streams: bool) -> u32 {
    if has_streams && deadline == Instant::FAR {
        return u32::MAX;
    }
    if deadline <= now {
        return 0;
    }
    let left = (deadline.as_nanos() - now.as_nanos()) / 1_000;
    // Within its bounds as a rule, which is one comparison.
    match left.wrapping_sub(1) < u64::from(u32::MAX - 1) {
        true => left as u32,
        false => bounded_deadline(left),
    }
}

#[cold]
fn bounded_deadline(left: u64) -> u32 {
    left.clamp(1, u64::from(u32::MAX - 1)) as u32
}

/// Head and header of one frame, without extensions other than the length, on the stack.
pub(super) struct HeadBytes {
    bytes: [u8; 16 + 32 + 32],
    len: usize,
}

impl HeadBytes {
    /// `others`: how many bytes of further extensions the transport gets behind it.
    fn frame(
        kind: Kind,
        flags: u8,
        id: MessageId,
        fixed: &[u8],
        total: &[u8],
        others: usize,
        body_len: usize,
    ) -> HeadBytes {
        let mut head_bytes = HeadBytes { bytes: [0; 80], len: 0 };
        let header_len = fixed.len() + total.len() + others;
        let head = Head {
            length: (header_len + body_len) as u32,
            kind: kind as u8,
            flags,
            header_len: header_len as u16,
            id,
        };
        for part in [&head.encode()[..], fixed, total] {
            let HeadBytes { bytes, len } = &mut head_bytes;
            bytes[*len..*len + part.len()].copy_from_slice(part);
            *len += part.len();
        }
        head_bytes
    }
}

impl core::ops::Deref for HeadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
