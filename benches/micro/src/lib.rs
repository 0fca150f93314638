//! What ringcall's parts cost.
//!
//! Each module is one part, as functions that do a piece of work and return something that depends on
//! all of it. `benches/time.rs` times them, `benches/instructions.rs` counts their instructions, and the
//! tests here check what they return, so that a benchmark that does nothing is found out.

#![forbid(unsafe_code)]

pub mod balanced;
pub mod calls;
pub mod compression;
pub mod dispatch;
pub mod frames;
pub mod items;
mod memory;
pub mod messages;
pub mod stack;
mod tally;
pub mod timers;

/// How many calls are in flight where calls are measured.
pub const IN_FLIGHT: u64 = 16;
