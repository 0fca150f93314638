//! What servers and clients do, through the facade alone; most of it over every pair of engines and both kinds of sockets.
//!
//! One program, since each of them is linked with all that the facade has, and since tests that wait do so at the same
//! time. What changes its process for good, or counts all that happens in it, is in a program of its own beside this
//! folder, or in a [process of its own](alone).

#[cfg(feature = "cluster")]
mod absence;
mod access;
mod alone;
mod any;
mod common;

#[cfg(feature = "cluster")]
mod balanced_streams;
mod bodies;
mod both_ways;
mod calls;
mod cancel;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(all(feature = "lz4", feature = "zstd"))]
mod compression;
#[cfg(all(feature = "cluster", feature = "serde"))]
mod configured;
mod deduplication;
mod encoded;
mod ending;
mod evolution;
mod fallback;
mod faults;
mod filters;
mod health;
mod hosted;
mod in_place;
#[cfg(feature = "tokio")]
mod in_tokio;
mod memory;
mod messages;
mod metadata;
mod names;
mod network;
mod observe;
mod overload;
mod python;
mod reading;
mod reconnect;
mod record;
mod refusals;
mod restart;
mod settings;
mod shapes;
mod shared;
#[cfg(feature = "sim")]
mod sim;
mod smoke;
mod spawned;
mod starting;
mod streams;
mod threads;
#[cfg(feature = "cluster")]
mod tied;
#[cfg(feature = "tls")]
mod tls;
mod untyped;
mod untyped_streams;

/// A file that is not named above would be compiled by nobody.
#[test]
fn every_file_is_a_module() {
    let this = include_str!("main.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").filter(|name| *name != "main");
        assert!(module.is_none_or(|name| this.contains(&format!("\nmod {name};\n"))), "{name}");
    }
}
