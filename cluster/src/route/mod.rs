//! Which instances a call may go to.
//!
//! [`Rules`] are what users write: pure data, in order, with a version. A [`Caller`] is what is said of the process that
//! calls. `docs/CLUSTER.md` says what each part means. Nothing here knows connections or health: rules say which
//! instances are in which lane of a call, and the fleet takes the first lane that has some.
//!
//! With the feature `serde` rules are read from text, but for tests of yours ([`Match::custom`], [`Subset::custom`]).

mod asked;
mod caller;
mod ranks;
mod router;
mod rule;
mod subset;
mod text;
mod trace;

pub use asked::{Asked, Fields, Sample};
pub use caller::{Caller, Groups, Zones};
pub(crate) use ranks::Ranks;
pub(crate) use router::{Router, Verdict};
pub use rule::{Action, BadRule, BadRules, By, Match, Route, Rule, Rules};
pub use subset::Subset;
pub use text::Text;
pub use trace::{Dropped, Trace};
