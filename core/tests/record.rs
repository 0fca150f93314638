//! Records of connections, and their replay.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::{Net, Pair, Peer, bytes, raw_call, skewed};
use proptest::prelude::*;
use ringcall_core::frame::{
    CancelReason, Extension, ExtensionWriter, ReplyHeader, request_flags, tag,
};
use ringcall_core::record::{
    Input, Keep, Output, Record, RecordError, RecordSettings, Replay, ReplayError, TooLate,
};
use ringcall_core::{
    CloseReason, Config, Entropy, Expected, Extended, External, Identity, Instant, Memory,
    MemoryLimits, Object, ObjectError, Side, SplitMix64, Status,
};

/// More than any connection here holds.
const HELD_MAX: usize = 256 << 20;

const MANY: Keep = Keep::First(64 << 20);

// ---- traffic ----

/// A file that is read and written somewhere.
#[derive(Debug)]
struct Disk;

impl Object for Disk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        if offset > 150_000 {
            return Err(ObjectError::Os(5));
        }
        into.fill(7);
        Ok(into.len())
    }

    fn write_at(&self, offset: u64, _: &[u8]) -> Result<(), ObjectError> {
        if offset > 150_000 { Err(ObjectError::NoRoom) } else { Ok(()) }
    }
}

/// Two sides that share what a shard has, and a network, as a seed will have them.
fn pair(rng: &mut SplitMix64) -> Pair {
    let config = |rng: &mut SplitMix64| {
        Config::new()
            .in_flight_max(1 + rng.below(40) as u32)
            .message_bytes_max(1 << 20)
            .cut_bytes(1024 << rng.below(9))
            .ping_interval_min(Duration::ZERO)
            .first_generation(0x7fff_ffff - rng.below(3) as u32)
    };
    let (client, server) = (config(rng), config(rng));
    let mut pair = Pair::with(rng.next_u64(), client.clone(), server.clone());
    if rng.below(2) == 0 {
        let mut limits = MemoryLimits::default();
        limits.landing_bytes = 1 << (12 + rng.below(8));
        limits.lent_bytes = 1 << (12 + rng.below(12));
        let memory = Memory::new(limits);
        pair.client = Peer::with_memory(Side::Client, client, memory.clone(), pair.now);
        pair.server = Peer::with_memory(Side::Server, server, memory, pair.now);
    }
    pair.net = Net {
        split_max: [usize::MAX, 1 + rng.below(100_000) as usize][rng.below(2) as usize],
        delay_max: Duration::from_micros(rng.below(3000)),
        send_max: [usize::MAX, 1 + rng.below(10_000) as usize][rng.below(2) as usize],
        aligned: rng.below(4) > 0,
    };
    pair
}

/// Some traffic of every sort, and an end.
fn traffic(pair: &mut Pair, rng: &mut SplitMix64) {
    pair.server.connection.drain_at(pair.now + Duration::from_secs(rng.below(60)));
    pair.run_for(Duration::from_millis(20));
    let mut ids = Vec::new();
    for ticket in 0..60 {
        let now = pair.now;
        let peer = if rng.below(4) > 0 { &mut pair.client } else { &mut pair.server };
        peer.echo = rng.below(8) > 0;
        peer.hold_items = rng.below(4) == 0;
        let mut call = raw_call(now);
        call.deadline = now + Duration::from_micros(1 + skewed(rng, 22));
        call.flags =
            [0, 0, 0, request_flags::ONE_WAY, request_flags::ITEMS_IN, request_flags::ITEMS_OUT]
                [rng.below(6) as usize];
        let made = peer.connection.call(now, &call, &message(rng), ticket);
        ids.extend(made.map(|id| (id, ticket % 4 > 0, call.flags)));
        match rng.below(8) {
            0 => peer.connection.ping(now, [ticket as u8; 16]),
            1 => peer.consume(),
            2 => peer.connection.set_limits(1 + rng.below(40) as u32, 1 << 20),
            3 => {
                let at = rng.below(ids.len().max(1) as u64) as usize;
                if let Some((id, true, _)) = ids.get(at) {
                    let _ = peer.connection.cancel(now, *id, CancelReason::Dropped);
                }
            }
            4 => {
                let size = skewed(rng, 18) as usize;
                if let Some((id, true, request_flags::ITEMS_IN)) = ids.last() {
                    let _ = peer.item(now, *id, &bytes(ticket, size));
                    peer.connection.end_items(now, *id);
                }
            }
            _ => pair.run_for(Duration::from_micros(skewed(rng, 20))),
        }
        for peer in [&mut pair.client, &mut pair.server] {
            serve(peer, pair.now, rng);
        }
    }
    match rng.below(4) {
        0 => pair.server.connection.drain(pair.now),
        1 => pair.client.connection.close(pair.now, CloseReason::Local),
        2 => pair.server.connection.handle_input_end(pair.now),
        _ => pair.client.connection.go_away(pair.now, true),
    }
    pair.run_for(Duration::from_secs(30));
    pair.client.connection.handle_closed(pair.now, CloseReason::PeerClosed);
    pair.client.drain(pair.now);
}

/// Answers what was not answered at once.
fn serve(peer: &mut Peer, now: Instant, rng: &mut SplitMix64) {
    for request in std::mem::take(&mut peer.requests) {
        let (id, header) = (request.id, ReplyHeader::new(Status::OK));
        match rng.below(6) {
            0 => peer.connection.refuse_expired(now, id),
            1 => {
                peer.connection.watch_deadline(id, request.deadline);
                peer.requests.push(request);
            }
            2 if !id.is_one_way() => {
                let _ = peer.begin(now, id);
                let size = skewed(rng, 12) as usize;
                while rng.below(8) > 0 && peer.item(now, id, &bytes(1, size)).is_ok() {}
                let _ = peer.connection.reply(now, id, header, &message(rng));
            }
            _ => {
                let _ = peer.connection.reply(now, id, header, &message(rng));
            }
        }
    }
}

/// A message with or without metadata, of which the end may lie in a file.
fn message(rng: &mut SplitMix64) -> Extended<Body> {
    let mut extensions = ExtensionWriter::new();
    if rng.below(3) == 0 {
        for (tag, value) in [(tag::METADATA, &b"\x06secretSECRET"[..]), (tag::CREDENTIALS, SECRET)]
        {
            assert!(extensions.push(Extension { tag, critical: false, value }));
        }
    }
    let mut body = SECRET.repeat(1 + skewed(rng, 12) as usize);
    body.truncate(skewed(rng, 20) as usize);
    let file = (rng.below(8) == 0).then(|| skewed(rng, 20) as usize);
    let landing = rng.below(8) == 0;
    Extended {
        payload: Body { bytes: body.into(), file, landing },
        extensions: extensions.finish(),
    }
}

const SECRET: &[u8] = b"SECRET";

struct Body {
    bytes: Bytes,
    file: Option<usize>,
    landing: bool,
}

impl ringcall_core::Payload for Body {
    fn encode(
        &self,
        codec: ringcall_core::Codec,
        signature: u64,
        out: &mut ringcall_core::Writer,
    ) -> Result<(), ringcall_core::EncodeError> {
        match self.file {
            None => self.bytes.encode(codec, signature, out),
            Some(len) => {
                out.put(&self.bytes)?;
                Ok(out.attach_beside(External::new(Arc::new(Disk), 0, len).into())?)
            }
        }
    }

    fn landing(&self) -> Option<External> {
        self.landing.then(|| External::new(Arc::new(Disk), 0, 200_000))
    }
}

/// What a seed's connections did, recorded.
fn recorded(seed: u64, settings: RecordSettings) -> [Vec<u8>; 2] {
    let mut rng = SplitMix64::new(seed);
    let mut pair = pair(&mut rng);
    for peer in [&mut pair.client, &mut pair.server] {
        peer.connection.record(settings).expect("it is new");
    }
    pair.client.connection.present(SECRET).expect("they are short");
    let identity = Identity::new("a1").expect("it is short");
    pair.server.connection.introduce(&identity).expect("there is room");
    pair.client.connection.expect_peer(Expected::new(identity).required());
    traffic(&mut pair, &mut rng);
    [pair.client, pair.server].map(|peer| {
        let recorder = peer.connection.recorder().expect("it was recorded");
        recorder.to_bytes("a note")
    })
}

/// Replays a record to its end; how many steps it has, and the digest of what came out.
fn replay(record: &[u8]) -> Result<(u64, u64), ReplayError> {
    let record = Record::parse(record)?;
    let mut replay = Replay::new(&record, HELD_MAX)?;
    let mut steps = 0;
    for step in record.steps() {
        replay.step(&step?)?;
        steps += 1;
    }
    Ok((steps, replay.digest()))
}

fn settings(hides_bodies: bool) -> RecordSettings {
    let settings = RecordSettings::new(MANY);
    if hides_bodies { settings } else { settings.with_bodies() }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

// ---- tests ----

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_recorded_is_replayed_bit_by_bit(seed: u64, hides_bodies: bool) {
        for record in recorded(seed, settings(hides_bodies)) {
            let (steps, digest) = replay(&record).unwrap();
            prop_assert!(steps > 100, "{steps}");
            prop_assert_eq!(replay(&record), Ok((steps, digest)));
        }
    }

    #[test]
    fn a_record_that_was_changed_anywhere_is_noticed(seed: u64, at: prop::sample::Index, bit in 0..8_u32) {
        let [mut record, _] = recorded(seed % 4, settings(false));
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        prop_assert!(replay(&record).is_err(), "byte {at} of {}", record.len());
    }

    #[test]
    fn a_record_that_is_cut_off_is_replayed_to_there(seed: u64, at: prop::sample::Index) {
        let [record, _] = recorded(seed % 4, settings(true));
        let (all, _) = replay(&record).unwrap();
        match replay(&record[..at.index(record.len())]) {
            Ok((steps, _)) => prop_assert!(steps < all),
            Err(ReplayError::Record(RecordError::Truncated(step))) => prop_assert!(step < all),
            Err(ReplayError::Record(RecordError::NotARecord | RecordError::Head)) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
        prop_assert!(replay(&bytes).is_err());
    }
}

#[test]
fn bodies_metadata_and_credentials_are_hidden_unless_they_are_wanted() {
    for seed in 0..8 {
        for record in recorded(seed, settings(true)) {
            assert!(!contains(&record, SECRET), "{seed}");
        }
        for keep in [MANY, Keep::Last(1 << 20)] {
            for record in recorded(seed, RecordSettings::new(keep)) {
                assert!(!contains(&record, SECRET), "{seed}");
            }
        }
    }
    let kept = recorded(3, settings(false));
    assert!(kept.iter().any(|record| contains(record, SECRET)));
}

#[test]
fn credentials_are_never_in_a_record() {
    let mut pair = Pair::new(1);
    for peer in [&mut pair.client, &mut pair.server] {
        peer.connection.record(settings(false)).unwrap();
    }
    pair.client.connection.present(SECRET).unwrap();
    let mut extensions = ExtensionWriter::new();
    assert!(extensions.push(Extension { tag: tag::CREDENTIALS, critical: false, value: SECRET }));
    pair.run();
    let payload =
        Extended { payload: Bytes::from_static(b"open"), extensions: extensions.finish() };
    pair.client.connection.call(pair.now, &raw_call(pair.now), &payload, 0).unwrap();
    pair.run();
    assert_eq!(pair.server.connection.credentials(), Some(SECRET));
    for peer in [pair.client, pair.server] {
        let record = peer.connection.recorder().unwrap().to_bytes("");
        assert!(contains(&record, b"open") && !contains(&record, SECRET));
        replay(&record).unwrap();
    }
}

#[test]
fn recording_changes_nothing() {
    for seed in 0..8 {
        let run = |is_recorded: bool| {
            let mut rng = SplitMix64::new(seed);
            let mut pair = pair(&mut rng);
            if is_recorded {
                pair.server.connection.record(settings(true)).unwrap();
            }
            traffic(&mut pair, &mut rng);
            (format!("{:?}", pair.client.done), *pair.server.connection.counters())
        };
        assert_eq!(run(false), run(true), "{seed}");
    }
}

#[test]
fn a_record_stops_when_its_bytes_are_used_up() {
    let settings = RecordSettings::new(Keep::First(3000));
    let mut pair = Pair::new(1);
    pair.client.connection.record(settings).unwrap();
    pair.run();
    for ticket in 0..100 {
        pair.call(ticket, b"hello").unwrap();
        pair.run();
    }
    let recorder = pair.client.connection.recorder().unwrap();
    assert!(recorder.is_full() && recorder.bytes() <= 3000);
    let bytes = recorder.to_bytes("");
    assert!(Record::parse(&bytes).unwrap().is_full);
    let (steps, _) = replay(&bytes).unwrap();
    assert_eq!(steps, recorder.steps());
    assert!(pair.client.connection.stop_recording().is_some_and(|it| it.is_full()));
    assert!(pair.client.connection.recorder().is_none());
}

#[test]
fn the_last_bytes_of_a_connection_are_kept_and_can_be_looked_at() {
    let settings = RecordSettings::new(Keep::Last(20_000));
    let mut pair = Pair::new(1);
    pair.client.connection.record(settings).unwrap();
    pair.run();
    for ticket in 0..2000 {
        pair.call(ticket, &bytes(ticket, 50)).unwrap();
        pair.run();
    }
    let recorder = pair.client.connection.recorder().unwrap();
    assert!((9_000..=20_000).contains(&recorder.bytes()), "{}", recorder.bytes());
    let bytes = recorder.to_bytes("");
    let record = Record::parse(&bytes).unwrap();
    assert_eq!(Replay::new(&record, HELD_MAX).unwrap_err(), ReplayError::NotWhole);
    let steps: Vec<_> = record.steps().map(|step| step.unwrap()).collect();
    assert!(record.first > 0 && steps[0].number == record.first);
    assert_eq!(steps.last().unwrap().number + 1, recorder.steps());
    assert_eq!(steps.last().unwrap().now, pair.now);
    let sent = steps.iter().filter_map(|step| match step.input {
        Input::PollTransmit { bytes, sent, .. } => Some((bytes, sent.unwrap().len())),
        _ => None,
    });
    assert!(sent.clone().any(|(bytes, _)| bytes > 0) && sent.clone().all(|(a, b)| a == b));
}

#[test]
fn g07_what_is_said_of_identities_is_replayed() {
    let mut pair = Pair::new(1);
    for peer in [&mut pair.client, &mut pair.server] {
        peer.connection.record(settings(true)).unwrap();
    }
    let [a, b] = ["a1", "b7"].map(|text| Identity::new(text).unwrap());
    pair.client.connection.expect_peer(Expected::new(a));
    pair.server.connection.introduce(&b).unwrap();
    pair.run();
    assert_eq!(pair.client.closed, Some(CloseReason::WrongInstance));
    for peer in [pair.client, pair.server] {
        replay(&peer.connection.recorder().unwrap().to_bytes("")).unwrap();
    }
    let mut pair = Pair::new(1);
    pair.server.connection.introduce(&b).unwrap();
    assert_eq!(pair.server.connection.record(settings(true)), Err(TooLate));
}

#[test]
fn only_a_connection_at_its_beginning_is_recorded() {
    let mut pair = Pair::new(1).open();
    assert_eq!(pair.client.connection.record(settings(true)), Err(TooLate));
    let mut pair = Pair::new(1);
    pair.client.connection.present(SECRET).unwrap();
    assert_eq!(pair.client.connection.record(settings(true)), Err(TooLate));
    let mut pair = Pair::new(1);
    pair.client.connection.record(settings(true)).unwrap();
    assert_eq!(pair.client.connection.record(settings(true)), Err(TooLate));
}

#[test]
fn a_replay_shows_what_came_out() {
    let mut pair = Pair::new(1);
    pair.server.connection.record(settings(false)).unwrap();
    pair.run();
    pair.call(0, b"hello").unwrap();
    pair.run();
    let bytes = pair.server.connection.recorder().unwrap().to_bytes("what somebody wrote");
    let record = Record::parse(&bytes).unwrap();
    assert_eq!((record.note, record.side), ("what somebody wrote", Side::Server));
    let mut replay = Replay::new(&record, HELD_MAX).unwrap();
    let mut bodies = Vec::new();
    for step in record.steps() {
        let output = replay.step(&step.unwrap()).unwrap();
        if let Output::Event(Some(ringcall_core::Event::Request(request))) = output {
            bodies.push(request.body.to_vec());
            assert_eq!(replay.snapshot().calls_served, 1);
        }
    }
    assert_eq!(bodies, [b"hello"]);
    assert_eq!(replay.snapshot(), pair.server.connection.snapshot());
}

#[test]
fn a_record_of_something_else_says_so() {
    let parse = |bytes: &[u8]| Record::parse(bytes).unwrap_err();
    assert_eq!(parse(b"GET / HTTP/1.1"), RecordError::NotARecord);
    let [mut record, _] = recorded(1, settings(true));
    record[7] = 2;
    assert_eq!(parse(&record), RecordError::Version(2));
}

#[test]
fn items_that_are_taken_several_at_a_time_are_replayed() {
    let mut pair = Pair::new(1);
    pair.server.connection.record(settings(false)).unwrap();
    pair.server.echo = false;
    pair.run();
    let call = pair.call_with(0, b"", |call| call.flags = request_flags::ITEMS_IN).unwrap();
    pair.run();
    let (now, stream) = (pair.now, pair.server.requests[0].id.into());
    for n in 0..5 {
        pair.client.item(now, call, &[n; 40]).unwrap();
    }
    let sent = pair.client.transmit(now, usize::MAX);
    // As it lies in what the server receives, modulo 16.
    let mut buffer = pair.server.memory.pool().take(sent.len());
    buffer.extend_from_slice(&sent);
    pair.server.connection.handle_received(now, buffer.freeze());
    let first = pair.server.connection.poll_event(now);
    assert!(matches!(first, Some(ringcall_core::Event::Item(..))), "{first:?}");
    let mut taken = Vec::new();
    pair.server.connection.poll_items(now, stream, 3, |item| taken.push(item.body[0]));
    assert_eq!(taken, [1, 2, 3]);
    let record = pair.server.connection.recorder().unwrap().to_bytes("");
    replay(&record).unwrap();
    let kinds = kinds(&record);
    assert_eq!(kinds.get("PollItems"), Some(&1));
}

/// How often each kind of input is in a record.
fn kinds(record: &[u8]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for step in Record::parse(record).unwrap().steps() {
        let step = step.unwrap();
        let name = format!("{:?}", step.input);
        let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
        *kinds.entry(name).or_default() += 1;
        if let Some(state) = step.memory {
            *kinds.entry(format!("memory, hoarded: {}", state.is_hoarded)).or_default() += 1;
        }
    }
    kinds
}

#[test]
fn the_traffic_of_these_tests_has_inputs_of_every_kind() {
    let mut all = BTreeMap::new();
    for seed in 0..100 {
        for record in recorded(seed, settings(true)) {
            for (kind, n) in kinds(&record) {
                *all.entry(kind).or_insert(0) += n;
            }
        }
    }
    let expected = "Received Landed InputEnd Closed Transmitted Unreadable Written Timeout PollEvent \
        PollTransmit BeginLanding PollWrite Call Cancel Reply BeginItems SendItem EndItems Consumed \
        RefuseExpired WatchDeadline Ping GoAway Drain DrainAt SetLimits Present Introduce \
        ExpectPeer Close";
    let missing: Vec<_> =
        expected.split_whitespace().filter(|kind| !all.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "{missing:?} of {all:#?}");
    assert!(
        all.contains_key("memory, hoarded: true") && all.contains_key("memory, hoarded: false")
    );
}
