//! What is measured: how large the message is, over how many connections, how many at a time.

/// One load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) message: Message,
    pub(crate) connections: usize,
    /// Calls in flight on each connection: on average, where a balancer chooses it.
    pub(crate) in_flight: usize,
    /// How many servers a client has. They are listeners of one process, so all of them share its core.
    pub(crate) servers: usize,
    /// What is counted is the items of one stream that a server sends, instead of calls.
    pub(crate) is_stream: bool,
    /// How many calls a second are made, however long earlier ones take. Otherwise each caller makes its
    /// next call when the last has ended.
    pub(crate) rate: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// So many bytes in one field.
    Blob(usize),
    /// A nested message of about 1 KiB.
    Order,
}

const fn blob(id: &'static str, bytes: usize, connections: usize, in_flight: usize) -> Case {
    let message = Message::Blob(bytes);
    Case { id, message, connections, in_flight, servers: 1, is_stream: false, rate: None }
}

const fn stream(id: &'static str, bytes: usize) -> Case {
    Case { is_stream: true, ..blob(id, bytes, 1, 1) }
}

/// One client of so many servers, of which its balancer chooses one for each call; so many calls in flight over
/// all of them.
const fn fan_out(id: &'static str, bytes: usize, servers: usize, in_flight: usize) -> Case {
    Case { servers, ..blob(id, bytes, servers, in_flight / servers) }
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
    fan_out("fanout-64B-c8-f64", 64, 8, 64),
];

/// The one whose rate is given, with as many callers as can be waiting at a time.
pub(crate) const OPEN: &str = "open-64B-c1";
const OPEN_CALLERS: usize = 1000;

impl Case {
    /// One of the list, or `open-64B-c1@RATE`.
    pub(crate) fn named(name: &str) -> Result<&'static Case, String> {
        if let Some((OPEN, rate)) = name.split_once('@') {
            let rate = rate.parse().ok().filter(|rate| *rate > 0);
            let rate = rate.ok_or_else(|| format!("`{name}` has no rate of calls a second"))?;
            return Ok(Case::open(rate));
        }
        let found = ALL.iter().find(|case| case.id == name);
        found.ok_or_else(|| format!("there is no case `{name}`; see --list"))
    }

    /// Lives for ever: a process has few of them.
    pub(crate) fn open(rate: u64) -> &'static Case {
        let id = Box::leak(format!("{OPEN}@{rate}").into_boxed_str());
        Box::leak(Box::new(Case { rate: Some(rate), ..blob(id, 64, 1, OPEN_CALLERS) }))
    }

    pub(crate) fn calls_at_a_time(&self) -> usize {
        self.connections * self.in_flight
    }

    /// Every how many calls one is timed: reading the clock twice takes as long as a quarter of the
    /// fastest calls.
    pub(crate) fn stride(&self) -> u64 {
        if self.rate.is_some() {
            return 1;
        }
        (self.calls_at_a_time() / 8).clamp(1, 32) as u64
    }
}
