//! Limits and timeouts of a connection.

use core::fmt;
use core::time::Duration;

use crate::frame::{self, ArchiveFormat, InstanceId, features};
use crate::{Entropy, Instant, Side};

/// Limits and timeouts of a connection: what this side accepts, and how long it waits.
///
/// ```
/// # use ringcall_core::Config;
/// let config = Config::new().in_flight_max(64).message_bytes_max(1 << 20).validate()?;
/// # Ok::<(), ringcall_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) in_flight_max: u32,
    pub(crate) message_bytes_max: usize,
    pub(crate) calls_window: u64,
    pub(crate) replies_window: u64,
    pub(crate) stream_window: u64,
    pub(crate) cut_bytes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) stream_idle_timeout: Duration,
    /// `None`: as is usual for the side.
    pub(crate) idle_close: Option<Option<Duration>>,
    pub(crate) connection_age_max: Option<Duration>,
    pub(crate) send_queue_soft: usize,
    pub(crate) send_queue_max: usize,
    pub(crate) ignored_bytes_max: u64,
    pub(crate) unknown_replies_max: u32,
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive_idle: Duration,
    pub(crate) keepalive_misses: u32,
    pub(crate) keepalive_busy: Busy,
    pub(crate) ping_interval_min: Duration,
    pub(crate) cancels_max: u32,
    pub(crate) control_frames_max: u32,
    pub(crate) archive: ArchiveFormat,
    pub(crate) codecs: u64,
    pub(crate) features: u64,
    pub(crate) compressions: u8,
    /// Bit `n`: critical extensions with tag `n` are the application's.
    pub(crate) understood: u64,
    pub(crate) extension_bytes_max: usize,
    pub(crate) metadata: MetadataMax,
    pub(crate) table_digest: u64,
    pub(crate) instance: InstanceId,
    pub(crate) first_generation: u32,
}

/// How a connection with calls in flight asks for signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy {
    pub(crate) interval: Duration,
    pub(crate) answer: Duration,
}

/// How much metadata is taken with a call or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetadataMax {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

/// The setting that makes no sense, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
    must: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`Config::{}` must be {}", self.setting, self.must)
    }
}

impl core::error::Error for ConfigError {}

impl Default for Config {
    fn default() -> Config {
        Config::new()
    }
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Config {
        Config {
            in_flight_max: 1024,
            message_bytes_max: 4 << 20,
            calls_window: 8 << 20,
            replies_window: 8 << 20,
            stream_window: 1 << 20,
            cut_bytes: 256 << 10,
            handshake_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
            stream_idle_timeout: Duration::from_secs(600),
            idle_close: None,
            connection_age_max: None,
            send_queue_soft: 1 << 20,
            send_queue_max: 8 << 20,
            ignored_bytes_max: 1 << 20,
            unknown_replies_max: 64,
            connect_timeout: Duration::from_secs(1),
            keepalive_idle: Duration::from_secs(15),
            keepalive_misses: 3,
            keepalive_busy: Busy {
                interval: Duration::from_secs(5),
                answer: Duration::from_secs(4),
            },
            ping_interval_min: Duration::from_secs(1),
            cancels_max: 1024,
            control_frames_max: 1024,
            archive: ArchiveFormat::STANDARD,
            codecs: 0b11,
            features: features::STREAMS,
            compressions: 0,
            understood: 0,
            extension_bytes_max: EXTENSION_BYTES_MAX,
            metadata: MetadataMax { entries: 64, bytes: 8 << 10 },
            table_digest: 0,
            instance: InstanceId::default(),
            first_generation: 0,
        }
    }

    /// How many calls the other side may have in flight: 1 to 65 536, 1024 by default.
    #[must_use]
    pub fn in_flight_max(mut self, calls: u32) -> Config {
        self.in_flight_max = calls;
        self
    }

    /// The largest body accepted: 1 KiB to 64 MiB, 4 MiB by default. Windows grow with it.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Config {
        self.message_bytes_max = bytes;
        self.calls_window = self.calls_window.max(bytes as u64 * 2);
        self.replies_window = self.replies_window.max(bytes as u64 * 2);
        self
    }

    /// How many body bytes of the other side's calls this side holds at most: at least twice the largest
    /// message, 8 MiB by default. Arguments of calls with streams that have not ended take half of it at most;
    /// further ones wait.
    #[must_use]
    pub fn calls_window(mut self, bytes: u64) -> Config {
        self.calls_window = bytes;
        self
    }

    /// How many body bytes of replies this side holds at most: at least twice the largest message, 8
    /// MiB by default.
    #[must_use]
    pub fn replies_window(mut self, bytes: u64) -> Config {
        self.replies_window = bytes;
        self
    }

    /// Bodies are sent in parts of at most this many bytes, so that small calls pass large ones: a
    /// multiple of 16, 256 KiB by default.
    #[must_use]
    pub fn cut_bytes(mut self, bytes: usize) -> Config {
        self.cut_bytes = bytes;
        self
    }

    /// How long the other side has for its HELLO: 5 s by default.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Config {
        self.handshake_timeout = timeout;
        self
    }

    /// How long it may take until the transport is connected, before the handshake: 1 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Config {
        self.connect_timeout = timeout;
        self
    }

    /// How long nothing may arrive before the other side is asked for a sign of life, and how many in a row
    /// it may owe, each for this long again: 15 s and 3 by default, so that a silent peer is given up
    /// after a minute. Zero switches it off.
    ///
    /// Whoever does not turn its shard cannot answer.
    #[must_use]
    pub fn keepalive_idle(mut self, interval: Duration, misses: u32) -> Config {
        (self.keepalive_idle, self.keepalive_misses) = (interval, misses);
        self
    }

    /// The same while own calls are in flight, and how long the other side may take to answer: 5 s and 4 s
    /// by default, so that a silent peer is given up after nine. The answer comes behind what the kernel
    /// has already taken, so it must be longer than that takes. An interval of zero means that
    /// [`keepalive_idle`](Self::keepalive_idle) always holds.
    #[must_use]
    pub fn keepalive_busy(mut self, interval: Duration, answer: Duration) -> Config {
        self.keepalive_busy = Busy { interval, answer };
        self
    }

    /// How much time the other side leaves between two PINGs on average: 1 s by default. Own ones leave as
    /// much. Zero allows any number.
    #[must_use]
    pub fn ping_interval_min(mut self, interval: Duration) -> Config {
        self.ping_interval_min = interval;
        self
    }

    /// How many calls the other side may cancel in ten seconds, or half of those that it makes if that is
    /// more: 1024 by default.
    #[must_use]
    pub fn cancels_max(mut self, cancels: u32) -> Config {
        self.cancels_max = cancels;
        self
    }

    /// How many CREDIT, LIMITS, PONG and GOAWAY frames the other side may send in ten seconds, or four
    /// for each call and item if that is more: 1024 by default.
    #[must_use]
    pub fn control_frames_max(mut self, frames: u32) -> Config {
        self.control_frames_max = frames;
        self
    }

    /// How long the other side may stop inside a frame, bring nothing of any body that it has begun, or not read: 10 s by
    /// default. Inside a body a tenth of that while others wait for its memory, see
    /// [`MemoryLimits::landing_bytes`](crate::MemoryLimits::landing_bytes).
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Config {
        self.stall_timeout = timeout;
        self
    }

    /// How many body bytes of one stream this side holds at most, and 1/1024 of that (but at least 16) in
    /// items: 1 MiB by default. One item may exceed it.
    #[must_use]
    pub fn stream_window(mut self, bytes: u64) -> Config {
        self.stream_window = bytes;
        self
    }

    /// How long a caller's stream may be open with nothing happening in either direction of its call, before
    /// the call is cancelled: 10 minutes by default, no limit if zero. A call that only its answer's items
    /// keep open, such as a subscription, may rest for ever.
    #[must_use]
    pub fn stream_idle_timeout(mut self, timeout: Duration) -> Config {
        self.stream_idle_timeout = timeout;
        self
    }

    /// How long a connection may be without a call in either direction before it is drained; late by a
    /// quarter at most. By default 10 minutes for connections that were accepted, and for ever for those
    /// that were opened; `None` is for ever. Pings are no use.
    #[must_use]
    pub fn idle_close(mut self, after: impl Into<Option<Duration>>) -> Config {
        self.idle_close = Some(after.into());
        self
    }

    /// How old a connection that was accepted may become before it is drained, give or take a tenth, so
    /// that connections that began together do not end together. For ever by default. For clients behind
    /// a balancer, that spreads connections over servers that came later.
    #[must_use]
    pub fn connection_age_max(mut self, age: Duration) -> Config {
        self.connection_age_max = Some(age);
        self
    }

    /// How long a connection may be idle.
    pub(crate) fn idle_span(&self, side: Side) -> Option<Duration> {
        self.idle_close.unwrap_or((side == Side::Server).then_some(IDLE_CLOSE))
    }

    /// When a connection that begins at `now` is to be drained because of its age.
    pub fn drain_at(&self, now: Instant, rng: &mut impl Entropy) -> Option<Instant> {
        let age = self.connection_age_max?;
        let tenth = u64::try_from(age.as_nanos() / 10).unwrap_or(u64::MAX / 2);
        let jitter = Duration::from_nanos(rng.below(2 * tenth + 1));
        Some(now + age.saturating_sub(Duration::from_nanos(tenth)) + jitter)
    }

    /// From how many bytes that wait to be sent the other side's calls are no longer taken: 1 MiB by
    /// default.
    #[must_use]
    pub fn send_queue_soft(mut self, bytes: usize) -> Config {
        self.send_queue_soft = bytes;
        self
    }

    /// From how many bytes that wait to be sent own calls are refused: 8 MiB by default.
    #[must_use]
    pub fn send_queue_max(mut self, bytes: usize) -> Config {
        self.send_queue_max = bytes;
        self
    }

    /// How this program's archives are laid out; said by the codec.
    #[must_use]
    pub fn archive_format(mut self, format: ArchiveFormat) -> Config {
        self.archive = format;
        self
    }

    /// Which codecs this program reads, beside bytes as they are and archives: bit `n` for codec `n`.
    #[must_use]
    pub fn codecs(mut self, codecs: u64) -> Config {
        self.codecs |= codecs;
        self
    }

    /// This program answers the control methods of `ringcall.*`.
    #[must_use]
    pub fn control_methods(mut self) -> Config {
        self.features |= features::CONTROL_METHODS;
        self
    }

    /// How bodies that this side reads may be compressed, bit `n` for algorithm `n`: not at all by default.
    /// Others are refused.
    #[must_use]
    pub fn compressions(mut self, bits: u8) -> Config {
        self.compressions = bits & !1;
        self
    }

    /// The application acts on this extension of requests and replies, so that it is handed on also when it
    /// is critical; see [`tag`](crate::frame::tag). Others that are critical are refused.
    #[must_use]
    pub fn understands(mut self, tag: u16) -> Config {
        self.understood |= 1u64.checked_shl(u32::from(tag)).unwrap_or(0);
        self
    }

    /// How many bytes of [extensions](crate::Payload::extensions) a call or an answer of this side may have,
    /// metadata and context among them: 16 320 at most, and by default, since headers end at 16 KiB.
    #[must_use]
    pub fn extension_bytes_max(mut self, bytes: usize) -> Config {
        self.extension_bytes_max = bytes;
        self
    }

    /// How many entries of metadata a call or an answer of the other side may have, and how many bytes, keys
    /// and values together with 5 for each: 64 and 8 KiB by default. Calls with more are refused with
    /// [`TOO_MUCH_METADATA`](crate::Status::TOO_MUCH_METADATA), answers with more fail.
    #[must_use]
    pub fn metadata_max(mut self, entries: usize, bytes: usize) -> Config {
        self.metadata = MetadataMax { entries, bytes };
        self
    }

    /// Whether bodies may be compressed so.
    #[inline]
    pub(crate) fn takes_compression(&self, algorithm: u8) -> bool {
        algorithm == 0 || (algorithm < 8 && self.compressions & (1 << algorithm) != 0)
    }

    /// A digest of the methods served here.
    #[must_use]
    pub fn table_digest(mut self, digest: u64) -> Config {
        self.table_digest = digest;
        self
    }

    /// Who this process is.
    #[must_use]
    pub fn instance(mut self, instance: InstanceId) -> Config {
        self.instance = instance;
        self
    }

    /// The generation that slots start with; tests start just before it wraps.
    #[must_use]
    pub fn first_generation(mut self, generation: u32) -> Config {
        self.first_generation = generation;
        self
    }

    /// The largest message accepted, in bytes.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.message_bytes_max
    }

    /// How soon a connection must be looked at again after it sent something.
    pub(crate) fn look_after_every(&self) -> Duration {
        let keepalive = [self.keepalive_idle, self.keepalive_busy.interval].into_iter();
        keepalive.filter(|interval| !interval.is_zero()).fold(self.stall_timeout, Duration::min)
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn validate(self) -> Result<Config, ConfigError> {
        let message = self.message_bytes_max as u64;
        let checks = [
            ("in_flight_max", "1 to 65536", (1..=65_536).contains(&self.in_flight_max)),
            (
                "message_bytes_max",
                "1 KiB to 64 MiB; larger things go as a stream or a file body",
                (1024..=64 << 20).contains(&self.message_bytes_max),
            ),
            (
                "calls_window",
                "at least twice `message_bytes_max`",
                self.calls_window >= message * 2,
            ),
            (
                "replies_window",
                "at least twice `message_bytes_max`",
                self.replies_window >= message * 2,
            ),
            ("calls_window", "at most 2^48", self.calls_window <= WINDOW_MAX),
            ("replies_window", "at most 2^48", self.replies_window <= WINDOW_MAX),
            ("stream_window", "1 KiB to 2^48", (1024..=WINDOW_MAX).contains(&self.stream_window)),
            (
                "cut_bytes",
                "a multiple of 16 from 1 KiB to 16 MiB",
                self.cut_bytes.is_multiple_of(frame::ALIGN)
                    && (1024..=16 << 20).contains(&self.cut_bytes),
            ),
            ("handshake_timeout", "more than zero", !self.handshake_timeout.is_zero()),
            ("stall_timeout", "more than zero", !self.stall_timeout.is_zero()),
            ("connect_timeout", "more than zero", !self.connect_timeout.is_zero()),
            (
                "keepalive_idle",
                "at least `ping_interval_min` with 1 miss or more, or zero",
                self.keepalive_idle.is_zero()
                    || (self.keepalive_idle >= self.ping_interval_min && self.keepalive_misses > 0),
            ),
            (
                "keepalive_busy",
                "at least `ping_interval_min` and more than zero to answer, or zero",
                self.keepalive_busy.interval.is_zero()
                    || (self.keepalive_busy.interval >= self.ping_interval_min
                        && !self.keepalive_busy.answer.is_zero()),
            ),
            (
                "idle_close",
                "more than zero",
                self.idle_close.flatten().is_none_or(|span| !span.is_zero()),
            ),
            (
                "connection_age_max",
                "more than zero",
                self.connection_age_max.is_none_or(|age| !age.is_zero()),
            ),
            (
                "extension_bytes_max",
                "at most 16320",
                self.extension_bytes_max <= EXTENSION_BYTES_MAX,
            ),
            (
                "send_queue_max",
                "at least `send_queue_soft`",
                self.send_queue_max >= self.send_queue_soft,
            ),
        ];
        match checks.into_iter().find(|(_, _, holds)| !holds) {
            Some((setting, must, _)) => Err(ConfigError { setting, must }),
            None => Ok(self),
        }
    }
}

/// How long a connection that was accepted may be idle unless said otherwise.
const IDLE_CLOSE: Duration = Duration::from_secs(10 * 60);

/// What a header has room for behind its fixed part, and the lengths of the body and of what is beside it.
const EXTENSION_BYTES_MAX: usize = frame::HEADER_LEN_MAX - 4 * frame::ALIGN;

/// No window can hold more credit than this.
pub(crate) const WINDOW_MAX: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn errors_name_the_setting() {
        assert!(Config::new().validate().is_ok());
        assert!(Config::new().message_bytes_max(64 << 20).validate().is_ok());
        let error = Config::new().calls_window(10).validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Config::calls_window` must be at least twice `message_bytes_max`"
        );
        assert!(Config::new().cut_bytes(1001).validate().is_err());
        assert!(Config::new().in_flight_max(0).validate().is_err());
    }
}
