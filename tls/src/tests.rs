//! Two layers talk to each other, byte for byte under control.

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use ringcall_buf::{Chunk, Pool, Segment};
use ringcall_core::{Batch, ByteLayer, CloseReason, SendQueue, TlsFault};

use super::*;

/// Who is at either end.
struct Sides {
    server: TlsServer,
    client: TlsClient,
}

fn sides() -> Sides {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (pem, key) = (certificate.pem(), key.serialize_pem());
    let identity = TlsIdentity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
    Sides {
        server: TlsServer::new(identity).unwrap(),
        client: TlsClient::new(TlsRoots::from_pem(pem.as_bytes()).unwrap()).unwrap(),
    }
}

struct End {
    tls: Tls,
    pool: Pool,
    /// What it was given, in the pieces that it came in.
    got: Vec<Chunk>,
    closed: Option<CloseReason>,
}

impl End {
    fn of(make: impl FnOnce(&Workspace) -> Tls) -> End {
        let pool = Pool::new(1 << 20);
        let tls = make(&Workspace::new(&pool));
        End { tls, pool, got: Vec::new(), closed: None }
    }

    fn pair(sides: &Sides) -> [End; 2] {
        [
            End::of(|workspace| Tls::client(&sides.client, "localhost", workspace).unwrap()),
            End::of(|workspace| Tls::server(&sides.server, workspace).unwrap()),
        ]
    }

    /// What it sends, with these segments of its connection.
    fn send(&mut self, segments: Vec<Segment>) -> Vec<u8> {
        let mut batch = Batch::new(usize::MAX);
        segments.into_iter().for_each(|segment| batch.push(segment));
        self.tls.seal(&mut batch).unwrap();
        batch.segments().iter().flat_map(|segment| segment.as_slice().unwrap().to_vec()).collect()
    }

    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let chunk = self.pool.copy(bytes);
        self.send(vec![chunk.into()])
    }

    /// It receives these bytes in pieces of such a length.
    fn receive(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            let chunk = self.pool.copy(piece);
            let got = &mut self.got;
            let opened = self.tls.open(chunk, &mut |plain| got.push(plain));
            if let Err(reason) = opened {
                self.closed.get_or_insert(reason);
            }
        }
    }

    fn heard(&self) -> Vec<u8> {
        self.got.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }
}

/// What a record is longer than its plaintext: its head, the type inside and the tag of the cipher.
const RECORD_EXTRA: usize = 5 + 1 + 16;
/// A record with a change of keys.
const KEY_UPDATE_RECORD: usize = 5 + RECORD_EXTRA;
/// A record with an alert.
const ALERT_RECORD: usize = 2 + RECORD_EXTRA;
const HANDSHAKE: u8 = 22;

/// Carries what both ends have of their own; says how much that was, either way.
fn settle([a, b]: &mut [End; 2], piece: usize) -> [usize; 2] {
    let mut carried = [0, 0];
    loop {
        let to_b = a.send(Vec::new());
        b.receive(&to_b, piece);
        let to_a = b.send(Vec::new());
        a.receive(&to_a, piece);
        carried = [carried[0] + to_b.len(), carried[1] + to_a.len()];
        if to_a.is_empty() && to_b.is_empty() {
            return carried;
        }
    }
}

fn open(sides: &Sides) -> [End; 2] {
    let mut ends = End::pair(sides);
    settle(&mut ends, usize::MAX);
    assert_eq!(ends.each_ref().map(|end| end.closed), [None, None]);
    assert!(ends.iter().all(|end| end.tls.is_ready()));
    ends
}

#[test]
fn h02_a_handshake_in_any_pieces() {
    let sides = sides();
    for piece in [1, 2, 7, 100, 1000] {
        let mut ends = End::pair(&sides);
        settle(&mut ends, piece);
        assert!(ends.iter().all(|end| end.tls.is_ready()), "{piece}");
        let [client, server] = &mut ends;
        let sealed = client.say(b"hello");
        server.receive(&sealed, piece);
        assert_eq!(server.heard(), b"hello");
    }
}

#[test]
fn sessions_are_resumed() {
    let sides = sides();
    let [first, second] = [(); 2].map(|()| settle(&mut End::pair(&sides), usize::MAX));
    assert!(second[1] < first[1], "without a certificate: {second:?} after {first:?}");
}

#[test]
fn a_goodbye_is_heard_and_its_absence_too() {
    let sides = sides();
    let [mut client, mut server] = open(&sides);
    assert!(client.tls.owes_goodbye() && !client.tls.wants_seal());
    client.tls.end_output();
    assert!(client.tls.wants_seal());
    let sealed = client.say(b"last words");
    assert!(!client.tls.owes_goodbye() && !client.tls.wants_seal());
    server.receive(&sealed, 3);
    assert_eq!(server.heard(), b"last words");
    assert!(server.tls.has_input_ended());
    assert_eq!(server.tls.end_input(), Ok(()));
    assert_eq!(client.tls.end_input(), Err(CloseReason::Tls(TlsFault::Truncated)));
}

/// Keys are changed long before they are used up, also in the middle of a batch.
#[test]
fn keys_are_changed_before_they_are_used_up() {
    let [mut client, mut server] = open(&sides());
    let mut said = Vec::new();
    for round in 0..20_u8 {
        client.tls.change_key_after(2);
        let bytes = vec![round; 50_000];
        let sealed = client.say(&bytes);
        // Of four records the first two use up their key, so that it is changed once.
        assert_eq!(sealed.len(), 50_000 + 4 * RECORD_EXTRA + KEY_UPDATE_RECORD);
        server.receive(&sealed, 7000);
        said.extend(bytes);
        assert_eq!(server.closed, None);
    }
    assert!(server.heard() == said);
}

#[test]
fn keys_are_changed_when_the_other_side_asks() {
    let [mut client, mut server] = open(&sides());
    for round in 0..10 {
        let mut ask = client.tls.ask_for_new_key();
        ask.extend(client.say(b"and on"));
        server.receive(&ask, 10);
        let answer = server.say(b"so be it");
        assert_eq!(answer.len(), 8 + RECORD_EXTRA + KEY_UPDATE_RECORD);
        client.receive(&answer, 10);
        assert_eq!((client.closed, server.closed), (None, None), "{round}");
    }
    assert_eq!((server.heard().len(), client.heard().len()), (60, 80));
}

#[test]
fn h02_floods_of_tls_itself_are_bounded() {
    let [mut client, mut server] = open(&sides());
    let mut asked = 0;
    while server.closed.is_none() {
        let ask = client.tls.ask_for_new_key();
        server.receive(&ask, usize::MAX);
        asked += 1;
        assert!(asked < 1000);
    }
    assert_eq!(server.closed, Some(CloseReason::Tls(TlsFault::TooMuch)));
    assert_eq!(asked, 65);
    assert_eq!(server.send(Vec::new()).len(), ALERT_RECORD);
}

/// Whoever asks for other keys again and again, hides that among data, and reads nothing, makes nothing wait.
#[test]
fn h02_many_questions_for_a_key_have_one_answer() {
    let [mut client, mut server] = open(&sides());
    for _ in 0..1000 {
        let mut flood = client.tls.ask_for_new_key();
        flood.extend(client.say(b"."));
        server.receive(&flood, usize::MAX);
    }
    assert_eq!(server.closed, None);
    assert!(server.tls.wants_seal());
    let answer = server.send(Vec::new());
    assert_eq!(answer.len(), KEY_UPDATE_RECORD);
    assert!(!server.tls.wants_seal());
    let said = server.say(b"so be it");
    assert_eq!(said.len(), 8 + RECORD_EXTRA);
    client.receive(&[answer, said].concat(), 10);
    assert_eq!((client.closed, client.heard()), (None, b"so be it".to_vec()));
}

/// Behind a goodbye nothing is said any more, also if somebody asks.
#[test]
fn a_goodbye_is_the_last_word() {
    let [mut client, mut server] = open(&sides());
    server.tls.end_output();
    assert_eq!(server.send(Vec::new()).len(), ALERT_RECORD);
    let ask = client.tls.ask_for_new_key();
    server.receive(&ask, usize::MAX);
    assert_eq!(server.closed, None);
    assert!(!server.tls.wants_seal());
    assert!(server.send(Vec::new()).is_empty());
}

/// What a message of TLS's own is, and how long it will be, is looked at before the rest of it is kept.
#[test]
fn h02_messages_that_may_not_come_are_not_collected() {
    for (message, is_client, fault) in [
        // A certificate, after the handshake.
        (&[11][..], true, TlsFault::Malformed),
        (&[11], false, TlsFault::Malformed),
        // A ticket, from a client.
        (&[4], false, TlsFault::Malformed),
        // A ticket and a change of keys, longer than any.
        (&[4, 1, 0, 1], true, TlsFault::TooMuch),
        (&[24, 0, 0, 2], true, TlsFault::TooMuch),
    ] {
        let [client, server] = open(&sides());
        let [mut to, mut from] = if is_client { [client, server] } else { [server, client] };
        let record = from.tls.say_anything(HANDSHAKE, message);
        to.receive(&record, usize::MAX);
        assert_eq!(to.closed, Some(CloseReason::Tls(fault)), "{message:?}");
    }
}

/// A first message in many small records: what waits for its end has a bound.
#[test]
fn h02_a_handshake_in_small_records_is_bounded() {
    let [_, mut server] = End::pair(&sides());
    let message = [&[1, 0, 0xf0, 0][..], &[0; 0xf000]].concat();
    let records = message.chunks(20).map(|part| {
        let head = [HANDSHAKE, 3, 1, 0, part.len() as u8];
        [&head[..], part].concat()
    });
    let mut sent = 0;
    for record in records {
        sent += record.len();
        server.receive(&record, usize::MAX);
        if server.closed.is_some() {
            break;
        }
    }
    assert_eq!(server.closed, Some(CloseReason::Tls(TlsFault::TooMuch)), "after {sent} bytes");
    assert!(sent < 66 * 1024, "{sent}");
}

/// A handshake may need much memory, a connection that only waits does not.
#[test]
fn a_handshake_leaves_nothing_behind() {
    let ends = open(&sides());
    assert_eq!(ends.each_ref().map(|end| end.tls.partial_capacity()), [0, 0]);
}

/// Whether servers have proved who they are is replaced together with what proves it.
#[test]
fn a_client_is_replaced_as_a_whole() {
    let sides = sides();
    let careless = || TlsClient::dangerous_without_verification(None).unwrap();
    let knows_the_server = |client: &TlsClient| {
        let [end, _] = open(&Sides { server: sides.server.clone(), client: client.clone() });
        end.tls.peer().is_some()
    };
    let client = careless();
    assert!(!knows_the_server(&client));
    client.replace(&sides.client);
    assert!(knows_the_server(&client));
    client.replace(&careless());
    assert!(!knows_the_server(&client));
}

#[test]
fn h07_strangers_are_told_apart() {
    let sides = sides();
    for (first, reason) in [
        (b"GET / HTTP/1.1", CloseReason::UnknownPreface(*b"GET / HT")),
        (b"\xf7RING\r\n\x01......", CloseReason::PeerSpeaksPlaintext),
    ] {
        for piece in [1, 100] {
            let [_, mut server] = End::pair(&sides);
            server.receive(first, piece);
            assert_eq!(server.closed, Some(reason));
            let answer = server.send(Vec::new());
            let is_ours = reason == CloseReason::PeerSpeaksPlaintext;
            assert_eq!(answer.len(), if is_ours { 7 } else { 0 });
        }
    }
    let [mut client, mut server] = End::pair(&sides);
    server.receive(b"\xf7RI", 1);
    assert_eq!(server.tls.end_input(), Err(CloseReason::UnknownPreface(*b"\xf7RI\0\0\0\0\0")));
    client.receive(b"HTTP/1.1 400 Bad", 100);
    assert_eq!(client.closed, Some(CloseReason::UnknownPreface(*b"HTTP/1.1")));
    let [mut client, _] = End::pair(&sides);
    assert_eq!(client.tls.end_input(), Err(CloseReason::Tls(TlsFault::Unanswered)));
}

/// A chunk starts at an address that is, modulo 16, how much came before it plus 8: then the bodies in it
/// lie at multiples of 16.
fn lies_right(end: &End) -> bool {
    let mut before = 0;
    end.got.iter().all(|chunk| {
        let lies = chunk.as_ptr().addr() % 16 == (before + 8) % 16;
        before += chunk.len();
        lies
    })
}

/// Whether a byte of records says which version of TLS they are, which means nothing any more and must be ignored
/// (RFC 8446, 5.1).
fn is_version(records: &[u8], at: usize) -> bool {
    let mut start = 0;
    while start + 5 <= at {
        let len = usize::from(u16::from_be_bytes([records[start + 3], records[start + 4]]));
        if at < start + 5 + len {
            return false;
        }
        start += 5 + len;
    }
    (1..3).contains(&(at - start))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_said_is_heard(
        batches in prop::collection::vec(prop::collection::vec(0_usize..40_000, 1..5), 1..5),
        piece in 1_usize..70_000,
    ) {
        let [mut client, mut server] = open(&sides());
        let mut said = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let mut segments = Vec::new();
            for len in batch {
                let bytes: Vec<u8> = (0..*len).map(|at| (at * 31 + number) as u8).collect();
                said.extend(&bytes);
                segments.push(Segment::from(client.pool.copy(&bytes)));
            }
            let sealed = client.send(segments);
            server.receive(&sealed, piece);
        }
        prop_assert_eq!(server.closed, None);
        prop_assert!(server.heard() == said);
    }

    #[test]
    fn small_batches_lie_where_bodies_must(
        batches in prop::collection::vec(1_usize..8000, 1..20),
        piece in 1_usize..70_000,
    ) {
        let [mut client, mut server] = open(&sides());
        let sealed: Vec<u8> = batches.iter().flat_map(|len| client.say(&vec![7; *len])).collect();
        server.receive(&sealed, piece);
        prop_assert_eq!(server.heard().len(), batches.iter().sum::<usize>());
        prop_assert!(lies_right(&server));
    }

    #[test]
    fn h06_a_changed_byte_is_never_heard(
        batches in prop::collection::vec(1_usize..3000, 1..6),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        piece in 1_usize..10_000,
    ) {
        let [mut client, mut server] = open(&sides());
        let said: Vec<u8> = (0..batches.iter().sum::<usize>()).map(|at| (at * 7) as u8).collect();
        let (mut sealed, mut before) = (Vec::new(), 0);
        for len in &batches {
            sealed.extend(client.say(&said[before..before + len]));
            before += len;
        }
        let at = at.index(sealed.len());
        let is_version = is_version(&sealed, at);
        sealed[at] ^= flip;
        server.receive(&sealed, piece);
        let heard = server.heard();
        prop_assert!(said.starts_with(&heard));
        prop_assert_eq!(heard.len() < said.len(), !is_version);
    }

    #[test]
    fn h02_any_messages_of_tls_itself_end_or_wait(
        messages in prop::collection::vec(
            (21_u8..24, prop::collection::vec(prop_oneof![0_u8..30, Just(0), any::<u8>()], 0..60)),
            1..8,
        ),
        is_client: bool,
    ) {
        let [client, server] = open(&sides());
        let [mut from, mut to] = if is_client { [client, server] } else { [server, client] };
        for (typ, message) in &messages {
            let record = from.tls.say_anything(*typ, message);
            to.receive(&record, usize::MAX);
        }
        let heard: Vec<u8> =
            messages.iter().filter(|(typ, _)| *typ == 23).flat_map(|(_, m)| m.clone()).collect();
        prop_assert!(heard.starts_with(&to.heard()));
        prop_assert!(to.closed.is_some() || to.tls.has_input_ended() || heard == to.heard());
    }

    #[test]
    fn h02_any_bytes_end_a_handshake_or_wait(
        bytes in prop::collection::vec(any::<u8>(), 0..500),
        is_client: bool,
        piece in 1_usize..600,
    ) {
        let mut ends = End::pair(&sides());
        let end = &mut ends[usize::from(!is_client)];
        end.receive(&[&[0x16, 3, 3][..], &bytes].concat(), piece);
        prop_assert!(end.got.is_empty() && !end.tls.is_ready());
    }
}
