//! What is said of settings: between operators, those who are set up, and nodes.

use std::fmt;

use crate::Stamp;
use crate::wire::shown;

/// Of a key.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Of a text.
pub(crate) const TEXT_BYTES_MAX: usize = 256 * 1024;
/// How many keys one watch may have.
pub(crate) const KEYS_OF_A_WATCH_MAX: usize = 64;

/// A text by its key.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key: 1 to 256 bytes without control characters.
    pub key: String,
    /// The text: at most 256 KiB.
    pub text: String,
    /// When it was put: what a [`Condition`] compares.
    pub version: Stamp,
}

/// What has to be there before, or nothing is changed.
#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there, or nothing.
    Any,
    /// Nothing.
    Absent,
    /// What was put as this version.
    At {
        /// The version.
        version: Stamp,
    },
}

/// A setting that is to be there.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Its key: 1 to 256 bytes without control characters.
    pub key: String,
    /// The text: at most 256 KiB.
    pub text: String,
    /// What has to be there now.
    pub condition: Condition,
}

/// A setting that is to go.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    /// Its key.
    pub key: String,
    /// What has to be there now.
    pub condition: Condition,
}

/// Which settings are to be listed.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKeys {
    /// How their keys begin.
    pub prefix: String,
    /// Only keys behind this one, in the order of bytes: the last of those that were listed before. Empty at first.
    pub after: String,
}

/// A setting in a list, without its text.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: Stamp,
    /// How long its text is.
    pub bytes: u32,
}

/// Why the centre did not do it.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declined {
    /// There is something else than the [`Condition`] says.
    Conflict {
        /// What is there; `None` if nothing is.
        there: Option<Setting>,
    },
    /// Nothing is there.
    NoSuchKey,
    /// A key has 1 to 256 bytes, and no control characters.
    BadKey,
    /// The text is too long.
    TooLong {
        /// How long it may be.
        bytes_max: u32,
    },
    /// There is no room for it.
    Full {
        /// How many keys there may be, and as many that were removed.
        keys_max: u32,
        /// How many bytes they may have.
        bytes_max: u64,
    },
    /// This node has nothing to keep settings on.
    NoDirectory,
    /// It could not be written to disk. It may be there all the same when the node has started again.
    NotWritten {
        /// What the system says.
        what: String,
    },
    /// A watch has 1 to 64 keys.
    BadWatch,
    /// So many keys are watched (`CentreConfig::watches_max`), or 32 nodes listen, that it takes no more.
    Busy,
    /// The node has just started, and has not heard yet what the others know.
    Starting,
    /// What is there is of a time more than a day ahead of the node's clock, and what was put in place of it would be later: no other
    /// node would take it.
    Ahead {
        /// What is there: its file in the node's directory.
        file: String,
    },
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Declined::Conflict { there: None } => f.write_str("nothing is there"),
            Declined::Conflict { there: Some(there) } => {
                write!(f, "version {} is there, with {} bytes", there.version, there.text.len())
            }
            Declined::NoSuchKey => f.write_str("no setting has this key"),
            Declined::BadKey => f.write_str("a key has 1 to 256 bytes and no control characters"),
            Declined::TooLong { bytes_max } => write!(f, "a text has {bytes_max} bytes at most"),
            Declined::Full { keys_max, bytes_max } => write!(
                f,
                "there may be {keys_max} keys, as many that were removed (`CentreConfig::keys_max`), and {bytes_max} \
                 bytes (`CentreConfig::bytes_max`)"
            ),
            Declined::NoDirectory => f.write_str(
                "this node keeps nothing on disk, so it takes no settings: ask another one, or start it with \
                 `CentreConfig::directory` (`--directory`)",
            ),
            Declined::NotWritten { what } => {
                let what = shown(what);
                write!(f, "it could not be written to disk (it may be there all the same): {what}")
            }
            Declined::BadWatch => {
                write!(f, "a watch has 1 to {KEYS_OF_A_WATCH_MAX} keys")
            }
            Declined::Busy => f.write_str(
                "so many keys are watched (`CentreConfig::watches_max`), or nodes listen, that it takes no more",
            ),
            Declined::Starting => {
                f.write_str("the node has just started, and has not heard the others yet")
            }
            Declined::Ahead { file } => write!(
                f,
                "what is there is of a time more than a day ahead, and no other node takes what is later: a clock is or was wrong. \
                 When it is right, start the node without the file {} of its directory, and put the setting anew",
                shown(file)
            ),
        }
    }
}

impl std::error::Error for Declined {}

/// A key to watch.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedKey {
    /// The key.
    pub key: String,
    /// The version that was heard, from whichever node. Only what is later is told.
    pub heard: Option<Stamp>,
}

/// What a watcher is told of a key.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingNews {
    /// It has this text.
    Put {
        /// The setting.
        setting: Setting,
    },
    /// It was removed.
    Removed {
        /// The key.
        key: String,
        /// When.
        version: Stamp,
    },
    /// The node has never heard of it, or not for long. Only at first.
    Unknown {
        /// The key.
        key: String,
    },
}

/// What a node keeps of a key.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingRecord {
    /// The key.
    pub key: String,
    /// The text; `None` if it was removed.
    pub text: Option<String>,
    /// When it was put or removed.
    pub version: Stamp,
    /// What was there then, as far as the node knew that was asked.
    pub over: Option<Stamp>,
}

/// What nodes tell each other of settings.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingSaid {
    /// Who says this, first of all.
    Node {
        /// The node.
        id: u64,
    },
    /// What it keeps of a key.
    Record {
        /// That.
        record: SettingRecord,
    },
    /// All that was known when this was said has been said: behind what there was at first, and then every second.
    UpToDate,
}

/// What a node has, and what has become of what it was told, since it started.
#[ringcall::message]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CentreCounts {
    /// Settings that there are.
    pub settings: u64,
    /// Keys of which it is remembered that they were removed.
    pub removed: u64,
    /// What settings take, with 512 bytes for each key.
    pub bytes: u64,
    /// Keys that are watched, counted for each who watches.
    pub watches: u64,
    /// Puts and removals that are not in force any more although whoever put what is had not known them.
    pub overwritten: u64,
    /// What other nodes said that cannot be, was of a time too far ahead, or had no room.
    pub not_taken: u64,
    /// What could not be written to disk: puts, which were refused, and what other nodes said, which is tried again.
    pub not_written: u64,
}

/// Settings of a whole cluster: for operators, and for those who are set up.
#[ringcall::service]
pub trait Configuration {
    /// Puts a text in place of what is there, once it is on disk. Says its version.
    #[method(offload, deadline = "10s")]
    async fn put(&self, put: Put) -> Result<Stamp, Declined>;

    /// Removes a setting, once that is on disk. Says as which version. Those who watch keep what they have.
    #[method(offload, deadline = "10s")]
    async fn remove(&self, remove: Remove) -> Result<Stamp, Declined>;

    /// What this node knows of a key.
    #[method(idempotent)]
    async fn get(&self, key: String) -> Result<Setting, Declined>;

    /// The settings whose keys begin so, in the order of their bytes: a thousand at a time.
    #[method(idempotent)]
    async fn list(&self, list: ListKeys) -> Vec<Listed>;

    /// What this node has, and what was counted.
    #[method(idempotent)]
    async fn status(&self) -> CentreCounts;

    /// What there is of these keys, and then what changes: each time the latest, which need not be all there was.
    async fn watch(
        &self,
        cx: &ringcall::Context,
        keys: Vec<WatchedKey>,
    ) -> Result<impl ringcall::Stream<Item = SettingNews>, Declined>;
}

/// Between nodes. Whoever may call it hears of everything.
#[ringcall::service]
pub trait ConfigurationReplication {
    /// All that a node keeps, and then what it comes to keep. The first item says who it is.
    async fn replicate(
        &self,
        cx: &ringcall::Context,
    ) -> Result<impl ringcall::Stream<Item = SettingSaid>, Declined>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_a_part_of_a_line() {
        let said = format!("no room\nERROR \u{1b}[2J{}", "x".repeat(10_000));
        for declined in
            [Declined::NotWritten { what: said.clone() }, Declined::Ahead { file: said.clone() }]
        {
            let line = declined.to_string();
            assert!(line.contains("no room ERROR  [2Jx") && line.len() < 1000, "{line}");
        }
    }
}
