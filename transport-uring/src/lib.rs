//! The io_uring engine: a [`Transport`](ringcall_core::Transport) whose operations are the kernel's own
//! completions.
//!
//! One ring a thread. Data is received by multishot operations into a ring of provided buffers, which are
//! blocks of the shard's pool: a chunk that is handed up *is* the buffer that the kernel filled, and
//! another block takes its place. Large bodies are received one shot at a time, straight into their own
//! memory. A connection has one send in flight. A turn enters the kernel once: what was submitted goes in,
//! what has completed comes out.
//!
//! # Who owns memory
//!
//! What an operation refers to (socket, buffer, segments) belongs to the driver until the operation's
//! *terminal* completion, also when it was cancelled: success after a cancel happens. Completions name
//! their operation by kind, index and generation, and one that is not expected is not believed.
//! [`Uring`] cancels and reaps what is in flight when it is dropped, and leaks what does not come back
//! rather than free what the kernel may still write.
//!
//! # Where it runs
//!
//! [`Features::probe`] sets a ring up with everything, and without one flag after another where the
//! kernel refuses, and then proves on a socket pair that data arrives. Kernels before 5.11, and systems
//! that forbid io_uring (a seccomp profile such as Docker's, `kernel.io_uring_disabled`), give a
//! [`Refusal`] that says why.

mod buffers;
mod connection;
mod engine;
mod features;
mod kernel;
mod token;

pub use engine::{Uring, UringConfig};
pub use features::{Features, Refusal};
pub use kernel::{Completion, Kernel, Op, Ring};
pub use token::Token;
