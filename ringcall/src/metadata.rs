//! What goes with calls and answers beside their messages: metadata, and context that calls hand down.

use std::fmt;

use ringcall_core::Chunk;
use ringcall_core::frame::{
    Extension, ExtensionWriter, Extensions, HEADER_LEN_MAX, is_metadata_key, parse_metadata, tag,
};

use crate::TraceContext;

/// Metadata of a call or an answer, with the context that came along, read where it landed.
///
/// Entries have a key of ASCII (`a`–`z`, `0`–`9`, `-`, `_`, `.`) and any bytes as value. `A`–`Z` in a key is `a`–`z`, as in
/// HTTP, whoever writes or looks it up. They keep their order, and a key may come several times. How many of them are taken is limited:
/// [`Config::metadata_max`](crate::Config::metadata_max). Nothing here allocates.
///
/// Like a view, it keeps the memory in which it arrived.
#[derive(Clone, Copy)]
pub struct Metadata<B = Chunk>(pub(crate) B);

impl<B: AsRef<[u8]>> Metadata<B> {
    /// From the extensions of a header, see [`Answer::extensions`](crate::Answer::extensions).
    #[must_use]
    pub fn new(extensions: B) -> Metadata<B> {
        Metadata(extensions)
    }

    /// The first value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value)
    }

    /// The first value of a key, if it is text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// All values of a key, in order.
    pub fn get_all(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let entries = self.tlvs().filter(|found| found.tag == tag::METADATA);
        entries.filter_map(|found| parse_metadata(found.value))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The trace that the call belongs to, if its caller says so.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::from_bytes(self.find(tag::TRACE_CONTEXT)?).map(|(trace, _)| trace)
    }

    /// What systems that take part in the trace have said for each other, W3C `tracestate`.
    #[must_use]
    pub fn trace_state(&self) -> Option<&str> {
        let (_, state) = TraceContext::from_bytes(self.find(tag::TRACE_CONTEXT)?)?;
        Some(state).filter(|state| !state.is_empty())
    }

    /// W3C `baggage`.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.find_text(tag::BAGGAGE)
    }

    /// The group of servers that was asked for.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.find_text(tag::ASKED_GROUP)
    }

    /// The group of servers that a balanced channel chose, by which version of its list. It differs from the one
    /// that was [asked for](Metadata::group) where that had no server.
    #[must_use]
    pub fn real_group(&self) -> Option<(u64, &str)> {
        let (version, group) = self.find(tag::REAL_GROUP)?.split_first_chunk()?;
        Some((u64::from_le_bytes(*version), std::str::from_utf8(group).ok()?))
    }

    /// Who calls, as the caller says; nobody has checked it.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.find_text(tag::CALLER)
    }

    /// What the caller calls that which the call is to do, see [`Call::idempotency_key`](crate::Call::idempotency_key).
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&[u8]> {
        self.find(tag::IDEMPOTENCY_KEY)
    }

    /// The extensions as they arrived, see [`Extensions`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    fn tlvs(&self) -> impl Iterator<Item = Extension<'_>> {
        Extensions::new(self.0.as_ref()).map_while(Result::ok)
    }

    fn find(&self, tag: u16) -> Option<&[u8]> {
        self.tlvs().find(|found| found.tag == tag).map(|found| found.value)
    }

    fn find_text(&self, tag: u16) -> Option<&str> {
        std::str::from_utf8(self.find(tag)?).ok()
    }
}

/// Keys and lengths: values may be secret.
impl<B: AsRef<[u8]>> fmt::Debug for Metadata<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (key, value.len()))).finish()
    }
}

/// What cannot be a key of metadata, such as one that came from somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMetadataKey(Box<str>);

impl fmt::Display for BadMetadataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.0;
        write!(f, "{key:?} cannot be a key of metadata: 1 to 255 of a-z, 0-9, `-`, `_` and `.`")
    }
}

impl std::error::Error for BadMetadataKey {}

/// For those who know their keys.
///
/// # Panics
/// When the key was none.
#[track_caller]
pub(crate) fn expect_key(pushed: Result<(), BadMetadataKey>) {
    pushed.unwrap_or_else(|bad| panic!("{bad}"));
}

/// Appends an entry.
pub(crate) fn push_entry(
    writer: &mut ExtensionWriter,
    key: &str,
    value: &[u8],
) -> Result<(), BadMetadataKey> {
    if is_metadata_key(key) {
        push_checked(writer, key, value);
        return Ok(());
    }
    let lower = key.to_ascii_lowercase();
    if !is_metadata_key(&lower) {
        return Err(BadMetadataKey(key.into()));
    }
    push_checked(writer, &lower, value);
    Ok(())
}

fn push_checked(writer: &mut ExtensionWriter, key: &str, value: &[u8]) {
    let len = key.len() as u8;
    push(writer, tag::METADATA, &[&[len], key.as_bytes(), value]);
}

pub(crate) fn push_trace(writer: &mut ExtensionWriter, trace: &TraceContext, state: &str) {
    push(writer, tag::TRACE_CONTEXT, &[&trace.to_bytes(), state.as_bytes()]);
}

/// Appends a TLV. What no header can hold is cut, and still refused when it is to be sent.
pub(crate) fn push(writer: &mut ExtensionWriter, tag: u16, parts: &[&[u8]]) {
    let mut room = HEADER_LEN_MAX;
    let parts = parts.iter().map(|part| {
        let part = &part[..part.len().min(room)];
        room -= part.len();
        part
    });
    let _fits = writer.push_parts(tag, parts);
}

/// What calls of a handler hand down: the context of the call that it serves.
const HANDED_DOWN: [u16; 4] = [tag::TRACE_CONTEXT, tag::BAGGAGE, tag::ASKED_GROUP, tag::CALLER];

/// The part of a call's extensions that its handler's calls hand down; `None` if there is none.
pub(crate) fn handed_down(extensions: &[u8]) -> Option<Vec<u8>> {
    if extensions.is_empty() {
        return None;
    }
    let mut writer = ExtensionWriter::new();
    for found in Extensions::new(extensions).map_while(Result::ok) {
        if HANDED_DOWN.contains(&found.tag) {
            push(&mut writer, found.tag, &[found.value]);
        }
    }
    (!writer.is_empty()).then(|| writer.finish())
}

/// The extensions of a call that hands `context` down: its own win. A trace goes on with `span` as the
/// id of the call.
pub(crate) fn inherit(own: &[u8], context: &[u8], span: u64) -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    writer.append(own);
    for found in Extensions::new(context).map_while(Result::ok) {
        let mut own = Extensions::new(own).map_while(Result::ok);
        if own.any(|own| own.tag == found.tag) {
            continue;
        }
        match (found.tag, TraceContext::from_bytes(found.value)) {
            (tag::TRACE_CONTEXT, Some((trace, state))) => {
                push_trace(&mut writer, &trace.child_of(span), state);
            }
            (tag::TRACE_CONTEXT, None) => {}
            (tag, _) => push(&mut writer, tag, &[found.value]),
        }
    }
    writer.finish()
}

/// Methods of everything that becomes a call, or options of one.
macro_rules! extension_methods {
    ($($writer:ident).+) => {
        /// Adds an entry of metadata: `key` has 1 to 255 of `a`–`z`, `0`–`9`, `-`, `_` and `.`, the value is
        /// any bytes. `A`–`Z` become `a`–`z`, as in HTTP. Entries keep their order, and keys may repeat. A call with more than fits
        /// ([`Config::extension_bytes_max`](crate::Config::extension_bytes_max)) is not sent, one with more
        /// than the server takes is refused.
        ///
        /// # Panics
        /// When the key is not one: [`try_metadata`](Self::try_metadata) is for keys of others.
        #[track_caller]
        pub fn metadata(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
            let pushed = crate::metadata::push_entry(&mut self.$($writer).+, key, value.as_ref());
            crate::metadata::expect_key(pushed);
            self
        }

        /// The same for a key that may be none, such as a header of somebody else that is passed on.
        ///
        /// # Errors
        /// When it is none; whoever wants to go on without it makes it from a clone, or leaves out what has characters
        /// that no key has.
        pub fn try_metadata(
            mut self,
            key: &str,
            value: impl AsRef<[u8]>,
        ) -> Result<Self, crate::BadMetadataKey> {
            crate::metadata::push_entry(&mut self.$($writer).+, key, value.as_ref())?;
            Ok(self)
        }

        /// Makes it part of a trace; its span is the id of the call.
        pub fn trace(mut self, trace: &crate::TraceContext) -> Self {
            crate::metadata::push_trace(&mut self.$($writer).+, trace, "");
            self
        }

        /// Sets W3C `baggage`, which the server hands down to its own calls.
        pub fn baggage(mut self, baggage: &str) -> Self {
            let tag = ringcall_core::frame::tag::BAGGAGE;
            crate::metadata::push(&mut self.$($writer).+, tag, &[baggage.as_bytes()]);
            self
        }

        /// Asks for a group of servers: a balanced channel for which groups matter goes by it, others only pass it on.
        /// Servers hand it down to their own calls.
        pub fn group(mut self, group: &str) -> Self {
            let tag = ringcall_core::frame::tag::ASKED_GROUP;
            crate::metadata::push(&mut self.$($writer).+, tag, &[group.as_bytes()]);
            self
        }

        /// Says who calls. It is not checked by anybody; servers hand it down to their own calls.
        pub fn caller(mut self, caller: &str) -> Self {
            let tag = ringcall_core::frame::tag::CALLER;
            crate::metadata::push(&mut self.$($writer).+, tag, &[caller.as_bytes()]);
            self
        }
    };
}

pub(crate) use extension_methods;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn metadata(writer: ExtensionWriter) -> Metadata<Bytes> {
        Metadata::new(writer.finish().into())
    }

    proptest::proptest! {
        #[test]
        fn entries_round_trip(entries: Vec<(u8, Vec<u8>)>) {
            let key = |key: u8| format!("k.{key}-_");
            let mut writer = ExtensionWriter::new();
            for (at, (number, value)) in entries.iter().enumerate() {
                push_entry(&mut writer, &key(*number), value).unwrap();
                if at % 3 == 0 {
                    push(&mut writer, tag::REASON, &[b"other"]);
                }
            }
            let metadata = metadata(writer);
            let read = metadata.iter().map(|(key, value)| (key.to_owned(), value.to_vec()));
            let expected = entries.iter().map(|(number, value)| (key(*number), value.clone()));
            assert!(read.eq(expected));
            assert_eq!(metadata.len(), entries.len());
            for (number, value) in &entries {
                let first = entries.iter().find(|(other, _)| other == number).map(|(_, value)| value);
                assert_eq!(metadata.get(&key(*number)), first.map(Vec::as_slice));
                assert!(metadata.get_all(&key(*number)).any(|other| other == value));
            }
        }

        #[test]
        fn a07_any_bytes_can_be_looked_at(bytes: Vec<u8>) {
            let metadata = Metadata::new(Bytes::from(bytes.clone()));
            assert!(metadata.len() <= bytes.len() / 4);
            let _ = (metadata.trace(), metadata.trace_state(), metadata.baggage(), metadata.caller());
            let _ = metadata.real_group();
            let inherited = handed_down(&bytes).map(|context| inherit(&bytes, &context, 7));
            assert!(inherited.is_none_or(|bytes| bytes.len().is_multiple_of(16)));
        }
    }

    #[test]
    fn context_is_handed_down_and_a_calls_own_wins() {
        let trace: TraceContext =
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let mut writer = ExtensionWriter::new();
        push_entry(&mut writer, "stays", b"here").unwrap();
        push_trace(&mut writer, &trace, "vendor=1");
        push(&mut writer, tag::BAGGAGE, &[b"a=1"]);
        push(&mut writer, tag::CALLER, &[b"front"]);
        let context = handed_down(&writer.finish()).expect("there is some");
        let mut own = ExtensionWriter::new();
        push_entry(&mut own, "own", b"entry").unwrap();
        push(&mut own, tag::BAGGAGE, &[b"b=2"]);
        let child = Metadata::new(Bytes::from(inherit(&own.finish(), &context, 0x1234)));
        assert_eq!(child.get("stays"), None);
        assert_eq!(child.text("own"), Some("entry"));
        assert_eq!(child.baggage(), Some("b=2"));
        assert_eq!(child.caller(), Some("front"));
        assert_eq!(child.trace_state(), Some("vendor=1"));
        let trace_of_child = child.trace().expect("it goes on");
        assert_eq!(trace_of_child.trace_id(), trace.trace_id());
        assert_eq!(trace_of_child.span_id(), 0x1234u64.to_be_bytes());
        assert!(trace_of_child.is_sampled());
        assert!(handed_down(b"").is_none());
    }

    #[test]
    fn keys_are_checked_and_have_no_capitals() {
        let mut writer = ExtensionWriter::new();
        for bad in ["", "t n", "ключ", "a:b", &"k".repeat(256)] {
            let error = push_entry(&mut writer, bad, b"").unwrap_err().to_string();
            assert!(error.contains("cannot be a key"), "{error}");
        }
        assert!(writer.is_empty());
        push_entry(&mut writer, "X-Tenant", b"acme").unwrap();
        let metadata = metadata(writer);
        assert_eq!(metadata.iter().next(), Some(("x-tenant", &b"acme"[..])));
        assert_eq!(
            (metadata.text("X-TENANT"), metadata.get_all("x-Tenant").count()),
            (Some("acme"), 1)
        );
    }
}
