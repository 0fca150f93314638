//! Calls to many instances of a service.
//!
//! Every concern is a policy without clock, I/O or randomness of its own: the time, random numbers and what
//! was seen are arguments, so that a run can be repeated.
//!
//! * [`discovery`]: which instances there are.

#![forbid(unsafe_code)]

pub mod discovery;
