//! One direction of a connection: a stream of bytes that takes time.

use std::collections::VecDeque;

use crate::clock::{SECONDS, Time};

/// For ever.
pub(crate) const NEVER: Time = Time::MAX;

#[derive(Debug)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// What is on its way: when it arrives, and how many bytes.
    flight: VecDeque<(Time, usize)>,
    arrived: usize,
    last_arrival: Time,
    pub(crate) capacity: usize,
    /// Until when nothing arrives.
    pub(crate) held_until: Time,
    pub(crate) slow: Option<Slow>,
    /// When the end of the stream arrives.
    fin: Option<Time>,
    /// What happens when the reader has taken so many more bytes.
    pub(crate) cut: Option<(usize, Cut)>,
    /// The sender has more than there was room for.
    pub(crate) sender_waits: bool,
}

/// What a stream ends with that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    End,
    Reset,
}

/// A direction that forwards little.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    pub(crate) bytes_a_second: u64,
    pub(crate) since: Time,
    pub(crate) until: Time,
    pub(crate) taken: u64,
}

impl Slow {
    fn allows(&self, now: Time) -> usize {
        let all = u128::from(now - self.since) * u128::from(self.bytes_a_second);
        ((all / u128::from(SECONDS)) as u64).saturating_sub(self.taken) as usize
    }

    fn next(&self) -> Time {
        self.since + ((self.taken + 1) * SECONDS).div_ceil(self.bytes_a_second)
    }
}

/// What its reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    Bytes(usize),
    /// The stream has ended.
    End,
    /// Nothing before this time.
    Later(Time),
    Nothing,
}

impl Pipe {
    pub(crate) fn new(capacity: usize) -> Pipe {
        Pipe {
            bytes: VecDeque::new(),
            flight: VecDeque::new(),
            arrived: 0,
            last_arrival: 0,
            capacity,
            held_until: 0,
            slow: None,
            fin: None,
            cut: None,
            sender_waits: false,
        }
    }

    pub(crate) fn room(&self) -> usize {
        match self.fin {
            Some(_) => 0,
            None => self.capacity.saturating_sub(self.bytes.len()),
        }
    }

    /// Whether somebody has bytes here that nobody has taken.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// So many of the bytes that were put arrive at this time, if not later because of those before.
    pub(crate) fn launch(&mut self, n: usize, at: Time) -> Time {
        let at = at.max(self.last_arrival);
        self.last_arrival = at;
        self.flight.push_back((at, n));
        at
    }

    /// Nothing follows.
    pub(crate) fn end(&mut self, at: Time) -> Time {
        let at = at.max(self.last_arrival);
        self.fin.get_or_insert(at);
        at
    }

    pub(crate) fn readable(&mut self, now: Time) -> Readable {
        if self.held_until > now {
            return if self.held_until == NEVER {
                Readable::Nothing
            } else {
                Readable::Later(self.held_until)
            };
        }
        while let Some(&(at, n)) = self.flight.front()
            && at <= now
        {
            self.arrived += n;
            self.flight.pop_front();
        }
        let mut n = self.arrived;
        if let Some((left, _)) = self.cut {
            n = n.min(left);
        }
        if self.slow.is_some_and(|slow| slow.until <= now) {
            self.slow = None;
        }
        if let Some(slow) = self.slow.filter(|_| n > 0) {
            n = n.min(slow.allows(now));
            if n == 0 {
                return Readable::Later(slow.next());
            }
        }
        if n > 0 {
            return Readable::Bytes(n);
        }
        match (self.cut, self.fin) {
            (Some((0, Cut::End)), _) => Readable::End,
            (_, Some(at)) if at <= now && self.bytes.is_empty() => Readable::End,
            _ => Readable::Nothing,
        }
    }

    /// Takes bytes that are readable.
    pub(crate) fn take(&mut self, n: usize, mut into: impl FnMut(&[u8])) {
        let (front, back) = self.bytes.as_slices();
        let from_front = n.min(front.len());
        into(&front[..from_front]);
        if from_front < n {
            into(&back[..n - from_front]);
        }
        self.bytes.drain(..n);
        self.arrived -= n;
        if let Some((left, _)) = &mut self.cut {
            *left -= n;
        }
        if let Some(slow) = &mut self.slow {
            slow.taken += n as u64;
        }
    }

    /// Everything in it is lost.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.flight.clear();
        self.arrived = 0;
    }
}
