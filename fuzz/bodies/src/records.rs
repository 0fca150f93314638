//! Bytes as records of connections.

use std::cell::OnceCell;

use ringcall_core::record::{Keep, Record, RecordError, RecordSettings, Replay, ReplayError};

use crate::harness::Pair;

/// More than a connection here may hold.
const HELD_MAX: usize = 8 << 20;
const STEPS_MAX: usize = 2000;

thread_local! {
    /// A record without steps.
    static HEAD: OnceCell<Vec<u8>> = const { OnceCell::new() };
}

/// Reads the bytes as a record, and as the steps of one, each behind a byte that says how long it is; and does what
/// they say.
///
/// # Panics
/// When steps are read behind an error, or their numbers are not in order.
pub fn records(data: &[u8]) {
    replay(data);
    let mut record = HEAD.with(|head| head.get_or_init(head_of_a_server).clone());
    let mut rest = data;
    for number in 0.. {
        let Some((&len, behind)) = rest.split_first() else { break };
        let (step, behind) = behind.split_at(behind.len().min(usize::from(len)));
        // Nobody knows what came out.
        seal(&mut record, number, &[step, &[0; 4]].concat());
        rest = behind;
    }
    replay(&record);
}

/// Appends a step as `docs/REPLAY.md` says.
fn seal(record: &mut Vec<u8>, number: u64, step: &[u8]) {
    let mut len = step.len();
    while len >= 0x80 {
        record.push(len as u8 | 0x80);
        len >>= 7;
    }
    record.push(len as u8);
    record.extend_from_slice(step);
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let place = (0xcbf2_9ce4_8422_2325 ^ number).wrapping_mul(PRIME);
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = step.iter().fold(place ^ (place >> 29), mix);
    record.extend_from_slice(&((hash ^ (hash >> 32)) as u32).to_le_bytes());
}

fn replay(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else { return };
    let mut replay = Replay::new(&record, HELD_MAX).ok();
    let (mut next, mut error) = (record.first, None);
    for step in record.steps().take(STEPS_MAX) {
        assert_eq!(error, None, "an error is the last");
        match step {
            Ok(step) => {
                assert_eq!(step.number, next);
                next += 1;
                let done = replay.as_mut().map(|replay| replay.step(&step));
                if let Some(Err(ReplayError::Impossible(_) | ReplayError::TooMuch(_))) = done {
                    replay = None;
                }
            }
            Err(end) => {
                assert!(!matches!(end, RecordError::NotARecord | RecordError::Head), "{end}");
                error = Some(end);
            }
        }
    }
}

fn head_of_a_server() -> Vec<u8> {
    let mut pair = Pair::new(7);
    let settings = RecordSettings::new(Keep::First(1 << 20)).with_bodies();
    pair.server.connection.record(settings).expect("it is new");
    pair.server.connection.recorder().expect("it is recorded").to_bytes("")
}
