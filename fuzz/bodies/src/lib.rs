//! What the fuzz targets do, as plain functions of bytes.
//!
//! `cargo test` replays their corpora and runs each for a while on damaged ones, so that they are of use
//! without libFuzzer; `fuzz/run` runs them under it. A body panics when something is wrong.
//! `docs/FUZZING.md` says what each of them holds.

#![deny(unsafe_code)]

mod canary;
mod connection;
mod fallback;
mod frames;
mod generic;
mod handshake;
pub mod havoc;
mod inflate;
mod records;
mod ring;
mod shapes;
mod tls;
mod views;

#[path = "../../../core/tests/harness/mod.rs"]
mod harness;

#[allow(unsafe_code, reason = "it writes to memory as the kernel would")]
#[path = "../../../transport-uring/tests/script/mod.rs"]
mod script;

pub use canary::canary;
pub use connection::connection;
pub use fallback::fallback;
pub use frames::frames;
pub use generic::generic;
pub use handshake::handshake;
pub use inflate::inflate;
pub use records::records;
pub use ring::ring;
pub use shapes::shapes;
pub use tls::tls;
pub use views::views;

/// A body, and its name: that of its target and its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them but the [`canary`].
pub const TARGETS: [Target; 11] = [
    ("frames", frames),
    ("handshake", handshake),
    ("connection", connection),
    ("views", views),
    ("shapes", shapes),
    ("fallback", fallback),
    ("ring", ring),
    ("inflate", inflate),
    ("records", records),
    ("tls", tls),
    ("generic", generic),
];
