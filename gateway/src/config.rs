//! What may be set.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};

/// The settings of a [`Gateway`](crate::Gateway), which checks them: change what should be other than the default.
///
/// ```
/// use ringcall_gateway::GatewayConfig;
///
/// let mut config = GatewayConfig::default();
/// config.deadline_max = std::time::Duration::from_secs(10);
/// config.console = false;
/// config.validate()?;
/// # Ok::<(), ringcall_gateway::BadGatewayConfig>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// How long a request's body may be, or each line of one with items, in bytes: 1 MiB. While it is read, JSON takes up to a
    /// hundred times as much memory as its text, once for each thread of the runtime. Up to 64 MiB, which is the largest message.
    pub body_bytes_max: usize,
    /// How many calls may be under way: 256. One counts from its first header until its answer was taken over by the
    /// connection; one more is answered with 503 at once.
    pub in_flight_max: usize,
    /// How many calls with streams may be under way, which do not count as other calls: 64. One counts from its first header until its
    /// answer is over; one more is answered with 503 at once.
    pub streams_max: usize,
    /// How long nothing may come of a body with items that has not ended: a minute. Then the call is given up.
    pub stream_idle: Duration,
    /// After how long without anything a stream of the server sends an empty line, so that a reader that is gone is noticed:
    /// 15 s.
    pub heartbeat: Duration,
    /// How many connections are served at a time: 1024. Others wait to be accepted.
    pub connections_max: usize,
    /// How long the headers of a request may take, and then its body: 10 s each. A connection of HTTP/1 that is silent for so
    /// long is closed.
    pub read_timeout: Duration,
    /// How long an answer may take to be read, or a line of one, and how long a connection may do nothing: a minute. It is looked for once in this
    /// time, so that it may take twice as long.
    pub write_timeout: Duration,
    /// How long what runs may take to end when the gateway stops: 30 s.
    pub drain_timeout: Duration,
    /// How long a call waits if neither its request nor its method says: 1 s. Of a stream of the server, until it begins; one of the
    /// caller may take as long as it likes then.
    pub deadline: Duration,
    /// How long a call waits at most, whoever says so: 60 s.
    pub deadline_max: Duration,
    /// How often the server is asked what it serves: every 30 s. Down to 1 s.
    pub refresh: Duration,
    /// How long after that it is not asked again for a method that is not known: 1 s.
    pub refresh_pause: Duration,
    /// The status of an answer that is an error of the handler: 422. From 400 to 599.
    pub error_status: StatusCode,
    /// What the names of headers begin with that become metadata, and of those that metadata of the answer become: `x-meta-`.
    /// In lower case, ending with `-`.
    pub metadata_prefix: String,
    /// Other headers that become metadata, by their own names, such as `authorization`: none. What is not named goes nowhere.
    pub forwarded_headers: Vec<HeaderName>,
    /// The names of hosts, without ports, that requests may be for, such as `localhost`; empty, as it is by default: any. On a
    /// machine with a browser it keeps pages off that have a name of theirs point to this one (DNS rebinding).
    pub hosts: Vec<String>,
    /// Whether pages of other origins may make calls, as far as browsers tell: no.
    pub cross_site: bool,
    /// Whether there is a console, at `/`, and what it reads, `/services.json`: yes.
    pub console: bool,
    /// Whether there is `/openapi.json`: yes.
    pub openapi: bool,
    /// What console and document are called: `ringcall`. Up to 200 bytes.
    pub title: String,
}

impl Default for GatewayConfig {
    fn default() -> GatewayConfig {
        GatewayConfig {
            body_bytes_max: 1 << 20,
            in_flight_max: 256,
            streams_max: 64,
            stream_idle: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            connections_max: 1024,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(1),
            deadline_max: Duration::from_secs(60),
            refresh: Duration::from_secs(30),
            refresh_pause: Duration::from_secs(1),
            error_status: StatusCode::UNPROCESSABLE_ENTITY,
            metadata_prefix: "x-meta-".to_owned(),
            forwarded_headers: Vec::new(),
            hosts: Vec::new(),
            cross_site: false,
            console: true,
            openapi: true,
            title: "ringcall".to_owned(),
        }
    }
}

/// The setting that makes no sense, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGatewayConfig {
    setting: &'static str,
    must: &'static str,
}

impl BadGatewayConfig {
    /// The name of the setting.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// What it must be.
    #[must_use]
    pub fn must(&self) -> &'static str {
        self.must
    }
}

impl fmt::Display for BadGatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`GatewayConfig::{}` must be {}", self.setting, self.must)
    }
}

impl std::error::Error for BadGatewayConfig {}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl GatewayConfig {
    /// Looks at every setting.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn validate(&self) -> Result<(), BadGatewayConfig> {
        const A_TIME: &str = "more than 0, and a day at most";
        let is_time = |time: Duration| !time.is_zero() && time <= DAY;
        let checks: [(&str, bool, &str); 17] = [
            ("body_bytes_max", self.body_bytes_max <= 64 << 20, "64 MiB at most"),
            ("in_flight_max", (1..=65_536).contains(&self.in_flight_max), "from 1 to 65536"),
            ("streams_max", (1..=65_536).contains(&self.streams_max), "from 1 to 65536"),
            ("stream_idle", is_time(self.stream_idle), A_TIME),
            ("heartbeat", is_time(self.heartbeat), A_TIME),
            (
                "connections_max",
                (1..=1_000_000).contains(&self.connections_max),
                "from 1 to 1000000",
            ),
            ("read_timeout", is_time(self.read_timeout), A_TIME),
            ("write_timeout", is_time(self.write_timeout), A_TIME),
            ("drain_timeout", self.drain_timeout <= DAY, "a day at most"),
            ("deadline", is_time(self.deadline), A_TIME),
            ("deadline_max", is_time(self.deadline_max), A_TIME),
            ("deadline", self.deadline <= self.deadline_max, "no longer than `deadline_max`"),
            (
                "refresh",
                (Duration::from_secs(1)..=DAY).contains(&self.refresh),
                "from a second to a day",
            ),
            ("refresh_pause", self.refresh_pause <= DAY, "a day at most"),
            (
                "error_status",
                self.error_status.is_client_error() || self.error_status.is_server_error(),
                "from 400 to 599",
            ),
            (
                "metadata_prefix",
                is_prefix(&self.metadata_prefix),
                "the beginning of a header's name: up to 64 of a-z, 0-9 and `-`, with `-` in the end",
            ),
            ("title", self.title.len() <= 200, "200 bytes at most"),
        ];
        match checks.into_iter().find(|(_, holds, _)| !holds) {
            Some((setting, _, must)) => Err(BadGatewayConfig { setting, must }),
            None => Ok(()),
        }
    }
}

fn is_prefix(prefix: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (2..=64).contains(&prefix.len()) && prefix.ends_with('-') && prefix.bytes().all(is_plain)
}
