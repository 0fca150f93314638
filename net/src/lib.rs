//! What every Linux engine shares, so that it is written and tested once: how sockets are made and
//! set up, how an engine listens and what it does when file descriptors run out, how a listener goes to a
//! successor, how files are sent and written, which connection is received from directly, how another thread
//! wakes a parked engine, and how a loop of somebody else hosts one.

#![deny(unsafe_code)]

mod accept;
mod doorbell;
mod file;
mod handover;
mod hosted;
mod hot;
mod listeners;
mod loopback;
mod memory;
#[cfg(all(test, ringcall_loom))]
mod models;
#[allow(unsafe_code, reason = "no library waits for a signal without waiting")]
mod quiet_pipe;
mod signal;
mod slots;
mod socket;
mod tally;
mod transfer;

pub use accept::AcceptGate;
pub use doorbell::Doorbell;
pub use file::SharedFile;
pub use handover::Handover;
pub use hosted::Hosted;
pub use hot::Hot;
pub use listeners::{Accepted, Listeners, Listening};
pub use loopback::{Window, set_up_loopback};
pub use memory::memory_max;
pub use slots::Slots;
pub use socket::{
    ListenOptions, ListenSocket, connect, connections_max, set_up_accepted, transport_error,
};
pub use tally::{Count, Tally};
pub use transfer::{Unsent, receive_some, send_some};
