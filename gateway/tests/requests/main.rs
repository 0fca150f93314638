//! A gateway in front of a real server, asked by real requests.

mod calls;
mod connections;
mod headers;
mod hostile;
mod knowledge;
mod pages;
mod statuses;
mod streams;
mod support;
