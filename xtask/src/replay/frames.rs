//! The frames of one direction, in words.

use ringcall_core::frame::{
    Cancel, Credit, DataHeader, GoAway, HEADER_LEN_MAX, Head, Hello, ItemHeader, Kind, Limits,
    PREFACE_LEN, ReplyHeader, RequestHeader,
};
use ringcall_core::record::Start;

/// Follows a stream of frames, as far as it can.
pub(crate) struct Frames {
    /// What has come of a frame's head and header.
    begun: Vec<u8>,
    /// How much is passed over until the next frame begins; `None` for ever.
    skip: Option<u64>,
}

impl Frames {
    pub(crate) fn new(start: Start<'_>) -> Frames {
        let (skip, begun) = match start {
            Start::Beginning => (Some(PREFACE_LEN as u64), Vec::new()),
            Start::Inside { left, begun } => (Some(left), begun.to_vec()),
            Start::Lost => (None, Vec::new()),
        };
        Frames { begun, skip }
    }

    /// The frames whose headers end in these bytes.
    pub(crate) fn read(&mut self, bytes: &[u8], direction: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while let (Some(skip), false) = (self.skip, rest.is_empty()) {
            if skip > 0 {
                let n = rest.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                (rest, self.skip) = (&rest[n..], Some(skip - n as u64));
                continue;
            }
            let wanted = self.wanted();
            let n = rest.len().min(wanted.saturating_sub(self.begun.len()));
            self.begun.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
            if self.begun.len() == self.wanted() {
                found.push(format!("{direction} {}", self.finish()));
            }
        }
        found
    }

    /// How long head and header are, as far as is known.
    fn wanted(&self) -> usize {
        let head = self.begun.first_chunk().map(Head::parse);
        Head::LEN + head.map_or(0, |head| usize::from(head.header_len))
    }

    /// Head and header are here.
    fn finish(&mut self) -> String {
        let begun = std::mem::take(&mut self.begun);
        let Some((head, header)) = begun.split_first_chunk() else { return String::new() };
        let head = Head::parse(head);
        self.skip = head.body_len().map(|body| (body + head.padding()) as u64);
        if self.skip.is_none() || header.len() > HEADER_LEN_MAX {
            self.skip = None;
            return format!("no frame: {head:?}");
        }
        let kind = Kind::from_wire(head.kind);
        let name = kind.map_or_else(|| format!("kind {}", head.kind), |kind| format!("{kind:?}"));
        let body = head.body_len().unwrap_or(0);
        let (flags, len) = (head.flags, header.len());
        let what = kind.and_then(|kind| describe(kind, header)).unwrap_or_default();
        format!("{name} {:?}, flags {flags:#04x}, header {len}, body {body}{what}", head.id)
    }
}

fn describe(kind: Kind, header: &[u8]) -> Option<String> {
    Some(match kind {
        Kind::Hello => format!(": {:?}", Hello::parse(header)?.0),
        Kind::Request => {
            let (request, _) = RequestHeader::parse(header)?;
            let RequestHeader { method, deadline_us, attempt, .. } = request;
            format!(": method {method:016x}, {deadline_us} us left, attempt {attempt}")
        }
        Kind::Reply | Kind::End => {
            let (reply, _) = ReplyHeader::parse(header)?;
            format!(
                ": {}, queued {} us, handled {} us",
                reply.status, reply.queue_us, reply.handler_us
            )
        }
        Kind::Data => format!(": at {}", DataHeader::parse(header)?.0.offset),
        Kind::Item => format!(": codec {}", ItemHeader::parse(header)?.0.codec.0),
        Kind::Credit => format!(": {:?}", Credit::parse(header)?.0),
        Kind::Cancel => format!(": {:?}", Cancel::parse(header)?.0.reason),
        Kind::GoAway => format!(": {:?}", GoAway::parse(header)?.0),
        Kind::Limits => format!(": {:?}", Limits::parse(header)?.0),
        Kind::Ping | Kind::Pong => return None,
    })
}
