//! A registry for ringcall: which instances of which services there are, told as it changes; and a centre of settings.
//!
//! * [`Node`] is one of a few nodes, which tell each other what they are told (the program `ringcall-registry` is one). None of
//!   them leads: each takes registrations, and all come to know the same.
//! * [`Registrar`] keeps a server registered while it takes calls.
//! * [`balanced`] is a channel to its instances; [`RegistrySource`] is what any other balanced channel
//!   [watches](ringcall::cluster::Watch).
//! * [`Centre`] keeps settings of a whole cluster, texts by key, as a node of its own or beside a [`Node`]; a [`ConfigWatch`] puts one in
//!   force as it changes.
//! * Groups of instances are moved by a setting of a node's [centre](NodeConfig::centre): servers hear of it when they are renewed.
//! * [`Quotas`] are limits of a whole cluster, of which a [`QuotaKeeper`] gets a channel its share.
//!
//! ```
//! use std::time::Duration;
//!
//! use ringcall::{BlockOn, Server, ShardConfig};
//! use ringcall_registry::{Node, NodeConfig, Registrar, Registry, balanced};
//!
//! # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> u64; }
//! # struct Book;
//! # impl Quotes for Book { async fn last(&self, _: String) -> u64 { 42 } }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::new(NodeConfig::default());
//! let _tending = node.start(ShardConfig::default())?;
//! let registry = Server::bind("127.0.0.1:0").service(node.into_registry()).start()?;
//! let registry = registry.address().to_string();
//!
//! let server = Server::bind("127.0.0.1:0")
//!     .service(Book.into_quotes())
//!     .register(Registrar::new([registry.as_str()], "quotes"))
//!     .start()?;
//!
//! let channel = balanced([registry.as_str()], "quotes").start()?;
//! channel.block_on(channel.ready().within(Duration::from_secs(10)))?;
//! let quotes = QuotesClient::new(channel);
//! assert_eq!(*quotes.last(&"ABC".to_owned()).wait()?, 42);
//! # server.stop();
//! # Ok(()) }
//! ```
//!
//! # What it promises
//!
//! **Eventually consistent, and always there.** A registration is answered by one node, which tells the others. Nodes that can
//! hear each other know the same within moments; what was said while they could not is made up for when they can. Of what
//! was said of one instance the latest counts, so all come to the same.
//!
//! **Nobody is taken away by a failure of the registry.** An instance is missed by a node when it has not said within its lease that it is
//! there, and all other nodes have said since that they are up to date; or have not been heard for [`NodeConfig::orphans`]. Whoever
//! watches keeps the last list when no node can be reached, and does not believe one from which many have vanished.
//!
//! **Nothing that was acknowledged is lost** of settings: it is on disk before it is. Of two that were put where neither was known
//! the later one counts, and the other one is counted.
//!
//! **A node keeps no instances on disk.** One that starts learns from the others, and from instances, which say three times a lease all
//! that there is to say of them.
//!
//! # Who may do what
//!
//! Nodes have no accounts of their own: [`Server::authorize_calls`](ringcall::Server::authorize_calls) decides, and TLS says who
//! that is. `register`, `placement` and `withdraw` of [`Registry`] are for servers, the rest of it for callers. `put` and
//! `remove` of [`Configuration`] are for operators, the rest of it for those who are set up. [`Replication`] and
//! [`ConfigurationReplication`] are for nodes: whoever may call them hears of everything. Nodes believe those that they are told to [listen to](NodeConfig::peers). The program has neither TLS nor
//! accounts, so it is for a network that only those can reach.

#![forbid(unsafe_code)]

mod addresses;
mod book;
mod centre;
mod channel;
mod config_watch;
mod directory;
mod error;
mod node;
mod peers;
mod placing;
mod quota;
mod registrar;
mod settings;
mod shares;
mod shelf;
mod source;
mod stamp;
mod thread;
mod wire;

pub use centre::{Centre, CentreConfig};
pub use channel::{FromRegistry, RegistryChannel, balanced};
pub use config_watch::{ConfigWatch, Configured, InForce};
pub use directory::BadDirectory;
pub use error::RegistryError;
pub use node::{Node, NodeConfig, NodeCounts};
pub use peers::Tending;
pub use quota::{Ask, NoShare, Quota, QuotaClient, QuotaKeeper, Quotas, Share};
pub use registrar::{Kept, Registrar};
pub use settings::{
    CentreCounts, Condition, Configuration, ConfigurationClient, ConfigurationReplication,
    ConfigurationReplicationClient, Declined, ListKeys, Listed, Put, Remove, Setting, SettingNews,
    SettingRecord, SettingSaid, WatchedKey,
};
pub use source::RegistrySource;
pub use wire::{
    GroupRules, Key, News, Placement, Refused, RefusedRules, Registered, Registration, Registry,
    RegistryClient, Replication, ReplicationClient, Said, ServiceCount, Stamp, Watched, Withdrawal,
};
