//! Priorities of instances, counted from 0.

use crate::discovery::Instance;

/// More priorities than these are taken for the last one: each makes a lane.
const RANKS_MAX: usize = 8;

/// The priorities that some instances have.
#[derive(Debug)]
pub(crate) struct Ranks(Vec<u16>);

impl Ranks {
    pub(crate) fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Ranks {
        let mut all: Vec<u16> = instances.into_iter().map(|it| it.priority).collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(RANKS_MAX);
        Ranks(all)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// That of one of the instances, 0 the first that is called.
    pub(crate) fn rank(&self, instance: &Instance) -> usize {
        let before = self.0.partition_point(|it| *it < instance.priority);
        before.min(self.0.len().saturating_sub(1))
    }
}
