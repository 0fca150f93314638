//! The tool against real servers: most of it in this process, a little as a program.

mod binary;
mod commands;
mod health;
mod hostile;
mod load;
mod registry;
mod served;
mod streams;
#[cfg(feature = "tls")]
mod tls;
mod top;
