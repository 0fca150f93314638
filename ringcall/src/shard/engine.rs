//! Which engine a shard runs on.
//!
//! The epoll engine is the only one built in so far; another one becomes a variant here, chosen by a
//! probe.

use std::fmt;

use ringcall_core::{Memory, Park, Transport, TransportError};
use ringcall_epoll::{Epoll, EpollConfig};

pub(crate) type Engine = Epoll;
pub(crate) type Socket = <Engine as Transport>::Socket;
pub(crate) type Bell = <Engine as Park>::Bell;

pub(crate) fn new_engine(memory: &Memory, reuse_port: bool) -> Result<Engine, TransportError> {
    let mut config = EpollConfig::default();
    config.listen.reuse_port = reuse_port;
    Epoll::new(memory, config)
}

/// Which engine moves the bytes, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportInfo {
    /// Its name.
    pub name: &'static str,
    /// Why it was chosen.
    pub reason: String,
}

impl TransportInfo {
    pub(crate) fn of_engine() -> TransportInfo {
        TransportInfo { name: "epoll", reason: "the only engine that this version has".to_owned() }
    }
}

impl fmt::Display for TransportInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.reason)
    }
}
