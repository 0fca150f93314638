//! What is written with docs and without `unsafe` passes the lints of a strict crate.

#![deny(missing_docs, missing_debug_implementations, unreachable_pub, warnings)]
#![forbid(unsafe_code)]

/// The public part.
pub mod market {
    use ringcall::{Context, View};

    /// An order.
    #[ringcall::message(borrowed)]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Order {
        /// What is bought.
        pub symbol: String,
        /// How much of it.
        pub size: u32,
    }

    /// Why not.
    #[ringcall::message]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Refused {
        /// The market is closed.
        Closed,
        /// It may be that many. Not `TooLarge { max: u32 }`: the derive of rkyv makes a type whose fields have
        /// no docs of a variant with names.
        TooLarge(u32),
    }

    /// A part of a long answer.
    #[ringcall::message]
    #[derive(Debug)]
    pub struct Page<T>(
        /// What is on it.
        pub Vec<T>,
    );

    /// Takes orders.
    #[ringcall::service]
    pub trait Orders {
        /// Puts an order in, and gives its number.
        async fn put(&self, cx: &Context, order: View<Order>) -> Result<u64, Refused>;
        /// All orders.
        #[method(idempotent)]
        async fn all(&self) -> Page<Order>;
    }
}
