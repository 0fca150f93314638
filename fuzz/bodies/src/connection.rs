//! Two connections, and whatever applications, networks and clocks may do to them.

mod ledger;
mod pair;

use arbitrary::{Result, Unstructured};
use ringcall_core::frame::{CancelReason, Kind, request_flags, tag};
use ringcall_core::{CloseReason, MessageId, Side, Status, TransportError};

use crate::harness::raw::{Frame, plain};
use pair::{Asking, Pair};

/// How many operations a run has at most: one has a bounded size, so this bounds its time.
const OPERATIONS_MAX: usize = 300;

/// Reads the bytes as operations on a pair of connections, and does them. As long as nothing is put
/// between what the two send, both must get what the other sent, and nothing else; after that, too, each
/// call ends once, limits hold, and nothing is left at the end.
///
/// # Panics
/// When that is not so.
pub fn connection(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(options) = input.arbitrary::<u8>() else { return };
    let mut pair = Pair::new(options);
    if options & 1 == 0 {
        pair.exchange();
    }
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || operate(&mut pair, &mut input).is_err() {
            break;
        }
        pair.check();
    }
    if pair.is_orderly() {
        pair.come_to_rest();
    }
    pair.end();
}

/// Lengths at which something changes, and small ones.
const LENGTHS: [usize; 16] = [
    0, 1, 15, 16, 17, 100, 1000, 4080, 4097, 16_336, 16_385, 33_000, 65_536, 70_000, 99_999,
    100_001,
];

fn length(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(*input.choose(&LENGTHS)?)
}

/// How much moves at once: a few bytes, some, or all.
fn amount(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(match input.arbitrary::<u8>()? {
        few @ 0..=63 => 1 + usize::from(few),
        some @ 64..=127 => usize::from(some) * 300,
        _ => usize::MAX,
    })
}

fn operate(pair: &mut Pair, input: &mut Unstructured<'_>) -> Result<()> {
    let byte = input.arbitrary::<u8>()?;
    let side = usize::from(byte >> 7);
    let any = input.arbitrary::<u8>()?;
    if byte >> 5 & 3 == 3 {
        return operate_streams(pair, side, byte & 31, any, input);
    }
    match byte & 31 {
        0..=4 => pair.ask(side, asking(any, input)?),
        5..=7 => {
            let status = match any >> 6 {
                0 | 1 => Status::OK,
                2 => Status::APPLICATION_ERROR,
                _ => Status::OVERLOADED,
            };
            let len = if status == Status::OVERLOADED { 0 } else { length(input)? };
            pair.answer(side, usize::from(any & 63), status, len);
        }
        8 => {
            let reasons = [CancelReason::Dropped, CancelReason::Expired, CancelReason::Superseded];
            pair.cancel(side, usize::from(any >> 2), reasons[usize::from(any % 3)]);
        }
        9..=12 => pair.transmit(side, amount(input)?, any & 1 == 0),
        13..=17 => pair.deliver(side, amount(input)?, any & 3 > 0),
        18 => pair.exchange(),
        19 => pair.pass(1 << (any % 15)),
        20 => pair.acknowledge(side),
        21 => pair.ping(side, any),
        22 => pair.set_limits(side, 1 + u32::from(any % 20), length(input)?.max(1)),
        23 => pair.go_away(side, any % 2 == 0),
        24 if any > 250 => pair.close(side),
        25 if any > 250 => pair.lose(side, CloseReason::Transport(TransportError::Reset)),
        26 if any > 200 => pair.end_input(side),
        27 if any > 100 => {
            let len = input.int_in_range(0..=100)?;
            pair.inject(side, input.bytes(len)?);
        }
        28 | 29 if any > 30 => {
            let frame = frame(any, input)?;
            pair.inject(side, &frame.bytes());
        }
        30 if any > 100 => pair.damage(side, usize::from(any % 100), input.arbitrary()?),
        31 if any > 100 => pair.take_at_most(side, [0, 1, 2, 5, usize::MAX][usize::from(any % 5)]),
        _ => pair.poll(side),
    }
    Ok(())
}

/// What applications do with items.
fn operate_streams(
    pair: &mut Pair,
    side: usize,
    what: u8,
    any: u8,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    let index = usize::from(any);
    match what {
        0..=3 => {
            let streams = [request_flags::ITEMS_IN, request_flags::ITEMS_OUT, 6][index % 3];
            let asking = asking(any, input)?;
            pair.ask(side, Asking { streams, one_way: false, prompt: false, ..asking });
        }
        4..=7 => pair.begin_items(side, index),
        8..=21 => pair.send_item(side, index, length(input)?),
        22 | 23 => pair.end_items(side, index),
        24 | 25 => pair.hold(side, any & 1 == 0),
        _ => pair.consume(side, index % 8),
    }
    Ok(())
}

fn asking(any: u8, input: &mut Unstructured<'_>) -> Result<Asking> {
    Ok(Asking {
        len: length(input)?,
        one_way: any & 7 == 0,
        timeout_ms: [1000, 1000, 50, 1][usize::from(any >> 6)],
        watched: any & 8 == 0,
        prompt: any & 16 == 0,
        streams: 0,
    })
}

/// A frame that somebody else might send who knows the protocol.
fn frame(any: u8, input: &mut Unstructured<'_>) -> Result<Frame> {
    let kind = Kind::ALL[usize::from(any) % Kind::ALL.len()];
    let bits = input.arbitrary::<u8>()?;
    let side = if bits & 1 == 0 { Side::Client } else { Side::Server };
    let id = MessageId::new(side, u32::from(bits >> 1 & 3), u32::from(bits >> 3 & 15));
    let mut frame = plain(kind);
    let is_about_a_call = kind.has_body() || kind == Kind::Cancel || kind == Kind::Credit;
    if is_about_a_call != (bits == 255) {
        frame = frame.id(id.to_wire());
    }
    let at = usize::from(input.arbitrary::<u8>()?) % (kind.fixed_len() - 7);
    let word = input.arbitrary::<[u8; 4]>()?;
    frame = frame.patch(at, &word);
    if kind == Kind::Request && bits & 128 == 0 {
        frame = frame.deadline(1_000_000).flags(word[0] & (request_flags::ONE_WAY | 6));
    }
    if kind.has_body() {
        let len = length(input)?.min(20_000);
        frame = frame.body(&vec![word[0]; len]);
        if bits & 64 != 0 {
            frame = frame.cut(len as u64 + u64::from(word[1]) * 16);
        }
    }
    if any > 240 {
        let critical = if word[3] & 1 == 0 { 0 } else { tag::CRITICAL };
        frame = frame.tlv(u16::from(word[2] % 16) | critical, &word);
    }
    Ok(frame)
}
