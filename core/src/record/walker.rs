//! Where in a stream of frames bytes are, and which of them are the application's.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;

use super::pieces::Pieces;
use super::values::numbered;
use crate::frame::{Head, Kind, MAGIC, PREFACE_LEN, tag};

/// Where in a stream of frames a record begins.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// At its beginning, where the preface is.
    Beginning,
    /// Behind it.
    Inside {
        /// How many bytes of a frame are still to come.
        left: u64,
        /// If none: what of the next one's head has come already.
        begun: Pieces<'a>,
    },
    /// Where nothing can be read any more.
    Lost,
}

numbered! {
    Start<'a> { 0: Beginning, 1: Inside { left, begun }, 2: Lost, }
}

/// Follows one direction of a connection and says of each byte whether it is kept. What is not kept belongs to
/// the application: bodies, and the values of extensions but for numbers of the protocol itself and identities; or
/// credentials only. Behind whatever it cannot follow, where a connection ends anyway, nothing is kept.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    hides_bodies: bool,
    at: At,
    /// How much of the frame is still to come, behind its head.
    left: u64,
    /// How much of its header.
    header_left: usize,
    body: u64,
    /// Behind the value of the TLV.
    padding: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Preface {
        have: [u8; PREFACE_LEN],
        n: usize,
    },
    Head {
        have: [u8; Head::LEN],
        n: usize,
    },
    /// In a header, so many bytes.
    Kept(usize),
    Hidden(usize),
    /// In front of a TLV, or inside its tag and length.
    Tlv {
        have: [u8; 4],
        n: usize,
    },
    /// In front of the length of a key, in an entry of metadata of so many bytes.
    KeyLen(usize),
    /// In the key, behind which the value follows.
    Key {
        left: usize,
        value: usize,
    },
    /// Behind the value of a TLV.
    TlvPadding(usize),
    Body(u64),
    Padding(usize),
    Lost,
}

const TLV: At = At::Tlv { have: [0; 4], n: 0 };
const HEAD: At = At::Head { have: [0; Head::LEN], n: 0 };

impl Walker {
    /// At the beginning of a connection.
    pub(super) fn new(hides_bodies: bool) -> Walker {
        let at = At::Preface { have: [0; PREFACE_LEN], n: 0 };
        Walker { hides_bodies, at, left: 0, header_left: 0, body: 0, padding: 0 }
    }

    /// At the beginning of so many bytes of extensions.
    pub(super) fn of_extensions(hides_bodies: bool, len: usize) -> Walker {
        let (left, header_left) = (len as u64, len);
        let mut walker = Walker { at: TLV, left, header_left, ..Walker::new(hides_bodies) };
        walker.settle();
        walker
    }

    /// What somebody must know who begins to read here.
    pub(super) fn start<'a>(&self, scratch: &'a mut Vec<u8>) -> Start<'a> {
        match self.at {
            At::Preface { n: 0, .. } => Start::Beginning,
            At::Preface { .. } | At::Lost => Start::Lost,
            At::Head { have, n } => {
                let begun = Pieces::kept(have.get(..n).unwrap_or_default(), scratch);
                Start::Inside { left: 0, begun }
            }
            _ => Start::Inside { left: self.left, begun: Pieces::hidden(0, scratch) },
        }
    }

    /// How many of these bytes, of which there are some, are of one sort, and whether they are kept.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (usize, bool) {
        let (taken, is_kept) = self.take(bytes);
        if !matches!(self.at, At::Lost) {
            self.settle();
        }
        (taken, is_kept)
    }

    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        let most = bytes.len();
        match &mut self.at {
            At::Preface { have, n } => (collect(have, n, bytes), true),
            At::Head { have, n } => (collect(have, n, bytes), true),
            At::Tlv { have, n } => {
                let most = most.min(self.header_left);
                let taken = collect(have, n, bytes.get(..most).unwrap_or_default());
                (self.pass_header(taken), true)
            }
            At::Kept(left) | At::TlvPadding(left) | At::Key { left, .. } => {
                let taken = count_down(left, most);
                (self.pass_header(taken), true)
            }
            At::Hidden(left) => {
                let taken = count_down(left, most);
                (self.pass_header(taken), false)
            }
            At::KeyLen(entry) => {
                let value = entry.saturating_sub(1);
                let key = usize::from(bytes.first().copied().unwrap_or(0));
                self.at = match value.checked_sub(key) {
                    Some(value) => At::Key { left: key, value },
                    None => At::Hidden(value),
                };
                (self.pass_header(1), true)
            }
            At::Body(left) => {
                let taken = most.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(taken as u64);
                self.left = self.left.saturating_sub(taken as u64);
                (taken, !self.hides_bodies)
            }
            At::Padding(left) => {
                let taken = count_down(left, most);
                self.left = self.left.saturating_sub(taken as u64);
                (taken, true)
            }
            At::Lost => (most, false),
        }
    }

    fn pass_header(&mut self, taken: usize) -> usize {
        self.header_left = self.header_left.saturating_sub(taken);
        self.left = self.left.saturating_sub(taken as u64);
        taken
    }

    /// Goes on to what has bytes to come.
    fn settle(&mut self) {
        loop {
            self.at = match self.at {
                At::Preface { have, n: PREFACE_LEN } => match have.starts_with(&MAGIC) {
                    true => HEAD,
                    false => At::Lost,
                },
                At::Head { have, n: Head::LEN } => self.enter(&Head::parse(&have)),
                At::Tlv { have, n: 4 } => self.value(have),
                At::Tlv { .. } if self.header_left == 0 => At::Body(self.body),
                At::Key { left: 0, value } => At::Hidden(value),
                // The rest of an entry, of a value, or of a header that is not read.
                At::Hidden(0) if self.padding > 0 => {
                    At::TlvPadding(core::mem::take(&mut self.padding).min(self.header_left))
                }
                At::Kept(0) if self.padding > 0 => {
                    At::TlvPadding(core::mem::take(&mut self.padding).min(self.header_left))
                }
                At::Kept(0) | At::Hidden(0) | At::TlvPadding(0) => match self.header_left {
                    0 => At::Body(self.body),
                    _ => TLV,
                },
                At::Body(0) => At::Padding(usize::try_from(self.left).unwrap_or(0)),
                At::Padding(0) => HEAD,
                _ => return,
            };
        }
    }

    fn enter(&mut self, head: &Head) -> At {
        let Some(body_len) = head.body_len() else { return At::Lost };
        self.header_left = usize::from(head.header_len);
        self.body = body_len as u64;
        self.padding = 0;
        self.left = u64::from(head.length).saturating_add(head.padding() as u64);
        match Kind::from_wire(head.kind) {
            Some(kind) => At::Kept(kind.fixed_len().min(self.header_left)),
            None => At::Hidden(self.header_left),
        }
    }

    fn value(&mut self, [t0, t1, l0, l1]: [u8; 4]) -> At {
        let tag = u16::from_le_bytes([t0, t1]) & !tag::CRITICAL;
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        if len > self.header_left || (tag == 0 && len > 0) {
            // No TLV: whoever reads it stops here.
            self.padding = 0;
            return At::Hidden(self.header_left);
        }
        self.padding = len.wrapping_neg() & 3;
        match tag {
            tag::TOTAL_LEN
            | tag::ATTACHMENT_LEN
            | tag::REPLY_CREDIT
            | tag::RETRY_TOKENS
            | tag::IDENTITY => At::Kept(len),
            tag::CREDENTIALS => At::Hidden(len),
            _ if !self.hides_bodies => At::Kept(len),
            tag::METADATA if len > 0 => At::KeyLen(len),
            _ => At::Hidden(len),
        }
    }
}

fn count_down(left: &mut usize, most: usize) -> usize {
    let taken = most.min(*left);
    *left = left.saturating_sub(taken);
    taken
}

/// Fills `have` from where it is; how many bytes that took.
fn collect(have: &mut [u8], n: &mut usize, bytes: &[u8]) -> usize {
    let places = have.iter_mut().skip(*n);
    let taken = places.zip(bytes).map(|(place, byte)| *place = *byte).count();
    *n = n.saturating_add(taken);
    taken
}
