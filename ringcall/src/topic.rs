//! One publisher, many streams: what a server pushes to whoever has subscribed.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::iter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use parking_lot::Mutex;

use crate::block_on::block_on;
use crate::observe::{Event, Observer, Observers};
use crate::shard::Draining;
use crate::wakers::Wakers;

/// What happens to a subscriber that does not take items as fast as they are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// The publisher waits for it, and so do all others.
    Wait,
    /// It misses the oldest items that it has not taken; [`Subscription::dropped`] counts them.
    DropOldest,
    /// Its stream ends, after what it has not taken.
    Close,
}

impl fmt::Display for SlowConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SlowConsumer::Wait => "wait",
            SlowConsumer::DropOldest => "drop oldest",
            SlowConsumer::Close => "close",
        })
    }
}

/// Hands each item that is published to all who have subscribed: return a [`Subscription`] from a
/// handler, and the server pushes.
///
/// ```
/// use ringcall::{SlowConsumer, Topic};
///
/// let prices = Topic::new(64, SlowConsumer::DropOldest);
/// let mut subscription = prices.subscribe();
/// prices.publish(42)?;
/// # ringcall::Shard::new(Default::default()).unwrap().block_on(async {
/// assert_eq!(subscription.next().await, Some(42));
/// # });
/// # Ok::<(), i32>(())
/// ```
///
/// Clones are the same topic, on any thread. When the last one is dropped, the streams of its subscribers
/// end, after what they have not taken. Each subscriber has a buffer of its own, so a topic holds at most
/// its capacity times the number of subscribers. What the transport has taken from a buffer is on its way:
/// the policy is about those items that a stalled connection no longer takes.
pub struct Topic<T>(Arc<Owner<T>>);

/// Common to the topic's handles: the last of them ends the streams.
struct Owner<T>(Arc<Shared<T>>);

struct Shared<T> {
    capacity: usize,
    policy: SlowConsumer,
    observers: Observers,
    state: Mutex<State<T>>,
}

struct State<T> {
    subscribers: Vec<Option<Subscriber<T>>>,
    /// Publishers that wait for room.
    publishers: Wakers,
    /// Room for those who are being woken, so that publishing allocates nothing when warm.
    scratch: Vec<Waker>,
    /// No topic is left.
    is_over: bool,
}

struct Subscriber<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
    dropped: u64,
    /// It gets nothing more.
    is_closed: bool,
    was_slow: bool,
}

impl<T> Subscriber<T> {
    fn is_full(&self, capacity: usize) -> bool {
        self.items.len() >= capacity && !self.is_closed
    }
}

/// A publisher that may wait for room, until it has published or is given up.
struct Waiting<'a, T> {
    shared: &'a Shared<T>,
    /// Once it has waited.
    place: Option<usize>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if self.place.is_some() {
            let left = self.shared.state.lock().publishers.leave(&mut self.place);
            drop(left);
        }
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        let wakers: Vec<Waker> = {
            let mut state = self.0.state.lock();
            state.is_over = true;
            state.subscribers.iter_mut().flatten().filter_map(|it| it.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> Topic<T> {
    /// A topic whose subscribers may each be so many items behind.
    ///
    /// # Panics
    /// When `capacity` is zero.
    #[must_use]
    pub fn new(capacity: usize, policy: SlowConsumer) -> Topic<T> {
        Topic::with(capacity, policy, Observers::default())
    }

    /// The same, and tells an observer of each item that a slow subscriber misses, and of each subscriber that
    /// is closed: [`Event::SlowSubscriber`].
    ///
    /// # Panics
    /// When `capacity` is zero.
    #[must_use]
    pub fn observed(
        capacity: usize,
        policy: SlowConsumer,
        observer: Arc<dyn Observer>,
    ) -> Topic<T> {
        let mut observers = Observers::default();
        observers.add(observer);
        Topic::with(capacity, policy, observers)
    }

    fn with(capacity: usize, policy: SlowConsumer, observers: Observers) -> Topic<T> {
        assert!(capacity > 0, "a subscriber needs room for an item");
        let state = State {
            subscribers: Vec::new(),
            publishers: Wakers::default(),
            scratch: Vec::new(),
            is_over: false,
        };
        Topic(Arc::new(Owner(Arc::new(Shared {
            capacity,
            policy,
            observers,
            state: Mutex::new(state),
        }))))
    }

    /// Publishes an item to those who have subscribed now. Never waits.
    ///
    /// # Errors
    /// The item, under [`SlowConsumer::Wait`], when some subscriber has no room: nobody has got it.
    pub fn publish(&self, item: T) -> Result<(), T> {
        self.try_publish(item, None)
    }

    /// Publishes an item as soon as every subscriber has room, which only [`SlowConsumer::Wait`] asks for.
    pub async fn send(&self, item: T) {
        let mut waiting = Waiting { shared: &self.0.0, place: None };
        let mut item = Some(item);
        poll_fn(|cx| {
            let left = item
                .take()
                .map(|left| self.try_publish(left, Some((&mut waiting.place, cx.waker()))));
            match left {
                Some(Err(left)) => {
                    item = Some(left);
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// [`send`](Topic::send), waited for. Not on a shard's thread, which others wait for.
    pub fn send_wait(&self, item: T) {
        block_on(self.send(item));
    }

    /// Subscribes to what is published from now on.
    #[must_use = "dropping a subscription ends it"]
    pub fn subscribe(&self) -> Subscription<T> {
        let shared = Arc::clone(&self.0.0);
        let subscriber = Subscriber {
            items: VecDeque::new(),
            waker: None,
            dropped: 0,
            is_closed: false,
            was_slow: false,
        };
        let index = {
            let mut state = shared.state.lock();
            let free = state.subscribers.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                state.subscribers.push(None);
                state.subscribers.len() - 1
            });
            state.subscribers[index] = Some(subscriber);
            index
        };
        Subscription { shared, index, until: None }
    }

    /// How many have subscribed.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.0.0.state.lock().subscribers.iter().flatten().count()
    }

    fn try_publish(&self, item: T, waiting: Option<(&mut Option<usize>, &Waker)>) -> Result<(), T> {
        let Shared { capacity, policy, observers, state } = &*self.0.0;
        let (mut missed, mut closed) = (0, 0);
        let mut state = state.lock();
        if *policy == SlowConsumer::Wait
            && state.subscribers.iter().flatten().any(|it| it.is_full(*capacity))
        {
            let before = waiting.and_then(|(place, waker)| state.publishers.keep(place, waker));
            drop(state);
            drop(before);
            return Err(item);
        }
        let mut wakers = std::mem::take(&mut state.scratch);
        for subscriber in state.subscribers.iter_mut().flatten() {
            if subscriber.is_closed {
                continue;
            }
            if subscriber.is_full(*capacity) {
                if *policy == SlowConsumer::Close {
                    subscriber.is_closed = true;
                    subscriber.was_slow = true;
                    closed += 1;
                    continue;
                }
                subscriber.items.pop_front();
                subscriber.dropped += 1;
                missed += 1;
            }
            subscriber.items.push_back(item.clone());
            wakers.extend(subscriber.waker.take());
        }
        drop(state);
        if wakers.capacity() > 0 {
            wakers.drain(..).for_each(Waker::wake);
            self.0.0.state.lock().scratch = wakers;
        }
        if missed + closed > 0 && !observers.is_empty() {
            let told = iter::repeat_n(false, missed).chain(iter::repeat_n(true, closed));
            told.for_each(|is_closed| observers.tell(&Event::SlowSubscriber { is_closed }));
        }
        Ok(())
    }
}

impl<T> Clone for Topic<T> {
    fn clone(&self) -> Topic<T> {
        Topic(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Topic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("capacity", &self.0.0.capacity)
            .field("policy", &self.0.0.policy)
            .finish_non_exhaustive()
    }
}

/// What is published, for one subscriber: a [`Stream`]. Dropping it unsubscribes.
///
/// A handler that returns one goes on for ever, and a drain of its server waits for it until its time is over:
/// `topic.subscribe().until(cx.draining())` ends then, see [`until`](Subscription::until).
pub struct Subscription<T> {
    shared: Arc<Shared<T>>,
    index: usize,
    /// When it ends; `None` once it has.
    until: Option<Draining>,
}

impl<T> Subscription<T> {
    /// Ends when a server begins to [drain](crate::Context::draining): it gets nothing that is published from then on, and
    /// ends after what it has not taken.
    #[must_use = "dropping a subscription ends it"]
    pub fn until(mut self, draining: Draining) -> Subscription<T> {
        self.until = Some(draining);
        self
    }

    /// The next item; `None` when the topic is gone, has closed this subscription, or it has [ended](Subscription::until).
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// How many items it has missed because it was slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let state = self.shared.state.lock();
        state.subscribers[self.index].as_ref().map_or(0, |subscriber| subscriber.dropped)
    }

    /// Whether it was closed because it was slow.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let state = self.shared.state.lock();
        state.subscribers[self.index].as_ref().is_some_and(|subscriber| subscriber.was_slow)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.until.as_ref().is_some_and(Draining::is_begun) {
            self.close();
        }
        let polled = self.poll_item(cx);
        let is_time = |until: &mut Draining| Pin::new(until).poll(cx).is_ready();
        if polled.is_pending() && self.until.as_mut().is_some_and(is_time) {
            self.close();
            // Something may have been published in between.
            return self.poll_item(cx);
        }
        polled
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.state.lock();
        let is_over = state.is_over;
        let Some(subscriber) = state.subscribers[self.index].as_mut() else {
            return Poll::Ready(None);
        };
        let Some(item) = subscriber.items.pop_front() else {
            if subscriber.is_closed || is_over {
                return Poll::Ready(None);
            }
            subscriber.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let publishers = state.publishers.all();
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(item))
    }
}

impl<T> Subscription<T> {
    /// It gets nothing more, and nobody waits until it has room.
    fn close(&mut self) {
        self.until = None;
        let mut state = self.shared.state.lock();
        if let Some(subscriber) = &mut state.subscribers[self.index] {
            subscriber.is_closed = true;
        }
        let publishers = state.publishers.all();
        drop(state);
        publishers.into_iter().for_each(Waker::wake);
    }
}

impl<T> Stream for Subscription<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().poll(cx)
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let (gone, publishers) = {
            let mut state = self.shared.state.lock();
            (state.subscribers[self.index].take(), state.publishers.all())
        };
        drop(gone);
        publishers.into_iter().for_each(Waker::wake);
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(subscription: &mut Subscription<T>) -> Poll<Option<T>> {
        subscription.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn drop_oldest_counts_what_was_missed() {
        let topic = Topic::new(3, SlowConsumer::DropOldest);
        let (mut slow, mut fast) = (topic.subscribe(), topic.subscribe());
        for number in 0..5 {
            topic.publish(number).unwrap();
            assert_eq!(now(&mut fast), Poll::Ready(Some(number)));
        }
        assert_eq!((slow.dropped(), fast.dropped()), (2, 0));
        assert_eq!(now(&mut slow), Poll::Ready(Some(2)));
        drop(topic);
        assert_eq!(now(&mut slow), Poll::Ready(Some(3)));
        assert_eq!(now(&mut slow), Poll::Ready(Some(4)));
        assert_eq!(now(&mut slow), Poll::Ready(None));
        assert_eq!(now(&mut fast), Poll::Ready(None));
    }

    #[test]
    fn an_observer_is_told_of_the_slow() {
        #[derive(Default)]
        struct Slow(Mutex<Vec<bool>>);
        impl Observer for Slow {
            fn observe(&self, event: &Event<'_>) {
                if let Event::SlowSubscriber { is_closed } = event {
                    self.0.lock().push(*is_closed);
                }
            }
        }
        let slow = Arc::new(Slow::default());
        let missing = Topic::observed(1, SlowConsumer::DropOldest, slow.clone());
        let closing = Topic::observed(1, SlowConsumer::Close, slow.clone());
        let _subscribed = (missing.subscribe(), closing.subscribe());
        for number in 0..3 {
            missing.publish(number).unwrap();
            closing.publish(number).unwrap();
        }
        assert_eq!(*slow.0.lock(), [false, true, false]);
    }

    #[test]
    fn close_ends_after_what_is_there() {
        let topic = Topic::new(2, SlowConsumer::Close);
        let mut slow = topic.subscribe();
        (0..5).for_each(|number| topic.publish(number).unwrap());
        assert!(slow.is_closed());
        assert_eq!(now(&mut slow), Poll::Ready(Some(0)));
        topic.publish(9).unwrap();
        assert_eq!(now(&mut slow), Poll::Ready(Some(1)));
        assert_eq!(now(&mut slow), Poll::Ready(None));
    }

    #[test]
    fn what_is_published_behind_its_end_is_for_others() {
        let shard = crate::Shard::new(crate::ShardConfig::default()).unwrap();
        let remote = &shard.inner().remote;
        let topic = Topic::new(2, SlowConsumer::Wait);
        let mut ending = topic.subscribe().until(Draining::of(remote));
        let mut waiting = topic.subscribe().until(Draining::of(remote));
        topic.publish(0).unwrap();
        topic.publish(1).unwrap();
        assert_eq!(now(&mut waiting), Poll::Ready(Some(0)));
        assert_eq!(topic.publish(2), Err(2), "the other has no room");
        remote.farewell.say();
        assert_eq!(now(&mut ending), Poll::Ready(Some(0)));
        topic.publish(2).unwrap();
        assert_eq!(now(&mut ending), Poll::Ready(Some(1)));
        assert_eq!(now(&mut ending), Poll::Ready(None));
        assert!(!ending.is_closed(), "it was not slow");
        // Its end is when it is looked at.
        let rest = std::iter::from_fn(|| match now(&mut waiting) {
            Poll::Ready(item) => item,
            Poll::Pending => panic!("it never ends"),
        });
        assert_eq!(rest.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn wait_gives_the_item_back_until_there_is_room() {
        let topic = Topic::new(1, SlowConsumer::Wait);
        let (mut slow, gone) = (topic.subscribe(), topic.subscribe());
        topic.publish(0).unwrap();
        assert_eq!(now(&mut slow), Poll::Ready(Some(0)));
        assert_eq!(topic.publish(1), Err(1));
        assert_eq!(now(&mut slow), Poll::Pending);
        drop(gone);
        assert_eq!((topic.publish(1), topic.subscribers()), (Ok(()), 1));
        let publisher = topic.clone();
        let sending = std::thread::spawn(move || publisher.send_wait(2));
        let received = block_on(async { (slow.next().await, slow.next().await) });
        assert_eq!(received, (Some(1), Some(2)));
        sending.join().unwrap();
    }

    #[test]
    fn whoever_waits_to_publish_is_kept_once_and_no_longer_than_that() {
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        let topic = Topic::new(1, SlowConsumer::Wait);
        let mut stalled = topic.subscribe();
        topic.publish(0).unwrap();
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let kept = || topic.0.0.state.lock().publishers.len();
        for _ in 0..100 {
            // It gives up after a moment, in which something else wakes its task.
            let mut sending = std::pin::pin!(topic.send(1));
            (0..10).for_each(|_| assert!(sending.as_mut().poll(&mut cx).is_pending()));
            assert_eq!(kept(), 1);
        }
        assert_eq!((kept(), Arc::strong_count(&task)), (0, 2));
        let mut sending = std::pin::pin!(topic.send(2));
        assert!(sending.as_mut().poll(&mut cx).is_pending());
        assert_eq!(now(&mut stalled), Poll::Ready(Some(0)));
        assert_eq!((sending.as_mut().poll(&mut cx), kept()), (Poll::Ready(()), 0));
        assert_eq!(now(&mut stalled), Poll::Ready(Some(2)));
    }
}
