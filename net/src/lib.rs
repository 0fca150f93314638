//! What every Linux engine shares, so that it is written and tested once: how sockets are made and
//! set up, how another thread wakes a parked engine, how a loop of somebody else hosts one, how a
//! listener goes to a successor, and what to do when file descriptors run out.

#![forbid(unsafe_code)]

mod accept;
mod doorbell;
mod handover;
mod hosted;
mod slots;
mod socket;
mod transfer;

pub use accept::AcceptGate;
pub use doorbell::Doorbell;
pub use handover::Handover;
pub use hosted::Hosted;
pub use slots::Slots;
pub use socket::{
    ListenOptions, ListenSocket, connect, connections_max, set_up_accepted, transport_error,
};
pub use transfer::{receive_some, send_some};
