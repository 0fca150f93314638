//! Signs of life: when to ask for one, and when to stop waiting for it.
//!
//! Whatever arrives is one, so a connection with traffic never asks. Nothing here is touched by ordinary
//! frames: they leave behind when they came and how many bytes there were, and the look-after timer
//! compares.

use core::time::Duration;

use super::{Connection, Event};
use crate::frame::Ping;
use crate::{CloseReason, Instant};

/// What the first half of a keepalive's PING holds, so that its answer is told from one that the
/// application asked for.
const KEEPALIVE: [u8; 8] = *b"alive?\r\n";
/// So many PINGs may be without their PONG. When what is in between stands still they all arrive at once, and the
/// other side counts them.
const OWED_MAX: u32 = 3;

#[derive(Debug)]
pub(super) struct Liveness {
    /// The PING of which nobody knows yet whether the other side is there.
    asked: Option<Asked>,
    /// When a PING was last asked for, and with which bytes.
    pinged: Instant,
    opaque: [u8; 16],
    /// How many have left without a PONG to the last one, whatever else has come since.
    owed: u32,
    /// How many in a row had no answer in time.
    misses: u32,
    /// A PING of the application that must wait for its turn.
    wanted: Option<Ping>,
    /// Since when this side does not read, so that the other one's silence says nothing.
    paused: Option<Instant>,
    keepalives: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    /// How many bytes had arrived before.
    received: u64,
    /// How many had left.
    sent: u64,
}

/// By which of the settings a connection asks now.
struct Pace {
    interval: Duration,
    answer: Duration,
    misses_max: u32,
}

impl Liveness {
    pub(super) fn new() -> Liveness {
        Liveness {
            asked: None,
            pinged: Instant::ZERO,
            opaque: [0; 16],
            owed: 0,
            misses: 0,
            wanted: None,
            paused: None,
            keepalives: 0,
        }
    }

    /// Nothing is read for now.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// Whether it was not read, and what that took was not given back yet.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }
}

impl<T> Connection<T> {
    /// Asks for a sign of life if there was none for too long, and gives up if it does not come.
    pub(super) fn keep_alive(&mut self, now: Instant) -> Result<(), CloseReason> {
        self.ping_in_turn(now);
        if bug!("no_keepalive") {
            return Ok(());
        }
        // A side that has ended its stream cannot answer.
        let Some(pace) = self.pace().filter(|_| self.peer.is_some() && !self.input_ended) else {
            return Ok(());
        };
        let heard = self.watch.received.max(self.moved());
        match self.unanswered() {
            None => {
                self.liveness.misses = 0;
                if heard + pace.interval > now {
                    self.look_after_by(heard + pace.interval);
                    return Ok(());
                }
            }
            Some(asked) if asked + pace.answer > now => {
                self.look_after_by(asked + pace.answer);
                return Ok(());
            }
            // Whoever looks that late was stopped itself, and what came meanwhile may not be read yet.
            Some(asked) if asked + pace.answer * 2 <= now && self.liveness.misses == 0 => {
                self.liveness.misses = 1;
            }
            Some(_) => {
                self.liveness.misses = self.liveness.misses.saturating_add(1);
                if self.liveness.misses >= pace.misses_max {
                    return Err(CloseReason::PeerSilent);
                }
            }
        }
        self.ask(now);
        self.look_after_by(now + pace.answer);
        Ok(())
    }

    /// The time in which this side did not read is not the other one's: its silence starts anew, and its bodies have as
    /// much more. No more than that, or with short pauses one could be kept for ever.
    #[cold]
    pub(super) fn give_back_pause(&mut self, now: Instant) {
        // One that began with an answer, when nothing was read, was not noticed then.
        let since = self.liveness.paused.unwrap_or(self.watch.bodies);
        self.liveness.paused = self.is_paused().then_some(now);
        self.liveness.asked = None;
        self.liveness.misses = 0;
        self.watch.received = now;
        self.watch.bodies = (self.watch.bodies + now.since(since)).min(now);
    }

    /// `None` if nobody wants signs of life.
    fn pace(&self) -> Option<Pace> {
        let (idle, busy) = (self.config.keepalive_idle, self.config.keepalive_busy);
        if self.calls.live() > 0 && !busy.interval.is_zero() {
            return Some(Pace { interval: busy.interval, answer: busy.answer, misses_max: 1 });
        }
        let misses_max = self.config.keepalive_misses;
        let pace = Pace { interval: idle, answer: idle, misses_max };
        (!idle.is_zero()).then_some(pace)
    }

    /// When bytes last left, if others still wait behind them: a machine that takes some is there.
    fn moved(&self) -> Instant {
        if self.watch.unsent > 0 { self.watch.send_progress } else { Instant::ZERO }
    }

    /// When a PING was asked for since which there was no sign of life.
    fn unanswered(&mut self) -> Option<Instant> {
        let asked = self.liveness.asked?;
        let has_moved = self.watch.unsent > 0 && self.counters.bytes_sent != asked.sent;
        if self.counters.bytes_received != asked.received || has_moved {
            // The answer may still come, but nobody waits for it any more.
            self.liveness.asked = None;
            return None;
        }
        Some(asked.at)
    }

    fn ask(&mut self, now: Instant) {
        if self.liveness.owed >= OWED_MAX {
            // Those that are under way ask as well as another one behind them.
            return self.expect_a_sign(now);
        }
        // One that the application wants serves as well.
        let ping = self.liveness.wanted.take().unwrap_or_else(|| {
            self.liveness.keepalives = self.liveness.keepalives.wrapping_add(1);
            let mut opaque = [0; 16];
            opaque[..8].copy_from_slice(&KEEPALIVE);
            opaque[8..].copy_from_slice(&self.liveness.keepalives.to_le_bytes());
            Ping { opaque }
        });
        self.send_ping(now, ping);
    }

    fn send_ping(&mut self, now: Instant, ping: Ping) {
        let is_another = self.control.ping.replace(ping).is_none();
        let Liveness { owed, pinged, opaque, .. } = &mut self.liveness;
        *owed = owed.saturating_add(u32::from(is_another));
        (*pinged, *opaque) = (now, ping.opaque);
        self.expect_a_sign(now);
    }

    /// From now on the other side's silence counts.
    fn expect_a_sign(&mut self, now: Instant) {
        self.liveness.asked = Some(Asked {
            at: now,
            received: self.counters.bytes_received,
            sent: self.counters.bytes_sent,
        });
    }

    /// A PING of the application. The other side counts them, so they wait for each other.
    pub(super) fn want_ping(&mut self, now: Instant, ping: Ping) {
        if self.control.ping.is_some() {
            // It has not left yet.
            return self.send_ping(now, ping);
        }
        self.liveness.wanted = Some(ping);
        self.ping_in_turn(now);
    }

    /// Sends the PING that waits if all before are answered and the last one is long enough ago. That something
    /// else has come is no answer: it says nothing of whether they have arrived.
    fn ping_in_turn(&mut self, now: Instant) {
        if self.liveness.wanted.is_none() || self.liveness.owed > 0 {
            return;
        }
        let next = self.liveness.pinged + self.config.ping_interval_min;
        if self.liveness.pinged != Instant::ZERO && next > now {
            return self.look_after_by(next);
        }
        if let Some(ping) = self.liveness.wanted.take() {
            self.send_ping(now, ping);
        }
    }

    /// A PONG has come. Keepalive's own are nobody's business.
    pub(super) fn ponged(&mut self, now: Instant, opaque: [u8; 16]) -> Option<Event<T>> {
        if opaque == self.liveness.opaque {
            self.liveness.asked = None;
            self.liveness.owed = 0;
        }
        self.ping_in_turn(now);
        (opaque[..8] != KEEPALIVE).then_some(Event::Pong(opaque))
    }
}
