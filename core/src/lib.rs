//! The protocol core of ringcall: a connection as a value.
//!
//! Nothing in this crate does I/O, starts a thread, reads a clock or takes a random number. Bytes and
//! time are arguments, so the same inputs always give the same outputs: a connection can be
//! simulated, fuzzed, replayed, and driven by whatever moves bytes.
//!
//! * [`Connection`] is the state machine: framing, correlation, deadlines, credit, limits.
//! * [`Endpoint`] drives many connections over one [`Transport`], a step at a time.
//! * [`frame`] is the wire format, specified in `docs/PROTOCOL.md`.
//! * [`Channel`] and [`Payload`] are what typed clients are built on.
//! * [`record`] notes what is done to a connection, and does it again.
//! * [`RetryBudget`] bounds how much load retries may add, [`Backoff`] spreads clients that connect again.
//!
//! `examples/embed_core.rs` shows a connection driven by hand.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// Whether a defence is switched off: a constant, `false` unless built with `--cfg bug="name"`. `cargo xtask
/// mutants` does that with each, to see that the simulator or a test notices.
macro_rules! bug {
    ($name:literal) => {
        cfg!(bug = $name)
    };
}

mod backoff;
mod channel;
mod config;
mod connection;
mod counters;
mod endpoint;
mod error;
pub mod frame;
mod identity;
mod ids;
mod memory;
mod payload;
pub mod record;
mod retry_budget;
mod status;
mod time;
mod transport;
mod wheel;

pub use backoff::Backoff;
pub use channel::{
    Answer, Arrived, Channel, Outgoing, OwnedChannel, OwnedStreamChannel, StreamCall, StreamChannel,
};
pub use config::{Config, ConfigError};
pub use connection::{
    CREDENTIALS_BYTES_MAX, Call, Cancellation, Connection, CredentialsTooLong, Event, Item,
    ItemError, LAND_BYTES_MIN, Outcome, ReceiveHint, Reply, ReplyError, Request, SendQueue,
};
pub use counters::Counters;
pub use endpoint::{Endpoint, EndpointEvent, Polled};
pub use error::{
    Cause, CloseCode, CloseReason, Failure, FailureClass, Missing, Refused, ServiceName, TlsFault,
    TransportError,
};
pub use identity::{BadIdentity, Expected, Identity, Mismatch};
pub use ids::{
    CALLS_BEGUN, CallId, METHODS_PAGE, MessageId, RequestId, Side, StreamId, is_method_name,
    method_id,
};
pub use memory::{Memory, MemoryLimits};
pub use payload::{
    Attached, Codec, Empty, EncodeError, Encoded, Encoding, Extended, Payload, REFERENCE_BYTES_MIN,
    Transcode,
};
pub use retry_budget::RetryBudget;
pub use status::{Refusal, Status, StatusClass};
pub use time::{Clock, Entropy, Instant, SplitMix64};
pub use transport::{
    Address, BadAddress, Batch, Bell, ByteLayer, Handle, Listener, Park, Plain, Receive, Transport,
    TransportEvent, Write, Written,
};
pub use wheel::Wheel;

#[doc(no_inline)]
pub use ringcall_buf::{
    Chunk, ChunkMut, External, Frozen, Object, ObjectError, Reservation, Segment, SharedChunk,
    SharedPool, SharedSegment, Writer,
};
