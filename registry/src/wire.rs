//! What is said between instances, watchers and nodes.

use std::fmt;

/// When something was said, and by which node: the order of all that is said of an instance.
///
/// The time is that of the node's wall clock, or later, so that it is later than what was said of the same instance before
/// (a clock as of Lamport, *Time, Clocks, and the Ordering of Events in a Distributed System*, 1978, for each instance).
#[ringcall::message]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// In milliseconds since 1970, or later.
    pub time: u64,
    /// Which node.
    pub node: u64,
}

/// An instance by its name.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its service.
    pub service: String,
    /// Its name, which no other instance of the service has.
    pub name: String,
}

/// An instance that wants to be found.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The instance, as a line of [`read_list`](ringcall::cluster::discovery::read_list).
    pub instance: String,
    /// For how long it is there without being heard of, in milliseconds.
    pub lease_ms: u32,
    /// A number that no other process has: of two with one name the one that came later has it.
    pub incarnation: u64,
    /// When it was registered first, if this is not the first time: as [`Registered`] said then.
    pub registered_ms: Option<u64>,
}

/// It is registered.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Since when, by the registry's clock.
    pub registered_ms: u64,
    /// After which time it should say so again, in milliseconds.
    pub renew_ms: u32,
    /// The group that it is to be in, if the node knows that: one that has a centre, and a setting for this service.
    pub placed: Option<Placement>,
}

/// The group that an instance is to be in, as an operator has said. A [`Registrar`](crate::Registrar) sees to it, and then
/// registers the instance as one of that group.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Of the setting that says so: what is older than what was heard before does not count.
    pub version: Stamp,
    /// The group; `None` for the one that the instance has by itself.
    pub group: Option<String>,
}

/// What a node knows of the groups that instances of a service are moved to: its setting `groups/` and the service.
#[ringcall::message]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules {
    /// The version of the text that is in force; `None` if none is, or the node has no centre, or has just started.
    pub version: Option<Stamp>,
    /// How many rules it has: none if the setting was removed as this version.
    pub rules: u32,
    /// What was put since, and is refused.
    pub refused: Option<RefusedRules>,
}

/// A text that cannot be read: the one before stays in force.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRules {
    /// Its version.
    pub version: Stamp,
    /// What is wrong with it.
    pub what: String,
}

/// An instance that leaves.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Which.
    pub key: Key,
    /// As in its [`Registration`].
    pub incarnation: u64,
    /// As in its [`Registration`].
    pub lease_ms: u32,
}

/// Why the registry did not do it.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no instance.
    BadInstance {
        /// What is wrong with it.
        what: String,
    },
    /// No such lease is given.
    BadLease {
        /// The shortest one.
        min_ms: u32,
        /// The longest one.
        max_ms: u32,
    },
    /// Another process has registered under its name since.
    Replaced,
    /// This process has taken it back: what it said before comes late.
    Left,
    /// There is no room for it.
    Full {
        /// How many there may be.
        instances_max: u32,
    },
    /// So many watch (`NodeConfig::watches_max`), or 32 nodes listen, that it takes no more.
    Busy,
    /// The node has just started, and has not heard yet what the others know.
    Starting,
    /// No service is called so: a name has at most 256 bytes.
    BadName,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::BadInstance { what } => write!(f, "no instance: {}", shown(what)),
            Refused::BadLease { min_ms, max_ms } => {
                write!(f, "a lease has {min_ms} to {max_ms} ms")
            }
            Refused::Replaced => f.write_str("another process has registered under its name since"),
            Refused::Left => f.write_str("this process has taken the instance back"),
            Refused::Full { instances_max } => write!(
                f,
                "the registry has {instances_max} instances already (`NodeConfig::instances_max`)"
            ),
            Refused::Busy => f.write_str(
                "so many watch (`NodeConfig::watches_max`) or listen that it takes no more",
            ),
            Refused::Starting => {
                f.write_str("the node has just started, and has not heard the others yet")
            }
            Refused::BadName => f.write_str("the name of a service has 1 to 256 bytes"),
        }
    }
}

impl std::error::Error for Refused {}

/// What a watcher wants.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The service.
    pub service: String,
    /// The latest revision that it has heard, from whichever node; 0 if none. What it is told is later.
    pub heard: u64,
}

/// What a watcher is told.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All instances at a revision, or a part of them: they come first.
    All {
        /// Of when.
        revision: u64,
        /// The node's wall clock.
        clock_ms: u64,
        /// The instances, as lines.
        instances: Vec<String>,
        /// Whether this is all that there is.
        is_last: bool,
    },
    /// An instance is there, or has changed.
    Put {
        /// When.
        revision: u64,
        /// The node's wall clock.
        clock_ms: u64,
        /// The instance, as a line.
        instance: String,
    },
    /// An instance is gone.
    Removed {
        /// When.
        revision: u64,
        /// The node's wall clock.
        clock_ms: u64,
        /// Its name.
        name: String,
    },
}

/// What nodes tell each other.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who says this, first of all.
    Node {
        /// The node.
        id: u64,
    },
    /// An instance is there, or still is: all of it each time, since a node may have forgotten it meanwhile.
    Put {
        /// The instance, as a line.
        instance: String,
        /// For how long.
        lease_ms: u32,
        /// Which process it is.
        incarnation: u64,
        /// For how long that has been known, in milliseconds.
        age_ms: u32,
        /// When it was said.
        stamp: Stamp,
    },
    /// An instance has left.
    Removed {
        /// Which.
        key: Key,
        /// Which process it was.
        incarnation: u64,
        /// For how long it would have been there.
        lease_ms: u32,
        /// For how long that has been known, in milliseconds.
        age_ms: u32,
        /// When it was said.
        stamp: Stamp,
    },
    /// All that was known when this was said has been said: behind what there was at first, and then every second.
    UpToDate,
}

/// How many instances of a service there are.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// The service.
    pub service: String,
    /// Its instances.
    pub instances: u32,
}

/// For instances, and for whoever calls them.
#[ringcall::service]
pub trait Registry {
    /// Registers an instance, or says that one is still there, which has to be done within its lease.
    #[method(idempotent)]
    async fn register(&self, registration: Registration) -> Result<Registered, Refused>;

    /// The group that an instance is to be in, for those who ask before they register: as in [`Registered`].
    #[method(idempotent)]
    async fn placement(&self, instance: String) -> Result<Option<Placement>, Refused>;

    /// What this node knows of the groups of a service, for operators.
    #[method(idempotent)]
    async fn group_rules(&self, service: String) -> Result<GroupRules, Refused>;

    /// Takes an instance back. It is no error if it is not there, or is another process by now.
    #[method(idempotent)]
    async fn withdraw(&self, withdrawal: Withdrawal);

    /// All instances of a service, and then what changes, as it changes.
    async fn watch(
        &self,
        cx: &ringcall::Context,
        watched: Watched,
    ) -> Result<impl ringcall::Stream<Item = News>, Refused>;

    /// The services that have instances: the first thousand.
    #[method(idempotent)]
    async fn services(&self) -> Vec<ServiceCount>;

    /// The instances of a service, as lines: the first thousand.
    #[method(idempotent)]
    async fn instances(&self, service: String) -> Vec<String>;
}

/// Between nodes. Whoever may call it hears of everything.
#[ringcall::service]
pub trait Replication {
    /// All that a node knows, and then what it is told, as it is told. The first item says who it is.
    async fn replicate(
        &self,
        cx: &ringcall::Context,
    ) -> Result<impl ringcall::Stream<Item = Said>, Refused>;
}

/// How much is shown of what others say.
const SHOWN_MAX: usize = 200;

/// What others say, which may be anything, as a part of a line of the log.
pub(crate) fn shown(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(SHOWN_MAX).map(shown).collect()
}
