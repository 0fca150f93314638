//! What the compilers of Cap'n Proto and volo made of `idl/`. Checked in, since the first is no Rust
//! program and the second needs two hundred crates; the README says how to make them again.

#[rustfmt::skip]
#[allow(warnings, clippy::all)]
pub(crate) mod echo_capnp;
include!("echo_thrift.rs");
