//! What is sent, and how a reply is compared with it. The same for all subjects, which turn it into
//! messages of their own.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::cases::Message;
use crate::meter::mismatch;

/// A nested message with numbers, texts and lists, of about 1 KiB.
#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) account: String,
    pub(crate) symbol: String,
    pub(crate) is_buy: bool,
    pub(crate) price: f64,
    pub(crate) legs: Vec<Leg>,
    pub(crate) notes: Vec<String>,
}

#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) symbol: String,
    pub(crate) venue: String,
    pub(crate) ratio: i32,
    pub(crate) price: f64,
    pub(crate) size: i64,
}

/// A caller's messages, in a subject's own types. It sends them in turns.
pub(crate) enum Payload<B, O> {
    Blobs([B; 2]),
    Orders([O; 2]),
}

impl<B, O> Payload<B, O> {
    /// Those of one caller, unlike those of all others.
    pub(crate) fn new(
        message: Message,
        caller: usize,
        blob: impl Fn(Vec<u8>) -> B,
        order: impl Fn(Order) -> O,
    ) -> Payload<B, O> {
        let numbers = [caller * 2, caller * 2 + 1];
        match message {
            Message::Blob(len) => Payload::Blobs(numbers.map(|number| blob(bytes(len, number)))),
            Message::Order => Payload::Orders(numbers.map(|number| order(make_order(number)))),
        }
    }
}

/// Bytes that differ from those of other numbers in every word.
pub(crate) fn bytes(len: usize, number: usize) -> Vec<u8> {
    let mut state = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn make_order(number: usize) -> Order {
    let leg = |index: usize| Leg {
        symbol: format!("LEG{index}"),
        venue: format!("venue-{number}-{index}"),
        ratio: index as i32 + 1,
        price: number as f64 + index as f64 / 8.0,
        size: (number * 100 + index) as i64,
    };
    Order {
        id: number as i64,
        account: format!("account-{number:08}"),
        symbol: format!("S{number}"),
        is_buy: number.is_multiple_of(2),
        price: number as f64 * 0.25,
        legs: (0..14).map(leg).collect(),
        notes: vec!["good till cancelled".into(), format!("from desk {number}")],
    }
}

/// Above this a comparison of all bytes would take a good part of the time of a call.
pub(crate) const COMPARED_WHOLE_MAX: usize = 8 << 10;
const PROBE_EVERY: usize = 4 << 10;

/// Whether the bytes of a reply are those that were sent: all of them, or 16 in each 4 KiB of a large
/// one.
pub(crate) fn compare_bytes(reply: &[u8], sent: &[u8]) -> Result<()> {
    let is_same = if reply.len() != sent.len() {
        false
    } else if sent.len() <= COMPARED_WHOLE_MAX {
        reply == sent
    } else {
        reply.chunks(PROBE_EVERY).zip(sent.chunks(PROBE_EVERY)).all(|(reply, sent)| {
            reply.last_chunk::<16>() == sent.last_chunk::<16>() && reply.first() == sent.first()
        })
    };
    if is_same { Ok(()) } else { Err(mismatch()) }
}

pub(crate) fn compare<T: PartialEq>(reply: &T, sent: &T) -> Result<()> {
    if reply == sent { Ok(()) } else { Err(mismatch()) }
}
