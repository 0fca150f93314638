//! What a seed does: which faults there are and how often, how large everything is.
//!
//! Swarm testing (Groce and others, ISSTA 2012): each fault is off for half of the seeds, because faults
//! that are always on hide what only happens without them; otherwise its rate is any order of magnitude.

use crate::clock::{MILLIS, SECONDS, Time};
use crate::rng::Rng;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$fault,)*];

            /// As it is written on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$fault => stringify!($fault),)* }
            }
        }
    };
}

faults! {
    /// Bytes of one direction stop for a while.
    Stall,
    /// Nothing gets from one node to another for a while; what goes back does.
    Partition,
    /// A connection forwards nothing any more, in either direction.
    Blackhole,
    /// One direction forwards as little as a byte a second for a while.
    Slow,
    /// One direction ends, at any byte; what follows is lost.
    HalfClose,
    /// Both ends get a reset, one of them at any byte.
    Reset,
    /// Nobody listens for a while.
    Refuse,
    /// Connecting takes for ever.
    SynLoss,
    /// A connection is reset before anybody accepts it.
    AcceptDeath,
    /// A listener does not accept for a while.
    AcceptPause,
    /// A process ends; its machine tells its peers.
    Crash,
    /// A machine ends, without a word.
    PowerLoss,
    /// A process is stopped for a while.
    Stop,
    /// A clock jumps ahead.
    ClockJump,
    /// Clocks have different paces.
    Skew,
    /// A node is given its turn late.
    LateTurn,
    /// A node is given a turn for nothing.
    Spurious,
    /// A send takes a part only.
    ShortSend,
    /// A receive brings a part only.
    ShortReceive,
    /// What has arrived lies where it must be copied from.
    Misaligned,
    /// An operation completes late.
    LateCompletion,
    /// An operation is cancelled, or interrupted.
    Cancelled,
    /// The kernel has no memory for a moment.
    NoBuffers,
    /// Sending fails for good.
    SendError,
    /// Sockets hold next to nothing.
    SmallSockets,
    /// Nodes are told to drain, and start again.
    Drain,
    /// An application closes a connection.
    Close,
    /// Applications do not take items for a while.
    HoldItems,
    /// A turn ends before all events were taken.
    EarlyTurn,
    /// Nodes may hold little altogether.
    LittleMemory,
}

/// A set of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u64);

impl FaultSet {
    /// The set with `fault`, too.
    #[must_use]
    pub const fn with(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 | 1 << fault as u8)
    }

    /// These faults.
    #[must_use]
    pub const fn of(faults: &[Fault]) -> FaultSet {
        let (mut set, mut i) = (FaultSet(0), 0);
        while i < faults.len() {
            set = set.with(faults[i]);
            i += 1;
        }
        set
    }

    /// What is in either set.
    #[must_use]
    pub const fn and(self, other: FaultSet) -> FaultSet {
        FaultSet(self.0 | other.0)
    }

    /// Every fault that is not in the set.
    #[must_use]
    pub const fn complement(self) -> FaultSet {
        FaultSet(!self.0 & FaultSet::of(Fault::ALL).0)
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 >> fault as u8 & 1 == 1
    }

    /// From names with commas between them.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn parse(names: &str) -> Result<FaultSet, String> {
        let mut set = FaultSet::default();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let fault = Fault::ALL.iter().find(|fault| fault.name().eq_ignore_ascii_case(name));
            set = set.with(*fault.ok_or_else(|| format!("no fault is called {name:?}"))?);
        }
        Ok(set)
    }

    /// As a number: a bit for each fault.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The names, with commas between them.
    #[must_use]
    pub fn names(self) -> String {
        let names = Fault::ALL.iter().filter(|fault| self.has(**fault)).map(|fault| fault.name());
        names.collect::<Vec<_>>().join(",")
    }
}

/// What a seed has drawn.
#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    pub(crate) nodes: usize,
    /// Mean time between two acts of the applications.
    pub(crate) act_every: Time,
    /// How often: the mean time between two, for faults that happen; the chance in 65 536ths, for faults of
    /// operations. Zero: never.
    rates: [u64; Fault::ALL.len()],
    /// How long a way takes, and how much longer it may take.
    pub(crate) delay: Time,
    pub(crate) jitter: Time,
    /// How many bytes a direction holds.
    pub(crate) socket_bytes: usize,
    /// Chances of what applications do, in turn: see `app::client`.
    pub(crate) weights: [u64; 12],
    /// The largest body that applications send, as a rule.
    pub(crate) body_bits: u64,
    /// How long faults last, and callers wait, at most.
    pub(crate) span: Time,
    pub(crate) retries: bool,
}

impl Knobs {
    pub(crate) fn draw(seed: u64, without: FaultSet) -> Knobs {
        let mut rates = [0; Fault::ALL.len()];
        let span = Rng::new(seed, 900).log_uniform(100 * MILLIS, 20 * SECONDS);
        for (i, &fault) in Fault::ALL.iter().enumerate() {
            // A stream for each, so that switching one off leaves the others as they were.
            let mut rng = Rng::new(seed, 100 + i as u64);
            let is_on = rng.one_in(2);
            let rate = match fault.is_of_operations() {
                true => 1 << rng.between(4, 14),
                false => rng.log_uniform(20 * MILLIS, 10 * SECONDS),
            };
            if is_on && !without.has(fault) {
                rates[i] = rate;
            }
        }
        let mut rng = Rng::new(seed, 1);
        let mut weights = [0; 12];
        for weight in &mut weights {
            *weight = if rng.one_in(2) { 0 } else { rng.log_uniform(1, 64) };
        }
        // Somebody always calls.
        weights[0] = weights[0].max(8);
        let small = rates[Fault::SmallSockets as usize] > 0;
        Knobs {
            nodes: rng.pick(&[2, 2, 2, 3, 3, 4]),
            act_every: rng.log_uniform(50_000, 20 * MILLIS),
            delay: rng.log_uniform(2_000, 50 * MILLIS),
            jitter: if rng.one_in(2) { 0 } else { rng.log_uniform(1_000, 50 * MILLIS) },
            socket_bytes: match small {
                true => rng.log_uniform(16, 4096) as usize,
                false => rng.log_uniform(4096, 1 << 20) as usize,
            },
            body_bits: rng.between(4, 18),
            retries: rng.one_in(2),
            rates,
            weights,
            span,
        }
    }

    /// The rate of a fault; zero if it is off.
    pub(crate) fn rate(&self, fault: Fault) -> u64 {
        self.rates[fault as usize]
    }

    pub(crate) fn chance(&self, fault: Fault) -> u32 {
        debug_assert!(fault.is_of_operations());
        self.rates[fault as usize] as u32
    }

    /// From now on there are no faults.
    pub(crate) fn heal(&mut self) {
        self.rates = [0; Fault::ALL.len()];
    }
}

impl Fault {
    /// Whether it is there from the beginning to the end of a run, and never happens.
    pub(crate) fn is_of_the_run(self) -> bool {
        matches!(self, Fault::Skew | Fault::SmallSockets | Fault::LittleMemory)
    }

    /// Whether it befalls operations rather than happening at some time.
    pub(crate) fn is_of_operations(self) -> bool {
        matches!(
            self,
            Fault::SynLoss
                | Fault::AcceptDeath
                | Fault::LateTurn
                | Fault::EarlyTurn
                | Fault::ShortSend
                | Fault::ShortReceive
                | Fault::Misaligned
                | Fault::LateCompletion
                | Fault::Cancelled
                | Fault::NoBuffers
                | Fault::SendError
        )
    }
}
