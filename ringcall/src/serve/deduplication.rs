//! Answers that are kept for calls that are made again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::RandomState;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use parking_lot::Mutex;
use ringcall_codec_rkyv::Form;
use ringcall_core::frame::{Extensions, ReplyHeader, tag};
use ringcall_core::{Codec, EncodeError, Instant, Payload, Segment, Status, StatusClass, Writer};
use sha2::{Digest as _, Sha256};

use super::CallerKey;
use super::access::Caller;
use crate::ServeError;

/// For which methods a server keeps answers, so that a call with the same idempotency key
/// ([`Call::idempotency_key`](crate::Call::idempotency_key)) does not run again: see
/// [`Server::deduplicate`](crate::Server::deduplicate).
///
/// A key is one of its caller and of one method; what stands for the call is the key, not its argument. While the
/// first call with it runs, others wait for its answer, and afterwards they get what it got: the answer or the
/// handler's error with its metadata, or the failure, if it may have run in part. A call that did not run (it was
/// refused, or its argument could not be read) leaves nothing behind, and those that waited are told the same.
///
/// A call with a key *runs to its end*, also when its caller has given up, its time is over or its connection is
/// lost, or whoever comes again would find half of it; only the end of the server cancels it, and that nobody has
/// waited for it during a whole [window](Deduplication::window). What it calls in turn has no more time than its caller
/// gave it. Calls without a key, one-way calls and calls with streams are served as
/// ever.
///
/// What is kept is kept in memory and of this server alone: it is not there after a restart, nor at another instance.
/// If there are more answers than there is room for, those that are oldest are forgotten before their time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deduplication {
    callers: CallerKey,
    /// Services, or methods.
    names: Vec<String>,
    window: Duration,
    entries_max: usize,
    bytes_max: usize,
    reply_bytes_max: usize,
}

/// How long a key may be.
const KEY_BYTES_MAX: usize = 256;

impl Deduplication {
    /// None yet. Keys of callers that differ in `callers` have nothing to do with each other: where that is metadata
    /// which nobody checks, whoever guesses a key gets the answer.
    #[must_use]
    pub const fn new(callers: CallerKey) -> Deduplication {
        Deduplication {
            callers,
            names: Vec::new(),
            window: Duration::from_secs(600),
            entries_max: 10_000,
            bytes_max: 16 << 20,
            reply_bytes_max: 64 << 10,
        }
    }

    /// One method more, `package.Service/method`.
    #[must_use]
    pub fn method(mut self, name: impl Into<String>) -> Deduplication {
        self.names.push(name.into());
        self
    }

    /// All methods of a service, `package.Service`.
    #[must_use]
    pub fn service(self, name: impl Into<String>) -> Deduplication {
        self.method(name)
    }

    /// How long answers are kept, and how long a call may run that nobody waits for: 10 minutes by default.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Deduplication {
        self.window = window;
        self
    }

    /// How many calls are remembered at most, those that run among them: 10 000 by default, with about 200 bytes each
    /// beside their answers. If so many run, further calls with keys are refused.
    #[must_use]
    pub const fn entries_max(mut self, entries: usize) -> Deduplication {
        self.entries_max = entries;
        self
    }

    /// How many bytes kept answers may have together, 16 MiB by default, and one of them, 64 KiB. Of one that is
    /// longer, or has an attachment, only that it was is kept: who asks again gets
    /// [`REPLY_FAILED`](ringcall_core::Status::REPLY_FAILED).
    #[must_use]
    pub const fn bytes_max(mut self, together: usize, one: usize) -> Deduplication {
        (self.bytes_max, self.reply_bytes_max) = (together, one);
        self
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    pub(super) fn covers(&self, method: &str) -> bool {
        let is_of = |name: &String| {
            let rest = method.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.names.iter().any(is_of)
    }

    pub(super) fn validate(self) -> Result<Deduplication, ServeError> {
        let is_sound = self.callers.is_sound()
            && !self.window.is_zero()
            && self.entries_max > 0
            && (1..=self.bytes_max).contains(&self.reply_bytes_max);
        match is_sound {
            true => Ok(self),
            false => Err(ServeError::Deduplication),
        }
    }
}

/// What a call ended with, to be said again.
#[derive(Clone, Debug)]
pub(crate) struct KeptReply {
    pub(crate) status: Status,
    signature: u64,
    codec: Codec,
    /// As it stands in the header.
    retry_after_ms: u16,
    body: Bytes,
    extensions: Bytes,
}

impl KeptReply {
    /// One without a body.
    pub(crate) fn bare(status: Status) -> KeptReply {
        KeptReply::without_body(&ReplyHeader::new(status))
    }

    /// The same, with the advice of a header.
    pub(crate) fn without_body(header: &ReplyHeader) -> KeptReply {
        KeptReply { signature: 0, codec: Codec::RAW, ..KeptReply::new(header, Vec::new(), &[]) }
    }

    pub(crate) fn new(header: &ReplyHeader, body: Vec<u8>, extensions: &[u8]) -> KeptReply {
        let ReplyHeader { status, signature, codec, retry_after_ms, .. } = *header;
        let extensions = Bytes::copy_from_slice(extensions);
        KeptReply { status, signature, codec, retry_after_ms, body: body.into(), extensions }
    }

    pub(crate) fn header(&self) -> ReplyHeader {
        let KeptReply { status, signature, codec, retry_after_ms, .. } = *self;
        ReplyHeader { signature, codec, retry_after_ms, ..ReplyHeader::new(status) }
    }

    fn bytes(&self) -> usize {
        self.body.len() + self.extensions.len()
    }
}

impl Payload for KeptReply {
    fn encode(&self, codec: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        match codec == self.codec {
            true if self.body.is_empty() => Ok(()),
            true => Ok(out.attach(Segment::from(self.body.clone()))?),
            false => Err(EncodeError::Codec(codec)),
        }
    }

    fn extensions(&self) -> &[u8] {
        &self.extensions
    }
}

/// How a caller reads answers: the same key from another build is no repetition.
pub(crate) type Reading = (u64, [Form; 3]);

/// Stands for a key of one caller and method.
pub(crate) type KeyDigest = [u8; 32];

/// What becomes of a call with a key.
pub(crate) enum Begun {
    /// It runs.
    First,
    /// Another one runs.
    Waits(Waiting),
    /// Another one has ended so.
    Ended(KeptReply),
    /// It cannot be remembered, or is no repetition of what is.
    Refused(Status),
}

/// The answers that a server keeps, which its shards share.
pub(crate) struct KeptReplies {
    settings: Deduplication,
    random: RandomState,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<KeyDigest, Entry>,
    /// Those that have ended, the first in front.
    ended: VecDeque<(Instant, KeyDigest)>,
    bytes: usize,
    /// Numbers those that wait.
    waited: u64,
}

struct Entry {
    reading: Reading,
    state: State,
}

enum State {
    Running(HashMap<u64, Arc<Place>>),
    Ended(KeptReply),
}

/// Where somebody waits.
#[derive(Default)]
struct Place {
    reply: OnceLock<KeptReply>,
    waker: AtomicWaker,
}

impl KeptReplies {
    /// With settings that are sound.
    pub(super) fn new(settings: Deduplication) -> KeptReplies {
        KeptReplies { settings, random: RandomState::new(), table: Mutex::default() }
    }

    pub(crate) fn window(&self) -> Duration {
        self.settings.window
    }

    pub(super) fn settings(&self) -> &Deduplication {
        &self.settings
    }

    /// The key of a call, if it has one.
    pub(crate) fn key(
        &self,
        method: u64,
        caller: impl FnOnce() -> Caller,
        extensions: &[u8],
    ) -> Result<Option<KeyDigest>, Status> {
        let mut found = Extensions::new(extensions).flatten();
        let Some(key) = found.find(|found| found.tag == tag::IDEMPOTENCY_KEY) else {
            return Ok(None);
        };
        if key.value.is_empty() || key.value.len() > KEY_BYTES_MAX {
            return Err(Status::BAD_REQUEST);
        }
        let caller = self.settings.callers.number(&self.random, caller, extensions);
        let mut hash = Sha256::new();
        hash.update(method.to_le_bytes());
        hash.update(caller.to_le_bytes());
        hash.update(key.value);
        Ok(Some(hash.finalize().into()))
    }

    /// A call with this key is about to run.
    pub(crate) fn begin(self: &Arc<Self>, now: Instant, key: KeyDigest, reading: Reading) -> Begun {
        let mut table = self.table.lock();
        table.forget_older(now, self.settings.window);
        let Table { entries, waited, .. } = &mut *table;
        if let Some(entry) = entries.get_mut(&key) {
            if entry.reading != reading {
                return Begun::Refused(Status::SHAPE_MISMATCH);
            }
            return match &mut entry.state {
                State::Ended(reply) => Begun::Ended(reply.clone()),
                State::Running(waiting) => {
                    let place = Arc::new(Place::default());
                    *waited += 1;
                    waiting.insert(*waited, Arc::clone(&place));
                    Begun::Waits(Waiting { replies: Arc::clone(self), key, number: *waited, place })
                }
            };
        }
        if table.entries.len() >= self.settings.entries_max && !table.forget_oldest() {
            return Begun::Refused(Status::OVERLOADED);
        }
        let state = State::Running(HashMap::new());
        table.entries.insert(key, Entry { reading, state });
        Begun::First
    }

    /// The call that runs has ended. Did it not run after all, nothing is kept.
    pub(crate) fn end(&self, now: Instant, key: KeyDigest, reply: KeptReply) {
        let is_kept = reply.status.class() != StatusClass::Refused;
        let reply = match reply.bytes() > self.settings.reply_bytes_max {
            true => KeptReply::bare(Status::REPLY_FAILED),
            false => reply,
        };
        let mut table = self.table.lock();
        let Some(Entry { reading, state }) = table.entries.remove(&key) else { return };
        if is_kept {
            while table.bytes + reply.bytes() > self.settings.bytes_max && table.forget_oldest() {}
            table.bytes += reply.bytes();
            table.ended.push_back((now, key));
            table.entries.insert(key, Entry { reading, state: State::Ended(reply.clone()) });
        }
        drop(table);
        let State::Running(waiting) = state else { return };
        for place in waiting.into_values() {
            let _ = place.reply.set(reply.clone());
            place.waker.wake();
        }
    }
}

impl Table {
    fn forget_older(&mut self, now: Instant, window: Duration) {
        while self.ended.front().is_some_and(|(ended, _)| now.since(*ended) > window) {
            self.forget_oldest();
        }
    }

    /// Says whether there was one that has ended.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, key)) = self.ended.pop_front() else { return false };
        if let Some(Entry { state: State::Ended(reply), .. }) = self.entries.remove(&key) {
            self.bytes -= reply.bytes();
        }
        true
    }
}

impl fmt::Debug for KeptReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptReplies").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A repetition that waits for the first to end. Dropping it ends the waiting.
pub(crate) struct Waiting {
    replies: Arc<KeptReplies>,
    key: KeyDigest,
    number: u64,
    place: Arc<Place>,
}

impl Future for Waiting {
    type Output = KeptReply;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<KeptReply> {
        self.place.waker.register(cx.waker());
        self.place.reply.get().cloned().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut table = self.replies.table.lock();
        if let Some(Entry { state: State::Running(waiting), .. }) = table.entries.get_mut(&self.key)
        {
            waiting.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    const SECOND: Duration = Duration::from_secs(1);
    const READING: Reading = (7, [Form::PLAIN; 3]);

    fn kept(settings: Deduplication) -> Arc<KeptReplies> {
        Arc::new(KeptReplies::new(settings.validate().expect("they make sense")))
    }

    fn settings() -> Deduplication {
        Deduplication::new(CallerKey::metadata("who")).window(10 * SECOND)
    }

    fn key(number: u32) -> KeyDigest {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key
    }

    fn reply(bytes: usize) -> KeptReply {
        KeptReply::new(&ReplyHeader::new(Status::OK), vec![1; bytes], &[])
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn is_first(kept: &Arc<KeptReplies>, now: Instant, number: u32) -> bool {
        matches!(kept.begin(now, key(number), READING), Begun::First)
    }

    #[test]
    fn d16_a_key_runs_once_in_its_window() {
        let kept = kept(settings());
        assert!(is_first(&kept, at(1), 1));
        let Begun::Waits(waiting) = kept.begin(at(1), key(1), READING) else { panic!("it runs") };
        let Begun::Waits(given_up) = kept.begin(at(1), key(1), READING) else { panic!("it runs") };
        drop(given_up);
        let mut waiting = pin!(waiting);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        kept.end(at(2), key(1), reply(5));
        assert!(matches!(waiting.poll(&mut cx), Poll::Ready(reply) if reply.body.len() == 5));
        assert!(matches!(kept.begin(at(12), key(1), READING), Begun::Ended(_)));
        let other = kept.begin(at(12), key(1), (8, READING.1));
        assert!(matches!(other, Begun::Refused(Status::SHAPE_MISMATCH)));
        assert!(is_first(&kept, at(13), 1), "its time is over");
    }

    #[test]
    fn d16_those_that_wait_get_the_advice_of_a_refusal() {
        let header = ReplyHeader { retry_after_ms: 50, ..ReplyHeader::new(Status::OVERLOADED) };
        let reply = KeptReply::without_body(&header);
        assert_eq!(reply.header(), header);
        assert_eq!(reply.bytes(), 0);
    }

    #[test]
    fn d16_what_did_not_run_leaves_nothing_behind() {
        let kept = kept(settings());
        for status in [Status::BAD_BODY, Status::OVERLOADED, Status::EXPIRED] {
            assert!(is_first(&kept, at(1), 1));
            kept.end(at(1), key(1), KeptReply::bare(status));
        }
        assert!(kept.table.lock().entries.is_empty());
        for (number, status) in (1..).zip([Status::INTERNAL, Status::ABORTED]) {
            assert!(is_first(&kept, at(1), number));
            kept.end(at(1), key(number), KeptReply::bare(status));
            assert!(!is_first(&kept, at(1), number), "{status} may have run");
        }
    }

    #[test]
    fn d16_what_is_kept_has_bounds() {
        let kept = kept(settings().entries_max(4).bytes_max(100, 60));
        // So many that run, and none that could be forgotten.
        assert!((0..4).all(|number| is_first(&kept, at(1), number)));
        assert!(matches!(kept.begin(at(1), key(9), READING), Begun::Refused(Status::OVERLOADED)));
        kept.end(at(1), key(0), reply(60));
        kept.end(at(1), key(1), reply(40));
        assert_eq!(kept.table.lock().bytes, 100);
        // The oldest goes.
        kept.end(at(1), key(2), reply(1));
        assert_eq!(kept.table.lock().bytes, 41);
        assert!(is_first(&kept, at(1), 0));
        // One that is too long.
        kept.end(at(1), key(3), reply(61));
        let Begun::Ended(reply_of_it) = kept.begin(at(1), key(3), READING) else {
            panic!("it ended")
        };
        assert_eq!((reply_of_it.status, reply_of_it.bytes()), (Status::REPLY_FAILED, 0));
        for number in 10..1000 {
            assert!(is_first(&kept, at(2), number));
            kept.end(at(2), key(number), reply(60));
            let table = kept.table.lock();
            assert!(table.entries.len() <= 4 && table.bytes <= 100);
            assert!(table.ended.len() <= 4);
        }
        kept.end(at(2), key(0), reply(1));
        kept.table.lock().forget_older(at(20), SECOND);
        let table = kept.table.lock();
        assert!(table.entries.is_empty() && table.ended.is_empty() && table.bytes == 0);
    }

    #[test]
    fn d16_keys_are_of_their_caller_and_method() {
        let kept = kept(settings());
        let digest = |method, who: &str, key: &[u8]| {
            let mut writer = ringcall_core::frame::ExtensionWriter::new();
            crate::metadata::push_entry(&mut writer, "who", who.as_bytes()).unwrap();
            crate::metadata::push(&mut writer, tag::IDEMPOTENCY_KEY, &[key]);
            kept.key(method, Caller::default, &writer.finish())
        };
        assert_eq!(digest(1, "a", b"k"), digest(1, "a", b"k"));
        let all = [
            digest(1, "a", b"k"),
            digest(2, "a", b"k"),
            digest(1, "b", b"k"),
            digest(1, "a", b"l"),
        ];
        let all: std::collections::HashSet<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(digest(1, "a", b""), Err(Status::BAD_REQUEST));
        assert_eq!(digest(1, "a", &[1; 257]), Err(Status::BAD_REQUEST));
        assert!(digest(1, "a", &[1; 256]).is_ok());
        assert_eq!(kept.key(1, Caller::default, &[]), Ok(None));
    }
}
