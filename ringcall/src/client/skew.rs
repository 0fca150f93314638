//! What is known of the types that the other side of a connection was built with.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;
use ringcall_core::frame::{Hello, features, request_flags};
use ringcall_core::{Cause, Codec, Failure, Outgoing, Payload, Status};

use crate::serve::{KIND_FLAGS, KnownMethods, MethodRows};

/// Calls go out in their own layout unless something here speaks against it.
///
/// Nothing here decides how a body is read: the other side refuses what it does not know, and says of each
/// answer what it is in.
#[derive(Default)]
pub(crate) struct Skew {
    state: AtomicU8,
    /// How many of this program's methods were compared with the table.
    compared: AtomicUsize,
    /// It reads MessagePack.
    reads_names: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    table: Option<Arc<MethodRows>>,
    /// Methods and in-signatures of this side that the other side does not take. Only calls of this program
    /// get here.
    differing: HashSet<(u64, u64)>,
}

/// Something differs.
const DIFFERS: u8 = 1;
/// The table is on its way.
const ASKING: u8 = 2;
/// The other side reads no archives at all.
const NAMES_ONLY: u8 = 4;

impl Skew {
    /// A connection is there. Gives the digest of the table to ask for, if there is need.
    pub(crate) fn meet(&self, hello: &Hello) -> Option<u64> {
        let reads = |codec: Codec| hello.codecs & (1 << codec.0) != 0;
        let mut told = self.told.lock();
        *told = Told::default();
        self.compared.store(0, Ordering::Relaxed);
        self.reads_names.store(reads(Codec::MESSAGEPACK), Ordering::Relaxed);
        let is_names_only = reads(Codec::MESSAGEPACK) && !reads(Codec::RKYV);
        let mut state = if is_names_only { NAMES_ONLY } else { 0 };
        let digest = hello.table_digest;
        let can_ask = digest != 0 && hello.features & features::CONTROL_METHODS != 0;
        let mut asked = None;
        if let Some(table) = (digest != 0).then(|| Tables::find(digest)).flatten() {
            told.table = Some(table);
        } else if can_ask && !is_names_only {
            state |= ASKING;
            asked = Some(digest);
        }
        self.state.store(state, Ordering::Release);
        self.compare(&mut told);
        asked
    }

    /// Whether its table is on its way.
    pub(crate) fn is_asking(&self) -> bool {
        self.state.load(Ordering::Relaxed) & ASKING != 0
    }

    /// The table has arrived, or will not.
    pub(crate) fn learn_table(&self, table: Option<MethodRows>) {
        let mut told = self.told.lock();
        if let Some(table) = table {
            let table = Arc::new(table);
            Tables::keep(&table);
            told.table = Some(table);
        }
        self.compare(&mut told);
        self.state.fetch_and(!ASKING, Ordering::Release);
    }

    /// Compares the methods that this program knows with the table.
    fn compare(&self, told: &mut Told) {
        let Some(table) = &told.table else { return };
        self.compared.store(KnownMethods::count(), Ordering::Relaxed);
        let known = KnownMethods::all().into_iter();
        told.differing.extend(
            known.filter(|&(method, signature)| table.takes(method, signature) == Some(false)),
        );
        if !told.differing.is_empty() {
            self.state.fetch_or(DIFFERS, Ordering::Release);
        }
    }

    /// Puts a call into a form that the other side reads, as far as is known. `false` if it has to wait until
    /// more is known.
    #[inline]
    pub(crate) fn adapt(&self, call: &mut Outgoing) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        if state == 0 && call.flags & KIND_FLAGS == 0 {
            return true;
        }
        self.adapt_other(call, state)
    }

    /// The same for a call whose body is encoded already, perhaps: one that cannot be said in another codec
    /// any more goes as it is. If it is refused, its caller encodes it again; if nobody would hear of that, it
    /// fails instead.
    pub(crate) fn adapt_for(&self, call: &mut Outgoing, payload: &impl Payload) -> bool {
        let before = *call;
        let may_go = self.adapt(call);
        let is_stuck = call.codec != before.codec && payload.transcode().is_none();
        if is_stuck && call.flags & request_flags::ONE_WAY == 0 {
            *call = before;
        }
        may_go
    }

    #[cold]
    fn adapt_other(&self, call: &mut Outgoing, state: u8) -> bool {
        if call.in_signature == 0 || call.codec.has_names() {
            return true;
        }
        // Nobody would hear that it was refused, or it cannot be made again.
        let is_once = call.flags & KIND_FLAGS != 0;
        if is_once && state & ASKING != 0 {
            return false;
        }
        if is_once && self.compared.load(Ordering::Relaxed) != KnownMethods::count() {
            self.compare(&mut self.told.lock());
        }
        let state = self.state.load(Ordering::Relaxed);
        let differs = || self.told.lock().differing.contains(&(call.method, call.in_signature));
        if state & NAMES_ONLY != 0 || (state & DIFFERS != 0 && differs()) {
            by_names(call);
        }
        true
    }

    /// Whether a call that ended so was refused because of its layout, and can be made again in another.
    pub(crate) fn learn(&self, failure: &Failure, called: Called) -> bool {
        let Called { method, in_signature, codec } = called;
        let is_refused = failure.cause == Cause::Status(Status::SHAPE_MISMATCH);
        let has_layout = in_signature != 0 && !codec.has_names();
        if !is_refused || !has_layout || !self.reads_names.load(Ordering::Relaxed) {
            return false;
        }
        self.told.lock().differing.insert((method, in_signature));
        self.state.fetch_or(DIFFERS, Ordering::Release);
        true
    }
}

/// The argument goes in MessagePack, unless it is bytes as they are; items always do.
fn by_names(call: &mut Outgoing) {
    if call.codec == Codec::RKYV {
        call.codec = Codec::MESSAGEPACK;
    }
    if matches!(call.codec, Codec::MESSAGEPACK | Codec::RAW) {
        call.in_signature = 0;
    }
}

/// What a call was sent as.
#[derive(Clone, Copy)]
pub(crate) struct Called {
    method: u64,
    in_signature: u64,
    codec: Codec,
}

impl Called {
    /// Without a layout of its own.
    pub(crate) fn is_by_names(self) -> bool {
        self.in_signature == 0
    }
}

impl From<&Outgoing> for Called {
    fn from(call: &Outgoing) -> Called {
        Called { method: call.method, in_signature: call.in_signature, codec: call.codec }
    }
}

/// The tables of other programs, by digest, for all connections of this one.
#[derive(Default)]
pub(crate) struct Tables(VecDeque<Arc<MethodRows>>);

/// How many are kept; the oldest goes first.
const TABLES_KEPT: usize = 32;

static TABLES: Mutex<Tables> = Mutex::new(Tables(VecDeque::new()));

impl Tables {
    /// Uses those of this process; of a simulated one, which has forgotten what it knew when it starts again.
    fn with<R>(mut act: impl FnMut(&mut Tables) -> R) -> R {
        #[cfg(feature = "sim")]
        if let Some(done) = crate::sim::with_tables(&mut act) {
            return done;
        }
        act(&mut TABLES.lock())
    }

    fn find(digest: u64) -> Option<Arc<MethodRows>> {
        Self::with(|tables| tables.0.iter().find(|table| table.digest() == digest).cloned())
    }

    fn keep(table: &Arc<MethodRows>) {
        Self::with(|Tables(tables)| {
            tables.retain(|other| other.digest() != table.digest());
            if tables.len() == TABLES_KEPT {
                tables.pop_front();
            }
            tables.push_back(Arc::clone(table));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use ringcall_core::frame::{ArchiveFormat, InstanceId};

    fn hello(codecs: u64, digest: u64, features: u64) -> Hello {
        Hello {
            version_min: 1,
            version_max: 1,
            archive: ArchiveFormat::STANDARD,
            in_flight_max: 1,
            features,
            codecs,
            compressions: 0,
            message_bytes_max: 1,
            calls_window: 2,
            replies_window: 2,
            stream_window: 1,
            table_digest: digest,
            instance: InstanceId::default(),
        }
    }

    fn call(flags: u8) -> Outgoing {
        Outgoing {
            method: 1,
            name: "",
            in_signature: 2,
            out_signature: 3,
            codec: Codec::RKYV,
            compression: 0,
            timeout: Duration::from_secs(1),
            priority: 0,
            attempt: 0,
            flags,
            wait_for_ready: false,
        }
    }

    fn mismatch() -> Failure {
        Failure::from_status(Status::SHAPE_MISMATCH, 0).unwrap()
    }

    #[test]
    fn a_refused_layout_is_remembered_for_its_connection() {
        let skew = Skew::default();
        assert_eq!(skew.meet(&hello(0b111, 0, 0)), None);
        let mut one = call(0);
        assert!(skew.adapt(&mut one));
        assert_eq!(one, call(0));
        assert!(skew.learn(&mismatch(), Called::from(&one)));
        assert!(skew.adapt(&mut one));
        assert_eq!((one.codec, one.in_signature), (Codec::MESSAGEPACK, 0));
        // Once is enough: what has names is not refused for its layout.
        assert!(!skew.learn(&mismatch(), Called::from(&one)));
        let mut other = Outgoing { in_signature: 4, ..call(0) };
        assert!(skew.adapt(&mut other));
        assert_eq!(other.codec, Codec::RKYV);
        assert_eq!(skew.meet(&hello(0b111, 0, 0)), None);
        let mut again = call(0);
        assert!(skew.adapt(&mut again));
        assert_eq!(again, call(0));
    }

    #[test]
    fn whoever_reads_no_messagepack_gets_none() {
        let skew = Skew::default();
        skew.meet(&hello(0b11, 0, 0));
        assert!(!skew.learn(&mismatch(), Called::from(&call(0))));
        let failure = Failure::from_status(Status::BAD_BODY, 0).unwrap();
        skew.meet(&hello(0b111, 0, 0));
        assert!(!skew.learn(&failure, Called::from(&call(0))));
    }

    #[test]
    fn whoever_reads_no_archives_gets_none() {
        let skew = Skew::default();
        assert_eq!(skew.meet(&hello(0b101, 9, features::CONTROL_METHODS)), None);
        let mut one = call(0);
        assert!(skew.adapt(&mut one));
        assert_eq!(one.codec, Codec::MESSAGEPACK);
    }

    #[test]
    fn what_cannot_be_made_again_waits_for_the_table() {
        let skew = Skew::default();
        assert_eq!(skew.meet(&hello(0b111, 0x1234, features::CONTROL_METHODS)), Some(0x1234));
        assert!(skew.adapt(&mut call(0)));
        for flags in [request_flags::ONE_WAY, request_flags::ITEMS_IN, request_flags::ITEMS_OUT] {
            assert!(!skew.adapt(&mut call(flags)));
        }
        let mut raw =
            Outgoing { in_signature: 0, codec: Codec::RAW, ..call(request_flags::ONE_WAY) };
        assert!(skew.adapt(&mut raw));
        skew.learn_table(None);
        assert!(skew.adapt(&mut call(request_flags::ONE_WAY)));
    }
}
