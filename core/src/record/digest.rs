//! A number that two runs share only if they gave the same out.

use core::fmt::{self, Write as _};

use super::walker::Walker;
use crate::connection::Write;
use crate::{
    Chunk, ChunkMut, Event, Item, ItemError, Outcome, Refused, Reply, ReplyError, Request, Segment,
};

/// Takes in what a connection gives out: bytes, events, the results of verbs, and how it stands.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    hash: u64,
    hides_bodies: bool,
    /// Follows what is sent: what is hidden does not count.
    sent: Walker,
}

/// FNV-1a.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// In place of bytes that are not in memory.
const ZEROS: [u8; 4096] = [0; 4096];

/// A number for bytes of a record, with their place in it.
pub(super) fn checksum(place: u64, bytes: &[u8]) -> [u8; 4] {
    let mut digest = Digest::new(true);
    digest.number(place);
    digest.bytes(bytes);
    digest.short()
}

impl Digest {
    pub(super) fn new(hides_bodies: bool) -> Digest {
        Digest { hash: BASIS, hides_bodies, sent: Walker::new(hides_bodies) }
    }

    /// All of it.
    pub(super) fn long(&self) -> u64 {
        self.hash
    }

    /// What is kept of it with every step.
    pub(super) fn short(&self) -> [u8; 4] {
        let [a, b, c, d, e, f, g, h] = self.hash.to_le_bytes();
        [a ^ e, b ^ f, c ^ g, d ^ h]
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    pub(super) fn number(&mut self, n: u64) {
        self.hash = (self.hash ^ n).wrapping_mul(PRIME);
        self.hash ^= self.hash >> 29;
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|n| self.number(n));
    }

    /// Something rare, as it describes itself; never with what is in messages.
    fn text(&mut self, what: &dyn fmt::Debug) {
        let _cannot_fail = write!(self, "{what:?}");
    }

    /// What is sent, however it is cut. Of bytes that are not in memory only how many they are.
    pub(super) fn sent(&mut self, segment: &Segment) {
        let mut walker = self.sent.clone();
        match segment.as_slice() {
            Some(bytes) => self.walk(&mut walker, bytes),
            None => {
                let mut left = segment.len();
                while let Some(zeros) = ZEROS.get(..left.min(ZEROS.len())).filter(|z| !z.is_empty())
                {
                    left = left.saturating_sub(walker.next(zeros).0);
                }
            }
        }
        self.sent = walker;
    }

    fn walk(&mut self, walker: &mut Walker, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (n, is_kept) = walker.next(rest);
            let (these, behind) = rest.split_at_checked(n).unwrap_or((rest, &[]));
            if is_kept {
                self.bytes(these);
            }
            rest = behind;
        }
    }

    /// How much a queue took of what is sent.
    pub(crate) fn transmitted(&mut self, bytes: usize) {
        self.number(bytes as u64);
    }

    fn body(&mut self, body: &Chunk) {
        self.number(body.len() as u64);
        if !self.hides_bodies {
            self.bytes(body);
        }
    }

    fn extensions(&mut self, extensions: &Chunk) {
        self.number(extensions.len() as u64);
        let mut walker = Walker::of_extensions(self.hides_bodies, extensions.len());
        self.walk(&mut walker, extensions);
    }

    pub(crate) fn nothing(&mut self, _: &()) {}

    pub(crate) fn event<T>(&mut self, event: &Option<Event<T>>) {
        match event {
            None => self.number(0),
            Some(Event::Request(request)) => self.request(request),
            Some(Event::Completed(_, outcome)) => {
                self.number(2);
                match outcome {
                    Outcome::Reply(reply) => self.reply(reply),
                    other => self.text(other),
                }
            }
            Some(Event::Item(stream, item)) => {
                self.numbers([3, stream.0.to_wire()]);
                self.item(item);
            }
            Some(Event::Answering(call, reply)) => {
                self.numbers([4, call.0.to_wire()]);
                self.reply(reply);
            }
            Some(Event::Established(hello)) => self.text(hello),
            Some(Event::Cancelled(request, why)) => self.text(&(5, request, why)),
            Some(Event::ItemsEnd(request)) => self.text(&(6, request)),
            Some(Event::Writable(stream)) => self.text(&(7, stream)),
            Some(Event::Pong(opaque)) => self.text(&(8, opaque)),
            Some(Event::GoAway(code)) => self.text(&(9, code)),
            Some(Event::Closed(reason)) => self.text(&(10, reason)),
        }
    }

    fn request(&mut self, request: &Request) {
        let Request { codec, compression, priority, attempt, flags, .. } = *request;
        self.numbers([
            1,
            request.id.id.to_wire(),
            request.id.one_way.map_or(0, |it| u64::from(it.charged) + 1),
            request.method,
            request.in_signature,
            request.out_signature,
            request.deadline.as_nanos(),
            request.received.as_nanos(),
        ]);
        self.bytes(&[codec.0, compression, priority, attempt, flags]);
        self.text(&request.attached);
        self.body(&request.body);
        self.extensions(&request.extensions);
    }

    fn reply(&mut self, reply: &Reply) {
        self.bytes(&reply.header.encode());
        self.text(&reply.attached);
        self.body(&reply.body);
        self.extensions(&reply.extensions);
    }

    pub(crate) fn item(&mut self, item: &Item) {
        let encoding = item.encoding;
        self.bytes(&[encoding.codec.0, encoding.compression]);
        self.number(encoding.signature);
        self.text(&item.attached);
        self.body(&item.body);
    }

    pub(crate) fn called<T>(&mut self, result: &Result<crate::CallId, Refused<T>>) {
        match result {
            Ok(call) => self.number(call.0.to_wire()),
            Err(Refused { failure, .. }) => self.text(failure),
        }
    }

    pub(crate) fn replied(&mut self, result: &Result<(), ReplyError>) {
        self.number(u64::from(result.is_ok()));
        if let Err(error) = result {
            self.text(error);
        }
    }

    pub(crate) fn item_sent(&mut self, result: &Result<(), ItemError>) {
        self.number(u64::from(result.is_ok()));
        if let Err(error) = result {
            self.text(error);
        }
    }

    /// Whether the ticket came back.
    pub(crate) fn cancelled<T>(&mut self, ticket: &Option<T>) {
        self.number(u64::from(ticket.is_some()));
    }

    pub(crate) fn lent(&mut self, buffer: &Option<ChunkMut>) {
        let lens =
            buffer.as_ref().map_or((0, 0), |buffer| (buffer.capacity(), buffer.filled_len()));
        self.numbers([lens.0 as u64, lens.1 as u64]);
    }

    pub(crate) fn write(&mut self, write: &Option<Write>) {
        self.number(write.as_ref().map_or(0, |write| write.owner));
        if let Some(write) = write {
            self.body(&write.bytes);
        }
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
