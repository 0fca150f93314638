//! What the macros accept. What they refuse, and in which words, is in `ui`.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "what is compiled is tested"
)]

mod arguments;
mod borrowed;
pub mod documented;
mod generic;
mod names;
mod private;
mod re_export;
mod send;
mod streams;
mod wrapped;
