//! The form of a record, in which it may come from anybody: `docs/REPLAY.md`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;
use core::fmt;

use super::digest::checksum;
use super::input::Input;
use super::recorder::{MemoryState, RecordSettings, Steps};
use super::values::{Value, Values, fields};
use super::walker::Start;
use crate::config::{Busy, MetadataMax};
use crate::{Config, ConfigError, Instant, Side};

/// What a record begins with.
const MAGIC: [u8; 7] = *b"\xf7RINGRC";

/// The version of the form, which follows.
const VERSION: u8 = 1;

/// What is around a step, at most.
pub(super) const STEP_FRAME_MAX: usize = 10 + 4;

/// How long the note of a record may be, in bytes.
const NOTE_MAX: usize = 1024;

fields! {
    MetadataMax { entries, bytes }
    Busy { interval, answer }
    Config {
        in_flight_max, message_bytes_max, calls_window, replies_window, stream_window, cut_bytes,
        handshake_timeout, stall_timeout, stream_idle_timeout, idle_close, connection_age_max,
        send_queue_soft, send_queue_max, ignored_bytes_max, unknown_replies_max, connect_timeout,
        keepalive_idle, keepalive_misses, keepalive_busy, ping_interval_min, cancels_max,
        control_frames_max, archive, codecs, features, compressions, understood,
        extension_bytes_max, metadata, table_digest, instance, first_generation,
    }
}

// ---- writing ----

/// What a connection began with.
pub(super) fn beginning(side: Side, now: Instant, landing_max: usize, config: &Config) -> Vec<u8> {
    let mut out = Vec::new();
    (side, now).put(&mut out);
    landing_max.put(&mut out);
    config.put(&mut out);
    out
}

pub(super) fn put_head(
    out: &mut Vec<u8>,
    settings: RecordSettings,
    is_full: bool,
    beginning: &[u8],
    steps: &Steps,
    note: &str,
) {
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    (settings.hides_bodies, settings.is_last()).put(out);
    is_full.put(out);
    out.extend_from_slice(beginning);
    let ends = (0..=NOTE_MAX.min(note.len())).rev();
    let note = ends.filter_map(|end| note.get(..end)).next().unwrap_or_default();
    note.len().put(out);
    out.extend_from_slice(note.as_bytes());
    (steps.first, steps.from).put(out);
    let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
    steps.place.inbound.start(&mut inbound).put(out);
    steps.place.outbound.start(&mut outbound).put(out);
    let check = checksum(0, out);
    out.extend_from_slice(&check);
}

pub(super) fn put_step(out: &mut Vec<u8>, number: u64, step: &[u8]) {
    step.len().put(out);
    out.extend_from_slice(step);
    checksum(number, step).put(out);
}

// ---- reading ----

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// It is something else.
    NotARecord,
    /// It has a form of this version, which this program does not know.
    Version(u8),
    /// Its head is cut off, or was changed.
    Head,
    /// The settings of its connection make no sense.
    Config(ConfigError),
    /// It ends inside this step.
    Truncated(u64),
    /// This step is not as it was recorded.
    Altered(u64),
    /// This step makes no sense.
    BadStep(u64),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::NotARecord => f.write_str("it is no record of a connection"),
            RecordError::Version(version) => {
                write!(f, "it is a record of version {version}, and this program reads version 1")
            }
            RecordError::Head => f.write_str("its head is cut off or was changed"),
            RecordError::Config(error) => write!(f, "its settings make no sense: {error}"),
            RecordError::Truncated(step) => write!(f, "it is cut off inside step {step}"),
            RecordError::Altered(step) => write!(f, "step {step} is not as it was recorded"),
            RecordError::BadStep(step) => write!(f, "step {step} makes no sense"),
        }
    }
}

impl core::error::Error for RecordError {}

/// A record that is read. Nothing of it is copied; its steps are read one by one.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Whether what belongs to the application is not in it.
    pub hides_bodies: bool,
    /// Whether it begins where its connection did, so that it can be replayed.
    pub is_whole: bool,
    /// Whether the connection went on after the bytes for its record were used up.
    pub is_full: bool,
    /// Which end it is of.
    pub side: Side,
    /// When the connection began.
    pub began: Instant,
    /// The connection's settings.
    pub config: Config,
    /// How much bodies that arrive may hold on its shard.
    pub landing_max: usize,
    /// What somebody wrote beside it.
    pub note: &'a str,
    /// The number of the first step.
    pub first: u64,
    /// Where in what it receives the first step is.
    pub inbound: Start<'a>,
    /// Where in what it sends; only known if the record is not whole.
    pub outbound: Start<'a>,
    from: Instant,
    steps: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the head of a record, which may be any bytes.
    ///
    /// # Errors
    /// [`RecordError`], if it is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        let mut values = Values(bytes);
        if values.array() != Some(MAGIC) {
            return Err(RecordError::NotARecord);
        }
        match values.u8() {
            Some(VERSION) => {}
            Some(version) => return Err(RecordError::Version(version)),
            None => return Err(RecordError::Head),
        }
        let record = Record::take(&mut values).ok_or(RecordError::Head)?;
        let head = bytes.get(..bytes.len().saturating_sub(values.0.len()));
        let check = values.array().ok_or(RecordError::Head)?;
        if head.is_none_or(|head| checksum(0, head) != check) {
            return Err(RecordError::Head);
        }
        let config = record.config.validate().map_err(RecordError::Config)?;
        Ok(Record { config, steps: values.0, ..record })
    }

    fn take(values: &mut Values<'a>) -> Option<Record<'a>> {
        let (hides_bodies, is_last): (bool, bool) = Value::take(values)?;
        let is_full = Value::take(values)?;
        let (side, began) = Value::take(values)?;
        let landing_max = Value::take(values)?;
        let config = Value::take(values)?;
        let note = usize::take(values).filter(|len| *len <= NOTE_MAX)?;
        let note = core::str::from_utf8(values.bytes(note)?).ok()?;
        let (first, from) = Value::take(values)?;
        let (inbound, outbound) = Value::take(values)?;
        let is_whole = !is_last;
        Some(Record {
            hides_bodies,
            is_whole,
            is_full,
            side,
            began,
            config,
            landing_max,
            note,
            first,
            inbound,
            outbound,
            from,
            steps: &[],
        })
    }

    /// The steps, in order. An error is the last of them.
    #[must_use]
    pub fn steps(&self) -> RecordedSteps<'a> {
        RecordedSteps { values: Values(self.steps), number: self.first, now: self.from }
    }
}

/// One step of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which one, from 0 on.
    pub number: u64,
    /// When.
    pub now: Instant,
    /// What others had done to the shard's memory, if they had.
    pub memory: Option<MemoryState>,
    /// What was done.
    pub input: Input<'a>,
    /// What the digest of all that came out was behind it.
    pub(super) digest: [u8; 4],
}

/// The steps of a [`Record`].
#[derive(Clone, Debug)]
pub struct RecordedSteps<'a> {
    values: Values<'a>,
    number: u64,
    now: Instant,
}

impl<'a> RecordedSteps<'a> {
    fn take(&mut self) -> Result<Step<'a>, RecordError> {
        let (values, number) = (&mut self.values, self.number);
        let step = usize::take(values).and_then(|len| values.bytes(len));
        let step = step.ok_or(RecordError::Truncated(number))?;
        let check = values.array().ok_or(RecordError::Truncated(number))?;
        if checksum(number, step) != check {
            return Err(RecordError::Altered(number));
        }
        let mut step = Values(step);
        let (later, memory) = Value::take(&mut step).ok_or(RecordError::BadStep(number))?;
        let input = Input::take(&mut step).ok_or(RecordError::BadStep(number))?;
        let digest = step.array().ok_or(RecordError::BadStep(number))?;
        let now = self.now.as_nanos().checked_add(later).map(Instant::from_nanos);
        let now = now.filter(|now| *now < Instant::FAR && step.is_empty());
        self.now = now.ok_or(RecordError::BadStep(number))?;
        self.number = number.saturating_add(1);
        Ok(Step { number, now: self.now, memory, input, digest })
    }
}

impl<'a> Iterator for RecordedSteps<'a> {
    type Item = Result<Step<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.values.is_empty() {
            return None;
        }
        let step = self.take();
        if step.is_err() {
            self.values = Values(&[]);
        }
        Some(step)
    }
}
