//! Streams of small items, all of ringcall on one thread: a handler that sends, and a task that takes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringcall::{Shard, ShardConfig, Stream, View, WaitPolicy};

/// What is streamed: 64 bytes, of which the first eight are a number.
#[ringcall::message]
#[derive(Debug)]
pub struct Tick {
    /// Counts up.
    pub number: u64,
    /// The rest.
    pub bytes: [u8; 56],
}

/// What is called.
#[ringcall::service]
pub trait Ticks {
    /// Ticks without end.
    async fn ticks(&self) -> impl Stream<Item = Tick>;
}

struct Clock;

struct Endless(u64);

impl Stream for Endless {
    type Item = Tick;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Tick>> {
        self.0 += 1;
        Poll::Ready(Some(Tick { number: self.0, bytes: [7; 56] }))
    }
}

impl Ticks for Clock {
    async fn ticks(&self) -> impl Stream<Item = Tick> {
        Endless(0)
    }
}

/// How many items are wanted, and have come.
#[derive(Default)]
struct Wanted {
    left: Cell<u64>,
    sum: Cell<u64>,
    waiting: RefCell<Option<Waker>>,
}

/// A shard with one stream from itself to itself.
pub struct Items {
    shard: Shard,
    wanted: Rc<Wanted>,
}

impl Items {
    /// A stream that has run a while.
    #[must_use]
    pub fn new() -> Items {
        let mut config = ShardConfig::default();
        config.wait = WaitPolicy::Spin;
        let shard = Shard::new(config).expect("there is an engine");
        shard.serve(Clock.into_ticks()).expect("its methods are free");
        let address = shard.listen("127.0.0.1:0").expect("there is a port");
        let client = shard.block_on(shard.connect(address)).expect("it accepts");
        let wanted = Rc::<Wanted>::default();
        let taker = Rc::clone(&wanted);
        shard.spawn(async move {
            let mut ticks = TicksClient::new(client).ticks().await.expect("it begins");
            loop {
                std::future::poll_fn(|cx| taker.poll_wanted(cx)).await;
                let tick: View<Tick> = ticks.next().await.expect("endless").expect("a tick");
                taker.sum.set(taker.sum.get() + tick.number.to_native());
            }
        });
        let mut items = Items { shard, wanted };
        items.run(10_000);
        items
    }

    /// Takes so many. Returns the sum of their numbers.
    pub fn run(&mut self, items: u64) -> u64 {
        self.wanted.sum.set(0);
        self.wanted.left.set(items);
        self.wanted.waiting.take().into_iter().for_each(Waker::wake);
        self.shard.run(|| self.wanted.waiting.borrow().is_none());
        self.wanted.sum.get()
    }
}

impl Default for Items {
    fn default() -> Items {
        Items::new()
    }
}

impl Wanted {
    fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Poll::Ready(())
            }
            None => {
                *self.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_once_and_in_order() {
        let mut items = Items::new();
        let first = 10_001;
        assert_eq!(items.run(1000), (first..first + 1000).sum::<u64>());
        assert_eq!(items.run(10), (first + 1000..first + 1010).sum::<u64>());
    }
}
