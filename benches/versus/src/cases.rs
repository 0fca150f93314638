//! What is measured: how large the message is, over how many connections, how many at a time.

/// One load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) message: Message,
    pub(crate) connections: usize,
    /// Calls in flight on each connection.
    pub(crate) in_flight: usize,
    /// What is counted is the items of one stream that a server sends, instead of calls.
    pub(crate) is_stream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// So many bytes in one field.
    Blob(usize),
    /// A nested message of about 1 KiB.
    Order,
}

const fn blob(id: &'static str, bytes: usize, connections: usize, in_flight: usize) -> Case {
    Case { id, message: Message::Blob(bytes), connections, in_flight, is_stream: false }
}

const fn stream(id: &'static str, bytes: usize) -> Case {
    Case { is_stream: true, ..blob(id, bytes, 1, 1) }
}

pub(crate) const ALL: &[Case] = &[
    blob("echo-64B-c1-f1", 64, 1, 1),
    blob("echo-64B-c1-f64", 64, 1, 64),
    blob("echo-64B-c1-f512", 64, 1, 512),
    blob("echo-64B-c64-f1", 64, 64, 1),
    blob("echo-4KiB-c1-f64", 4 << 10, 1, 64),
    blob("echo-1MiB-c1-f4", 1 << 20, 1, 4),
    Case { message: Message::Order, ..blob("struct-c1-f64", 0, 1, 64) },
    stream("stream-64B-c1", 64),
    stream("stream-64KiB-c1", 64 << 10),
];

impl Case {
    pub(crate) fn named(name: &str) -> Result<&'static Case, String> {
        let found = ALL.iter().find(|case| case.id == name);
        found.ok_or_else(|| format!("there is no case `{name}`; see --list"))
    }

    pub(crate) fn calls_at_a_time(&self) -> usize {
        self.connections * self.in_flight
    }

    /// Every how many calls one is timed: reading the clock twice takes as long as a quarter of the
    /// fastest calls.
    pub(crate) fn stride(&self) -> u64 {
        (self.calls_at_a_time() / 8).clamp(1, 32) as u64
    }
}
