//! The epoll engine: a [`Transport`](ringcall_core::Transport) for Linux without io_uring.
//!
//! It imitates completions: what the kernel takes at once is done at once, the rest is kept here until
//! the socket is writable again. Readiness is level-triggered, so nothing is lost by reading once a
//! turn, which keeps connections fair. Received data goes into one arena for all connections; large
//! bodies are received straight into their own memory.

#![forbid(unsafe_code)]

mod connection;
mod engine;

pub use engine::{Epoll, EpollConfig};
