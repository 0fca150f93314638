//! The codec: encoding, checking and reading messages, and what others need for the same.

use ringcall::{Message, View};
use ringcall_buf::{Arena, BLOCK_BYTES, Pool};
use ringcall_core::Chunk;
use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use serde::{Deserialize, Serialize};

/// A small message: its archive has 104 bytes with four levels.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// A number.
    pub id: u64,
    /// A text that fits its own pointer.
    pub symbol: String,
    /// A short list.
    pub levels: Vec<Level>,
    /// Something that is not there.
    pub note: Option<String>,
}

/// A part of an [`Order`].
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// At which price.
    pub price: f64,
    /// How much.
    pub size: u32,
}

/// A larger message: its archive has 65 bytes a row.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a [`Book`].
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// A number.
    pub id: u64,
    /// The highest price offered.
    pub bid: f64,
    /// The lowest price asked.
    pub ask: f64,
    /// How much.
    pub size: u64,
    /// A text that needs memory of its own.
    pub symbol: String,
    /// A smaller number.
    pub venue: u32,
    /// The smallest one.
    pub is_open: bool,
}

/// An order of 104 bytes.
#[must_use]
pub fn order() -> Order {
    let levels = (1..=4).map(|n| Level { price: f64::from(n) * 0.5, size: n }).collect();
    Order { id: 7, symbol: "ABC".to_owned(), levels, note: None }
}

/// A book of a thousand rows and 65 KB.
#[must_use]
pub fn book() -> Book {
    let row = |n: u32| Row {
        id: u64::from(n),
        bid: f64::from(n) * 0.5,
        ask: f64::from(n) * 0.5 + 0.25,
        size: u64::from(n) * 100,
        symbol: format!("XNYS:SYMBOL-{n:05}"),
        venue: n % 10,
        is_open: n.is_multiple_of(2),
    };
    Book { rows: (0..1000).map(row).collect() }
}

/// A message of which something can be read that depends on all of its archive.
pub trait Summed: Message + Serialize + for<'de> Deserialize<'de> {
    /// The sum of an owned message.
    fn sum(&self) -> u64;
    /// The same of a received one.
    fn sum_received(received: &Self::Received<Chunk>) -> u64;
    /// Its archive in memory of its own, in rkyv's ordinary way.
    fn to_bytes(&self) -> AlignedVec;
}

impl Summed for Order {
    fn sum(&self) -> u64 {
        self.levels.iter().map(|level| u64::from(level.size)).sum()
    }

    #[inline]
    fn sum_received(order: &View<Order>) -> u64 {
        order.levels.iter().map(|level| u64::from(level.size.to_native())).sum()
    }

    fn to_bytes(&self) -> AlignedVec {
        rkyv::to_bytes::<Failure>(self).expect("it can be archived")
    }
}

impl Summed for Book {
    fn sum(&self) -> u64 {
        self.rows.iter().map(|row| row.size + row.symbol.len() as u64).sum()
    }

    #[inline]
    fn sum_received(book: &View<Book>) -> u64 {
        book.rows.iter().map(|row| row.size.to_native() + row.symbol.len() as u64).sum()
    }

    fn to_bytes(&self) -> AlignedVec {
        rkyv::to_bytes::<Failure>(self).expect("it can be archived")
    }
}

/// A message, and memory to send and receive it.
#[derive(Debug)]
pub struct Desk<M> {
    message: M,
    outgoing: Arena,
    received: Chunk,
    messagepack: Vec<u8>,
    postcard: Vec<u8>,
    scratch: Vec<u8>,
}

impl<M: Summed> Desk<M> {
    /// Everything warm.
    #[must_use]
    pub fn new(message: M) -> Desk<M> {
        let pool = Pool::new(1 << 20);
        let messagepack = rmp_serde::to_vec(&message).expect("it can be encoded");
        let postcard = postcard::to_stdvec(&message).expect("it can be encoded");
        let scratch = Vec::with_capacity(2 * messagepack.len());
        let outgoing = Arena::new(&pool, BLOCK_BYTES);
        let received = pool.copy(&message.to_bytes());
        let mut desk = Desk { message, outgoing, received, messagepack, postcard, scratch };
        let _warm = desk.encode();
        desk
    }

    /// The lengths of the message as rkyv, MessagePack and postcard.
    #[must_use]
    pub fn lengths(&self) -> [usize; 3] {
        [self.received.len(), self.messagepack.len(), self.postcard.len()]
    }

    /// Encodes into outgoing memory, as a call does.
    #[inline]
    pub fn encode(&mut self) -> Chunk {
        let out = self.outgoing.begin(0, 4 << 20);
        self.message.encode(out).expect("there is room");
        self.outgoing.finish()
    }

    /// Encodes into a new vector, in rkyv's ordinary way.
    #[inline]
    pub fn encode_to_bytes(&mut self) -> usize {
        self.message.to_bytes().len()
    }

    /// Encodes as MessagePack, into a vector that is used again.
    #[inline]
    pub fn encode_messagepack(&mut self) -> usize {
        self.scratch.clear();
        rmp_serde::encode::write(&mut self.scratch, &self.message).expect("it can be encoded");
        self.scratch.len()
    }

    /// Encodes as postcard, into a vector that is used again.
    #[inline]
    pub fn encode_postcard(&mut self) -> usize {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        self.scratch = postcard::to_extend(&self.message, scratch).expect("it can be encoded");
        self.scratch.len()
    }

    /// Checks what was received.
    #[inline]
    #[must_use]
    pub fn check(&self) -> M::Received<Chunk> {
        M::receive(self.received.clone()).expect("it is valid")
    }

    /// Reads what was checked: all of it.
    #[inline]
    #[must_use]
    pub fn read(view: &M::Received<Chunk>) -> u64 {
        M::sum_received(view)
    }

    /// Makes an owned message of what was received.
    #[inline]
    #[must_use]
    pub fn check_and_own(&self) -> M {
        M::into_owned(self.check())
    }

    /// Decodes MessagePack, which makes an owned message.
    #[inline]
    #[must_use]
    pub fn decode_messagepack(&self) -> M {
        rmp_serde::from_slice(&self.messagepack).expect("it is valid")
    }

    /// Decodes postcard, which makes an owned message.
    #[inline]
    #[must_use]
    pub fn decode_postcard(&self) -> M {
        postcard::from_bytes(&self.postcard).expect("it is valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything_agrees<M: Summed + PartialEq + std::fmt::Debug>(message: M, len: usize) {
        let sum = message.sum();
        let mut desk = Desk::new(message);
        let [rkyv, messagepack, postcard] = desk.lengths();
        assert_eq!(rkyv, len);
        for _ in 0..3 {
            assert_eq!(desk.encode()[..], desk.received[..]);
        }
        assert_eq!(desk.encode_to_bytes(), rkyv);
        assert_eq!(desk.encode_messagepack(), messagepack);
        assert_eq!(desk.scratch, desk.messagepack);
        assert_eq!(desk.encode_postcard(), postcard);
        assert_eq!(desk.scratch, desk.postcard);
        assert_eq!(Desk::<M>::read(&desk.check()), sum);
        assert_eq!(desk.check_and_own(), desk.message);
        assert_eq!(desk.decode_messagepack(), desk.message);
        assert_eq!(desk.decode_postcard(), desk.message);
    }

    #[test]
    fn a_small_message() {
        everything_agrees(order(), 104);
    }

    #[test]
    fn a_large_message() {
        everything_agrees(book(), 65_008);
    }
}
