//! Heads and headers: to bytes and back.

use ringcall_core::frame::{Head, Kind, ReplyHeader, RequestHeader};
use ringcall_core::{Codec, MessageId, Side, Status};

/// The front of an ordinary frame: its head and header.
pub type Front = [u8; Head::LEN + RequestHeader::LEN];

/// Builds the front of a request with a body of 64 bytes.
#[inline]
#[must_use]
pub fn encode_request(slot: u32) -> Front {
    let header = RequestHeader {
        method: 1,
        in_signature: 2,
        out_signature: 3,
        deadline_us: 1_000_000,
        codec: Codec::RKYV,
        compression: 0,
        priority: 0,
        attempt: 0,
    };
    front(Kind::Request, slot, header.encode())
}

/// Builds the front of a reply with a body of 64 bytes.
#[inline]
#[must_use]
pub fn encode_reply(slot: u32) -> Front {
    let header = ReplyHeader { signature: 3, ..ReplyHeader::new(Status::OK) };
    front(Kind::Reply, slot, header.encode())
}

#[inline]
fn front(kind: Kind, slot: u32, header: [u8; RequestHeader::LEN]) -> Front {
    let head = Head {
        length: RequestHeader::LEN as u32 + 64,
        kind: kind as u8,
        flags: 0,
        header_len: RequestHeader::LEN as u16,
        id: MessageId::new(Side::Client, 1, slot),
    };
    let mut front = [0; Head::LEN + RequestHeader::LEN];
    front[..Head::LEN].copy_from_slice(&head.encode());
    front[Head::LEN..].copy_from_slice(&header);
    front
}

/// Reads the front of a request.
#[inline]
#[must_use]
pub fn decode_request(front: &Front) -> Option<(Head, RequestHeader)> {
    let (head, header) = front.split_first_chunk()?;
    let (header, _) = RequestHeader::parse(header)?;
    Some((Head::parse(head), header))
}

/// Reads the front of a reply.
#[inline]
#[must_use]
pub fn decode_reply(front: &Front) -> Option<(Head, ReplyHeader)> {
    let (head, header) = front.split_first_chunk()?;
    let (header, _) = ReplyHeader::parse(header)?;
    Some((Head::parse(head), header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts_come_back() {
        for slot in [0, 1, 65_535] {
            let (head, header) = decode_request(&encode_request(slot)).unwrap();
            assert_eq!((head.kind, head.id.slot()), (Kind::Request as u8, slot));
            assert_eq!((head.body_len(), head.padding()), (Some(64), 0));
            assert_eq!((header.method, header.deadline_us), (1, 1_000_000));
            let (head, header) = decode_reply(&encode_reply(slot)).unwrap();
            assert_eq!((head.kind, head.id.slot()), (Kind::Reply as u8, slot));
            assert_eq!((header.signature, header.status), (3, Status::OK));
        }
    }
}
