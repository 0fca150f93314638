//! What a fleet tells once, when it happens.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ringcall_core::Mismatch;

use crate::health::Reason;

/// Something that happened to a fleet, told once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetEvent {
    /// At the address of an instance is another one. It gets no calls until the right one answers there, or the list
    /// says something else of it.
    WrongInstance {
        /// The name of the instance that is not there.
        name: String,
        /// Who was expected and who was met, if the connector knows.
        mismatch: Option<Mismatch>,
    },
    /// The right instance answers again where another one was.
    RightInstance {
        /// Its name.
        name: String,
    },
    /// No instance can be called any more: as they come back, calls are let through in their share of `working_min`.
    RecoveryBegan {
        /// How many can take all calls.
        working_min: u32,
    },
    /// All calls are let through again.
    RecoveryEnded {
        /// To so many instances.
        usable: u32,
    },
    /// An instance gets no calls for a while, or for longer, since the call that was to see whether it works has failed.
    Ejected {
        /// Its name.
        name: String,
        /// Why.
        reason: Reason,
        /// For how long, until a call sees whether it works.
        time: Duration,
    },
    /// An instance that was ejected works again.
    Healed {
        /// Its name.
        name: String,
    },
    /// An instance that was ejected is not in the list any more, or is at another address.
    Gone {
        /// Its name.
        name: String,
    },
    /// So few instances are not ejected that all are used.
    PanicBegan {
        /// How many are not ejected.
        usable: usize,
        /// Of so many.
        of: usize,
    },
    /// Those that are ejected get no calls again.
    PanicEnded,
    /// Calls of a method are stopped.
    BreakerOpened {
        /// Its name.
        method: String,
        /// At this instance only; without a name everywhere.
        instance: Option<String>,
    },
    /// They are not any more: its breaker has closed, has other settings, or its instance is gone.
    BreakerClosed {
        /// Its name.
        method: String,
        /// At this instance only; without a name everywhere.
        instance: Option<String>,
    },
}

impl fmt::Display for FleetEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FleetEvent::WrongInstance { name, mismatch } => {
                write!(f, "the instance {name:?} gets no calls: another one is at its address")?;
                mismatch.as_ref().map_or(Ok(()), |mismatch| write!(f, ": {mismatch}"))
            }
            FleetEvent::RightInstance { name } => {
                write!(f, "the instance {name:?} is at its address again")
            }
            FleetEvent::RecoveryBegan { working_min } => write!(
                f,
                "no instance can be called; until {working_min} are back, calls grow with them"
            ),
            FleetEvent::RecoveryEnded { usable } => {
                write!(f, "all calls go to the {usable} instances that are back")
            }
            FleetEvent::Ejected { name, reason, time } => {
                write!(f, "the instance {name:?} gets no calls for {time:?}: {reason}")
            }
            FleetEvent::Healed { name } => write!(f, "the instance {name:?} works again"),
            FleetEvent::Gone { name } => {
                write!(f, "the instance {name:?}, which got no calls, is gone")
            }
            FleetEvent::PanicBegan { usable, of } => {
                write!(f, "only {usable} of {of} instances are well: all of them are used")
            }
            FleetEvent::PanicEnded => f.write_str("instances that are ejected get no calls again"),
            FleetEvent::BreakerOpened { method, instance } => {
                write!(f, "calls of {method} are stopped")?;
                at(f, instance.as_deref())
            }
            FleetEvent::BreakerClosed { method, instance } => {
                write!(f, "calls of {method} are made again")?;
                at(f, instance.as_deref())
            }
        }
    }
}

fn at(f: &mut fmt::Formatter<'_>, instance: Option<&str>) -> fmt::Result {
    instance.map_or(Ok(()), |name| write!(f, " at {name:?}"))
}

/// What was not taken yet. Those that nobody takes are not kept for ever: beyond `MAX` the oldest are dropped.
#[derive(Debug)]
pub(super) struct Untold<T, const MAX: usize>(VecDeque<T>);

impl<T, const MAX: usize> Default for Untold<T, MAX> {
    fn default() -> Untold<T, MAX> {
        Untold(VecDeque::new())
    }
}

impl<T, const MAX: usize> Untold<T, MAX> {
    pub(super) fn tell(&mut self, one: T) {
        if self.0.len() == MAX {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }

    pub(super) fn take(&mut self) -> Option<T> {
        self.0.pop_front()
    }
}
