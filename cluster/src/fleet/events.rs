//! What a fleet tells once, when it happens.

use std::collections::VecDeque;
use std::fmt;

use ringcall_core::Mismatch;

/// Those that nobody takes are not kept for ever.
const EVENTS_MAX: usize = 256;

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
        }
    }
}

/// Events that were not taken yet; the oldest are dropped.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<FleetEvent>);

impl Events {
    pub(super) fn tell(&mut self, event: FleetEvent) {
        if self.0.len() == EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(super) fn take(&mut self) -> Option<FleetEvent> {
        self.0.pop_front()
    }
}
