//! Records of connections, and their replay.
//!
//! The same inputs give the same outputs, so the inputs of a connection are all of it: bytes, time and verbs.
//! [`Connection::record`](crate::Connection::record) notes them, with a digest of what came out; a [`Record`] is
//! read back from its bytes, and [`Replay`] does it again, step by step, and says where something else comes
//! out. `docs/REPLAY.md` has the form of a record, `cargo xtask replay` shows one.

mod digest;
mod file;
mod input;
mod pieces;
mod recorder;
mod replay;
mod snapshot;
mod values;
mod walker;

pub(crate) use digest::Digest;
pub use file::{Record, RecordError, RecordedSteps, Step};
pub use input::{Input, RecordedBody, RecordedPayload, Rest};
pub use pieces::{Piece, Pieces};
pub(crate) use recorder::{Hides, Taped};
pub use recorder::{Keep, MemoryState, RecordSettings, Recorder, TooLate};
pub use replay::{Output, Replay, ReplayError};
pub use snapshot::Snapshot;
pub use walker::Start;
