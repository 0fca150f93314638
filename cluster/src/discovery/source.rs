//! Where lists of instances come from.

use ringcall_core::Instant;

use super::{Delta, Instance, Revision, Snapshot};

/// What a source has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// All instances that it knows, of any services.
    Snapshot {
        /// The instances.
        snapshot: Snapshot,
        /// The source's clock, in milliseconds, from which ages are counted.
        clock_ms: Option<u64>,
    },
    /// What has changed.
    Delta {
        /// The changes.
        delta: Delta,
        /// The source's clock, in milliseconds, from which ages are counted.
        clock_ms: Option<u64>,
    },
    /// It cannot say anything at the moment, and why.
    Outage(String),
}

/// Something that knows which instances there are: a list, a file, a registry.
///
/// It is asked again and again, on a thread of its own, so it may block for a moment (a file is read), but
/// not for ever. What it says is merged: see [`Registry`](super::Registry) for what revisions mean.
pub trait Source: Send {
    /// What it has to say since it was last asked, if anything.
    fn poll_update(&mut self, now: Instant) -> Option<Update>;
}

/// A list that does not change.
#[derive(Clone, Debug)]
pub struct StaticSource {
    instances: Option<Vec<Instance>>,
}

impl StaticSource {
    /// These instances.
    #[must_use]
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> StaticSource {
        StaticSource { instances: Some(instances.into_iter().collect()) }
    }
}

impl Source for StaticSource {
    fn poll_update(&mut self, _now: Instant) -> Option<Update> {
        let revision = Revision { epoch: 1, number: 1 };
        let instances = self.instances.take()?;
        Some(Update::Snapshot { snapshot: Snapshot { revision, instances }, clock_ms: None })
    }
}
