//! All of ringcall on one thread: a shard that calls itself over a socket, through a generated client, the
//! table of methods, a handler and back.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;

use ringcall::{Body, Bytes, LocalClient, Shard, ShardConfig, View, WaitPolicy};

use crate::messages::{Order, Summed, order};
use crate::tally::Tally;

/// What is called.
#[ringcall::service]
pub trait Sums {
    /// The sum of an order's sizes, read where it landed.
    async fn sum(&self, order: View<Order>) -> u64;
    /// The same bytes again, without a codec.
    async fn echo(&self, body: Body) -> Bytes;
}

struct Adder;

impl Sums for Adder {
    async fn sum(&self, order: View<Order>) -> u64 {
        Order::sum_received(&order)
    }

    async fn echo(&self, body: Body) -> Bytes {
        body.share().into()
    }
}

/// A shard whose tasks call itself.
pub struct Dispatch {
    shard: Shard,
    tally: Rc<Tally>,
}

impl Dispatch {
    /// Calls with an archived message; so many of them at a time.
    #[must_use]
    pub fn sums(in_flight: u64) -> Dispatch {
        let dispatch = Dispatch::empty();
        let client = dispatch.connect();
        for _ in 0..in_flight {
            let (client, order) = (SumsClient::new(client.clone()), order());
            dispatch.add_caller(async move || {
                client.sum(&order).await.expect("it is answered").to_native()
            });
        }
        dispatch.warm(in_flight)
    }

    /// Calls with raw bodies of so many bytes.
    #[must_use]
    pub fn echoes(in_flight: u64, body_bytes: usize) -> Dispatch {
        let dispatch = Dispatch::empty();
        let client = dispatch.connect();
        let body = Bytes::from(vec![7; body_bytes]);
        for _ in 0..in_flight {
            let (client, body) = (SumsClient::new(client.clone()), body.clone());
            dispatch.add_caller(async move || {
                client.echo(&body).await.expect("it is answered").len() as u64
            });
        }
        dispatch.warm(in_flight)
    }

    /// Makes so many calls. Returns the sum of what they brought.
    pub fn run(&mut self, calls: u64) -> u64 {
        self.tally.begin(calls);
        self.shard.run(|| self.tally.ended() < calls);
        self.tally.sum()
    }

    fn empty() -> Dispatch {
        let mut config = ShardConfig::default();
        config.wait = WaitPolicy::Spin;
        let shard = Shard::new(config).expect("there is an engine");
        shard.serve(Adder.into_sums()).expect("its methods are free");
        Dispatch { shard, tally: Rc::default() }
    }

    fn connect(&self) -> LocalClient {
        let address = self.shard.listen("127.0.0.1:0").expect("there is a port");
        self.shard.block_on(self.shard.connect(address)).expect("it accepts")
    }

    fn add_caller(&self, call: impl AsyncFn() -> u64 + 'static) {
        let tally = Rc::clone(&self.tally);
        self.shard.spawn(async move {
            loop {
                poll_fn(|cx| tally.poll_admit(cx)).await;
                tally.end(call().await);
            }
        });
    }

    fn warm(mut self, in_flight: u64) -> Dispatch {
        self.run(4 * in_flight);
        self
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("tally", &self.tally).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IN_FLIGHT;

    #[test]
    fn every_call_gets_its_sum() {
        for in_flight in [1, IN_FLIGHT] {
            let mut dispatch = Dispatch::sums(in_flight);
            for calls in [1, 500] {
                assert_eq!(dispatch.run(calls), calls * order().sum());
            }
            let counters = dispatch.shard.counters();
            // And the question for the table of methods, the first time that this process meets it.
            let answered = 501 + 4 * in_flight;
            assert!((answered..=answered + 1).contains(&counters.requests_answered));
            assert_eq!(counters.copied_bytes(), 0);
        }
    }

    #[test]
    fn every_raw_body_comes_back() {
        for body_bytes in [64, 65_000] {
            let mut dispatch = Dispatch::echoes(IN_FLIGHT, body_bytes);
            assert_eq!(dispatch.run(100), 100 * body_bytes as u64);
        }
    }
}
