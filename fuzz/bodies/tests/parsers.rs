//! Everything that parses bytes of a peer, and the target that reaches it.
//!
//! quinn's remote panic of 2026 sat in its one parser without a target. So functions whose names say that
//! they parse are searched for, and one that is not listed fails this test; parsers with other names are
//! listed all the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringcall_fuzz::TARGETS;

/// File, function, target.
const PARSERS: &[(&str, &str, &str)] = &[
    ("core/src/frame/mod.rs", "Kind::from_wire", "frames"),
    ("core/src/frame/mod.rs", "Head::parse", "frames"),
    ("core/src/frame/mod.rs", "Shape::parse", "frames"),
    ("core/src/frame/hello.rs", "Hello::parse", "handshake"),
    ("core/src/frame/message.rs", "RequestHeader::parse", "frames"),
    ("core/src/frame/message.rs", "RequestHeader::decode", "frames"),
    ("core/src/frame/message.rs", "ReplyHeader::parse", "frames"),
    ("core/src/frame/message.rs", "ReplyHeader::decode", "frames"),
    ("core/src/frame/message.rs", "DataHeader::parse", "frames"),
    ("core/src/frame/message.rs", "ItemHeader::parse", "frames"),
    ("core/src/frame/message.rs", "ItemHeader::decode", "frames"),
    ("core/src/frame/control.rs", "Credit::parse", "frames"),
    ("core/src/frame/control.rs", "Cancel::parse", "frames"),
    ("core/src/frame/control.rs", "Ping::parse", "frames"),
    ("core/src/frame/control.rs", "GoAway::parse", "frames"),
    ("core/src/frame/control.rs", "Limits::parse", "frames"),
    ("core/src/frame/extension.rs", "Extensions::parse_next", "frames"),
    ("core/src/frame/metadata.rs", "parse_metadata", "frames"),
    ("core/src/identity.rs", "Identity::from_bytes", "handshake"),
    ("core/src/connection/introduction.rs", "Introduction::read", "handshake"),
    ("core/src/connection/receive.rs", "Announced::read", "frames"),
    ("core/src/ids.rs", "MessageId::from_wire", "frames"),
    ("core/src/status.rs", "Status::from_wire", "frames"),
    ("core/src/connection/inbound.rs", "Inbound::peek_plain", "frames"),
    ("core/src/connection/inbound.rs", "Inbound::next", "frames"),
    ("core/src/connection/plain.rs", "Connection::poll_next", "frames"),
    ("core/src/connection/plain.rs", "Connection::plain_items", "frames"),
    ("core/src/connection/receive.rs", "Announced::parse", "frames"),
    ("core/src/connection/receive.rs", "Announced::parse_known", "connection"),
    ("core/src/connection/receive.rs", "Connection::preface", "handshake"),
    ("core/src/connection/receive.rs", "Connection::hello", "handshake"),
    ("core/src/connection/receive.rs", "Connection::receive", "connection"),
    ("codec-rkyv/src/archive.rs", "check", "views"),
    ("codec-rkyv/src/archive.rs", "deserialize", "views"),
    ("codec-rkyv/src/view.rs", "View::new", "views"),
    ("codec-rkyv/src/unix_time.rs", "UnixTime::deserialize_with", "views"),
    ("codec-rkyv/src/in_place.rs", "InPlace::deserialize_with", "views"),
    ("codec-rkyv/src/message.rs", "FromBody::from_body", "views"),
    ("codec-rkyv/src/message.rs", "M::from_body", "views"),
    ("codec-rkyv/src/message.rs", "FromBody::from_body_with", "views"),
    ("codec-rkyv/src/message.rs", "M::from_body_with", "views"),
    ("codec-rkyv/src/attachment.rs", "WithAttachment::from_body", "views"),
    ("codec-rkyv/src/attachment.rs", "WithAttachment::from_body_with", "views"),
    ("codec-rkyv/src/message.rs", "View::from_body", "views"),
    ("codec-rkyv/src/message.rs", "Chunk::from_body", "views"),
    ("codec-rkyv/src/message.rs", "SharedChunk::from_body", "views"),
    ("codec-rkyv/src/message.rs", "Message::decode_as", "fallback"),
    ("codec-rkyv/src/message.rs", "Message::decode_as_with", "fallback"),
    ("codec-rkyv/src/attachment.rs", "WithAttachment::decode_as", "fallback"),
    ("codec-rkyv/src/attachment.rs", "WithAttachment::decode_as_with", "fallback"),
    ("codec-rkyv/src/message.rs", "macro_rules::decode_as", "fallback"),
    ("codec-rkyv/src/message.rs", "View::from_other", "fallback"),
    ("codec-rkyv/src/fallback.rs", "decode", "fallback"),
    ("codec-rkyv/src/fallback.rs", "decode_named", "fallback"),
    ("codec-rkyv/src/fallback.rs", "decode_array", "fallback"),
    ("codec-rkyv/src/fallback.rs", "pub::deserialize", "fallback"),
    ("codec-rkyv/src/fallback.rs", "ReadArray::deserialize", "fallback"),
    ("codec-rkyv/src/fallback/read.rs", "Checked::deserialize", "fallback"),
    ("codec-rkyv/src/fallback/wide.rs", "Wide::from_bytes", "fallback"),
    ("codec-rkyv/src/form.rs", "decode_as", "fallback"),
    ("codec-rkyv/src/form.rs", "decode_previous", "fallback"),
    ("codec-rkyv/src/form.rs", "decode_archive", "fallback"),
    ("codec-rkyv/src/form.rs", "decode_own", "fallback"),
    ("ringcall/src/serve/mount.rs", "Method::admit", "shapes"),
    ("ringcall/src/serve/admit.rs", "MethodTable::admit_other", "shapes"),
    ("ringcall/src/trace.rs", "TraceContext::from_bytes", "frames"),
    ("ringcall/src/trace.rs", "parse_traceparent", "frames"),
    ("ringcall/src/metadata.rs", "Metadata::iter", "frames"),
    ("tls/src/layer.rs", "Tls::greet", "tls"),
    ("tls/src/layer.rs", "Tls::open_records", "tls"),
    ("tls/src/handshake.rs", "Handshake::advance", "tls"),
    ("tls/src/traffic.rs", "Traffic::open", "tls"),
    ("tls/src/traffic.rs", "Traffic::take_messages", "tls"),
    ("transport-uring/src/engine/mod.rs", "Uring::complete", "ring"),
    ("transport-uring/src/token.rs", "Token::unpack", "ring"),
    ("ringcall/src/client/call.rs", "receive", "shapes"),
    ("compression/src/lib.rs", "inflate", "inflate"),
    ("core/src/record/file.rs", "Record::parse", "records"),
    ("core/src/record/file.rs", "RecordedSteps::take", "records"),
    ("core/src/record/pieces.rs", "Pieces::take", "records"),
    ("core/src/record/replay.rs", "Replay::step", "records"),
    ("compression/src/lib.rs", "parse_length", "inflate"),
    ("codec-rkyv/src/described.rs", "parse", "generic"),
    ("plugins/generic/src/decode.rs", "body", "generic"),
];

/// The same names for what no peer sends.
const LOCAL: &[(&str, &str)] = &[];

/// Rooms that no peer reaches.
const ROOMS_WITHOUT_PEERS: [&str; 4] = ["macros", "examples", "benches", "fuzz/bodies"];

/// How the names of parsers begin.
const NAMES: [&str; 7] =
    ["parse", "decode", "deserialize", "from_wire", "from_body", "from_bytes", "peek"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Members of the workspace that a peer's bytes may reach.
fn rooms() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("there is a workspace");
    let (_, rest) = manifest.split_once("members = [").expect("it has members");
    let (members, _) = rest.split_once(']').expect("the list ends");
    let names = members.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
    let rooms: Vec<_> =
        names.filter(|name| !ROOMS_WITHOUT_PEERS.contains(name)).map(str::to_owned).collect();
    assert!(rooms.iter().any(|room| room == "core"), "{rooms:?}");
    rooms
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The functions of a file, each with the type or trait that it belongs to.
fn functions(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut owner = String::new();
    for line in source.lines().take_while(|line| !line.starts_with("mod tests")) {
        let is_header = !line.starts_with([' ', '\t', '{', '}', ')', '/', '#']) && line != "where";
        if is_header && !line.is_empty() {
            owner = owner_in(line);
        }
        let words: Vec<_> = line.split_whitespace().take_while(|word| *word != "//").collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let Some(name) = words.get(at + 1) else { continue };
        let name = identifier(name);
        let is_free = !line.starts_with(char::is_whitespace);
        found.insert(if is_free { name.to_owned() } else { format!("{owner}::{name}") });
    }
    found
}

/// `Thing` of `impl<T> Thing<T>`, `impl Some for Thing` and `pub trait Thing`.
fn owner_in(line: &str) -> String {
    let (_, named) = line.split_once(" for ").unwrap_or_else(|| {
        let rest = line.split_once("trait ").map_or(line, |(_, rest)| rest);
        let rest = rest.strip_prefix("impl").unwrap_or(rest);
        ("", rest.strip_prefix('<').and_then(|rest| rest.split_once("> ")).map_or(rest, |(_, r)| r))
    });
    identifier(named.trim()).to_owned()
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(text)
}

#[test]
fn every_parser_has_a_target() {
    let mut unlisted = Vec::new();
    for room in rooms() {
        let mut files = Vec::new();
        sources(&root().join(&room).join("src"), &mut files);
        for file in files {
            let source = fs::read_to_string(&file).expect("it can be read");
            let file = file.strip_prefix(root()).expect("it is inside").display().to_string();
            for function in functions(&source) {
                let name = function.rsplit("::").next().unwrap_or(&function);
                let is_parser = NAMES.iter().any(|start| name.starts_with(start));
                let is_listed = PARSERS.iter().any(|row| (row.0, row.1) == (&file, &function));
                let is_local = LOCAL.contains(&(&file, &function));
                if is_parser && !is_listed && !is_local {
                    unlisted.push((file.clone(), function));
                }
            }
        }
    }
    assert!(
        unlisted.is_empty(),
        "no target is known for these: say which one reaches them in `PARSERS`, or that no peer does in `LOCAL`: \
         {unlisted:#?}"
    );
}

#[test]
fn what_is_listed_is_there() {
    for (file, function, _) in PARSERS {
        let source = fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(functions(&source).contains(*function), "{function} is no longer in {file}");
    }
}

#[test]
fn every_target_is_there_and_used() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("it is there");
    for (target, _) in TARGETS {
        assert!(PARSERS.iter().any(|row| row.2 == target), "{target} reaches nothing");
    }
    for (_, function, target) in PARSERS {
        assert!(TARGETS.iter().any(|(name, _)| name == target), "{function}: {target}?");
    }
    for target in TARGETS.map(|(name, _)| name).into_iter().chain(["canary"]) {
        let wrapper = root().join(format!("fuzz/fuzz_targets/{target}.rs"));
        let wrapper = fs::read_to_string(wrapper).unwrap_or_default();
        assert!(wrapper.contains(&format!("ringcall_fuzz::{target}(")), "{target} has no wrapper");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not built");
    }
}

#[test]
fn functions_are_found_with_their_owners() {
    let source = "impl<T: Send> One<T> {\n    pub(crate) fn parse(&self) {}\n}\n\nfn decode<T>() {}\n\
                  impl From<u8> for Two {\n    fn from_wire() {}\n}\n\npub trait Three {\n    fn peek();\n}\n";
    let expected = ["One::parse", "Three::peek", "Two::from_wire", "decode"];
    assert!(functions(source).iter().eq(expected));
}
