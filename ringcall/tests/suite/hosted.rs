//! Shards in loops of somebody else: each rule of when to turn, with a loop that does nothing but follow
//! the rules; then the adapters for runtimes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::common::{Cook, Kitchen, KitchenClient, Order, block, engines, order};
use ringcall::{
    Address, BlockingClient, CallError, Cause, Client, Failure, HostedShard, LocalClient, Shard,
    ShardConfig, TransportChoice, Turn,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

/// No test waits for so long, unless a wake was lost.
const LOST: Duration = Duration::from_secs(20);

/// A loop that hosts a shard: it turns only when the rules say so.
struct Host {
    shard: HostedShard,
    watch: Watch,
}

/// How the loop is told that the descriptor is readable.
enum Watch {
    /// That it is, by poll(2).
    State,
    /// That it has become so, by epoll's edge triggering.
    Change(OwnedFd),
}

impl Host {
    fn new(engine: TransportChoice) -> Host {
        // What is told, and when, is about waiting.
        let shard = shard(engine).hosted().unwrap().polling(Duration::ZERO);
        Host { shard, watch: Watch::State }
    }

    fn told_of_changes(mut self) -> Host {
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&outer, self.shard.as_fd(), epoll::EventData::new_u64(0), flags).unwrap();
        self.watch = Watch::Change(outer);
        self
    }

    /// Waits for so long at most; whether the descriptor was readable.
    fn wait(&self, timeout: Duration) -> bool {
        loop {
            match self.wait_once(timeout) {
                // io_uring interrupts a waiting thread to do its work there.
                Err(Errno::INTR) => {}
                count => return count.unwrap() > 0,
            }
        }
    }

    fn wait_once(&self, timeout: Duration) -> Result<usize, Errno> {
        let timeout = Timespec::try_from(timeout).unwrap();
        match &self.watch {
            Watch::State => {
                let mut fds = [PollFd::new(&self.shard, PollFlags::IN)];
                poll(&mut fds, Some(&timeout))
            }
            Watch::Change(outer) => {
                let mut events = Vec::with_capacity(1);
                let room = rustix::buffer::spare_capacity(&mut events);
                epoll::wait(outer, room, Some(&timeout))
            }
        }
    }

    fn is_readable(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Turns and waits by the rules until something is so.
    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            if self.shard.turn() == Turn::MoreWork {
                continue;
            }
            // What the last turn did may be all that was needed.
            if is_so() {
                return;
            }
            let timeout = self.shard.next_timeout();
            let was_readable = self.wait(timeout.unwrap_or(LOST).min(LOST));
            assert!(was_readable || timeout.is_some_and(|time| time < LOST), "never: {what}");
        }
    }

    /// Turns until there is nothing to do and nothing comes by itself.
    fn settle(&self) {
        for _ in 0..10_000 {
            if self.shard.turn() == Turn::Idle && !self.wait(Duration::from_millis(5)) {
                return;
            }
        }
        panic!("never idle");
    }

    /// Drives a future that is polled outside of turns, as a task of the loop would be.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let mut task = HostTask(Box::pin(future), None);
        self.until("the future is ready", || task.poll());
        task.1.take().unwrap()
    }
}

/// Polled whenever the loop looks: it must not need a waker to be made progress with.
struct HostTask<F: Future>(Pin<Box<F>>, Option<F::Output>);

impl<F: Future> HostTask<F> {
    fn poll(&mut self) -> bool {
        if self.1.is_none()
            && let Poll::Ready(output) = poll_once(self.0.as_mut())
        {
            self.1 = Some(output);
        }
        self.1.is_some()
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

fn shard(engine: TransportChoice) -> Shard {
    let mut config = ShardConfig::default();
    config.transport = engine;
    Shard::new(config).unwrap()
}

/// Serves a kitchen on the shard.
fn serve(shard: &Shard) -> Address {
    shard.serve(Cook::default().into_kitchen()).unwrap();
    shard.listen("127.0.0.1:0").unwrap()
}

/// A shard that serves, and calls itself.
fn with_client(engine: TransportChoice) -> (Host, KitchenClient<LocalClient>) {
    let host = Host::new(engine);
    let address = serve(host.shard.shard());
    let client = host.run(host.shard.shard().connect(&address)).unwrap();
    (host, KitchenClient::new(client))
}

fn failure<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Failure {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(error) => *error.failure().unwrap_or_else(|| panic!("expected a failure: {error:?}")),
    }
}

fn over_every_engine(body: impl Fn(TransportChoice)) {
    for engine in engines() {
        body(engine);
    }
}

// ---- the rules ----

#[test]
fn work_that_is_left_over_is_said() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        let polled = Rc::new(Cell::new(0));
        let counter = Rc::clone(&polled);
        host.shard.shard().spawn(std::future::poll_fn(move |cx| {
            counter.set(counter.get() + 1);
            cx.waker().wake_by_ref();
            if counter.get() == 100_000 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(host.shard.turn(), Turn::MoreWork, "a turn is bounded");
        assert!(polled.get() < 100_000);
        host.until("the task ends", || polled.get() == 100_000);
    });
}

#[test]
fn a_call_outside_of_a_turn_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        for id in 0..20 {
            host.settle();
            let order = order(id);
            let mut call = Box::pin(kitchen.cook(&order).into_future());
            assert!(poll_once(call.as_mut()).is_pending());
            assert!(host.is_readable(), "nobody was told of the call");
            assert_eq!(host.run(call).unwrap().to_owned(), order);
        }
    });
}

#[test]
fn who_polls_hears_of_calls_without_the_descriptor() {
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let poll = || host.shard.poll_left_work(&mut TaskContext::from_waker(&waker));
        let (first, second) = (order(1), order(2));
        for times in 1..20 {
            host.settle();
            assert!(poll().is_pending() && poll().is_pending());
            let mut calls =
                [&first, &second].map(|order| Box::pin(kitchen.cook(order).into_future()));
            assert!(calls.iter_mut().all(|call| poll_once(call.as_mut()).is_pending()));
            assert_eq!(woken.0.load(Ordering::Relaxed), times, "told of both, once");
            assert!(!host.is_readable(), "told twice");
            assert!(poll().is_ready());
            let [one, other] = calls;
            assert_eq!(host.run(one).unwrap().to_owned(), first);
            assert_eq!(host.run(other).unwrap().to_owned(), second);
        }
        // A turn ends it: who does not poll again is told by the descriptor.
        host.settle();
        assert!(poll().is_pending());
        host.settle();
        let mut call = Box::pin(kitchen.cook(&first).into_future());
        assert!(poll_once(call.as_mut()).is_pending());
        assert!(host.is_readable());
    });
}

#[test]
fn a_call_outside_of_a_turn_is_given_its_whole_time() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        host.settle();
        // The last turn was long ago when the call is made.
        block(Duration::from_millis(600));
        let call = kitchen.nothing().deadline(Duration::from_millis(500));
        host.run(call.into_future()).unwrap();
    });
}

#[test]
fn giving_a_call_up_outside_of_a_turn_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        let cook = Cook::default();
        let seen = std::sync::Arc::clone(&cook.seen);
        host.shard.shard().serve(cook.into_kitchen()).unwrap();
        let address = host.shard.shard().listen("127.0.0.1:0").unwrap();
        let client = host.run(host.shard.shard().connect(&address)).unwrap();
        let kitchen = KitchenClient::new(client);
        let mut call = Box::pin(kitchen.simmer(&60_000).deadline(LOST * 3).into_future());
        assert!(poll_once(call.as_mut()).is_pending());
        host.settle();
        drop(call);
        assert!(host.is_readable(), "nobody was told that the call was given up");
        let dropped = || seen.dropped.load(std::sync::atomic::Ordering::SeqCst) == 1;
        host.until("the handler is dropped", dropped);
    });
}

#[test]
fn a_task_spawned_outside_of_a_turn_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        host.settle();
        let done = Rc::new(Cell::new(false));
        let set = Rc::clone(&done);
        host.shard.shard().spawn(async move { set.set(true) });
        assert!(host.is_readable(), "nobody was told of the task");
        host.until("the task runs", || done.get());
    });
}

#[test]
fn a_timeout_that_moved_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        host.settle();
        let sleep = |time| Box::pin(host.shard.shard().sleep(time));
        let mut late = sleep(Duration::from_secs(3600));
        assert!(poll_once(late.as_mut()).is_pending());
        assert!(host.is_readable(), "there was no timeout, now there is one");
        host.settle();
        let before = host.shard.next_timeout().unwrap();
        let mut later = sleep(Duration::from_secs(7200));
        assert!(poll_once(later.as_mut()).is_pending());
        assert!(!host.is_readable(), "the timeout has not moved");
        let mut early = sleep(Duration::from_millis(20));
        assert!(poll_once(early.as_mut()).is_pending());
        assert!(host.is_readable(), "the timeout has moved");
        assert!(host.shard.next_timeout().unwrap() < before);
        host.run(early);
        assert!(poll_once(late.as_mut()).is_pending() && poll_once(later.as_mut()).is_pending());
    });
}

#[test]
fn another_thread_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        let (wakers, to_wake) = mpsc::channel::<Waker>();
        let waking = thread::spawn(move || to_wake.iter().for_each(Waker::wake));
        let rounds = Rc::new(Cell::new(0));
        let counter = Rc::clone(&rounds);
        host.shard.shard().spawn(std::future::poll_fn(move |cx| {
            counter.set(counter.get() + 1);
            if counter.get() == 5000 {
                return Poll::Ready(());
            }
            wakers.send(cx.waker().clone()).unwrap();
            Poll::Pending
        }));
        host.until("the task is woken 5000 times", || rounds.get() == 5000);
        waking.join().unwrap();
    });
}

/// With io_uring, what has completed is not visible before the shard's thread asks for it.
#[test]
fn what_arrives_while_asleep_makes_the_descriptor_readable() {
    over_every_engine(|engine| {
        for told_of_changes in [false, true] {
            let mut host = Host::new(engine);
            if told_of_changes {
                host = host.told_of_changes();
            }
            let address = serve(host.shard.shard());
            host.settle();
            let (told, tell) = mpsc::channel();
            let caller = thread::spawn(move || {
                let client = BlockingClient::connect(&address).unwrap();
                let kitchen = KitchenClient::new(&client);
                for id in 0..200 {
                    let order = order(id);
                    assert_eq!(kitchen.cook(&order).wait().unwrap().to_owned(), order);
                }
                told.send(()).unwrap();
            });
            assert!(host.wait(LOST), "nobody was told of the connection");
            host.until("the calls are made", || tell.try_recv().is_ok() || caller.is_finished());
            caller.join().unwrap();
        }
    });
}

#[test]
fn more_than_a_turn_takes_is_not_forgotten() {
    over_every_engine(|engine| {
        let host = Host::new(engine).told_of_changes();
        let address = serve(host.shard.shard());
        host.settle();
        // More than are accepted in a turn; then one byte from each, more than are asked of in one.
        let Address::Tcp(address) = address else { panic!("TCP was asked for") };
        let mut streams: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
        host.until("all are accepted", || host.shard.shard().connections() == 300);
        host.settle();
        for stream in &mut streams {
            // No preface begins like this.
            stream.write_all(&[b'G'; 8]).unwrap();
        }
        host.until("all are found not to speak the protocol", || {
            host.shard.shard().connections() == 0
        });
    });
}

#[test]
fn an_idle_shard_is_not_readable() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        host.run(kitchen.nothing().into_future()).unwrap();
        host.settle();
        assert!(!host.is_readable());
        assert_eq!(host.shard.turn(), Turn::Idle);
        assert!(!host.is_readable());
    });
}

#[test]
fn polling_looks_on_for_what_comes() {
    over_every_engine(|engine| {
        for (polling, looks_on) in [(LOST, true), (Duration::ZERO, false)] {
            let hosted = shard(engine).hosted().unwrap().polling(polling);
            while hosted.turn() == Turn::MoreWork && !looks_on {}
            // It may say that it is idle now and then: when others want the core.
            let looked = (0..1000).any(|_| hosted.turn() == Turn::MoreWork);
            assert_eq!(looked, looks_on);
        }
    });
}

#[test]
fn a_hosted_shard_may_block_all_the_same() {
    over_every_engine(|engine| {
        let host = Host::new(engine);
        let shard = host.shard.shard();
        shard.block_on(shard.sleep(Duration::from_millis(5)));
        let address = serve(shard);
        let client = shard.block_on(shard.connect(&address)).unwrap();
        let kitchen = KitchenClient::new(client);
        let delivered = shard.block_on(kitchen.deliver(&3).into_future());
        assert_eq!(delivered.unwrap().to_native(), 3);
        // And is hosted as before.
        host.settle();
        host.run(kitchen.nothing().into_future()).unwrap();
    });
}

#[test]
fn a_shard_has_one_host() {
    over_every_engine(|engine| {
        let shard = shard(engine);
        let _host = shard.clone().hosted().unwrap();
        assert!(shard.hosted().is_err());
    });
}

// ---- the end ----

#[test]
fn callers_outside_of_a_turn_go_on_when_half_of_their_answers_are_there() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        let mut calls: Vec<_> =
            (0..100).map(|_| Box::pin(kitchen.nothing().into_future())).collect();
        calls.iter_mut().for_each(|call| assert!(poll_once(call.as_mut()).is_pending()));
        let (calls, most) = (RefCell::new(calls), Cell::new(0));
        host.until("all are answered", || {
            let mut calls = calls.borrow_mut();
            let before = calls.len();
            calls.retain_mut(|call| poll_once(call.as_mut()).is_pending());
            most.set(most.get().max(before - calls.len()));
            calls.is_empty()
        });
        let most = most.get();
        assert!(most <= 64, "{most} in one turn");
    });
}

#[test]
fn callers_outside_of_a_turn_get_their_own_answers() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        let kitchen = &kitchen;
        let caller = |id: u64| async move {
            for nth in 0..200 {
                let order =
                    Order { note: Some("x".repeat(4000 + id as usize)), ..order(id * 1000 + nth) };
                assert_eq!(kitchen.cook(&order).await.unwrap().to_owned(), order);
            }
        };
        let mut callers: Vec<_> = (0..64).map(|id| Box::pin(caller(id))).collect();
        host.until("all have theirs", || {
            callers.retain_mut(|caller| poll_once(caller.as_mut()).is_pending());
            callers.is_empty()
        });
    });
}

#[test]
fn without_its_host_a_shard_is_over_for_however_many() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        let call = || Box::pin(kitchen.simmer(&60_000).deadline(LOST * 3).into_future());
        let mut calls: Vec<_> = (0..300).map(|_| call()).collect();
        calls.iter_mut().for_each(|call| assert!(poll_once(call.as_mut()).is_pending()));
        host.until("they run", || running(host.shard.shard()) == 300);

        drop(host);
        for mut call in calls {
            let Poll::Ready(ended) = poll_once(call.as_mut()) else { panic!("a call goes on") };
            assert!(matches!(failure(ended).cause, Cause::Closed(_)));
        }
    });
}

#[test]
fn without_its_host_a_shard_is_over() {
    over_every_engine(|engine| {
        let (host, kitchen) = with_client(engine);
        let shard = host.shard.shard().clone();
        let address = shard.listen("127.0.0.1:0").unwrap();
        let held = Rc::new(());
        let task_holds = Rc::clone(&held);
        shard.spawn(async move {
            std::future::pending::<()>().await;
            drop(task_holds);
        });
        let mut call = Box::pin(kitchen.simmer(&60_000).deadline(LOST * 3).into_future());
        assert!(poll_once(call.as_mut()).is_pending());
        let elsewhere = call_from_elsewhere(&address);
        host.until("both calls run", || running(&shard) == 2);

        drop(host);
        let Poll::Ready(ended) = poll_once(call.as_mut()) else { panic!("the call goes on") };
        assert!(matches!(failure(ended).cause, Cause::Closed(_)));
        assert!(!failure(elsewhere.join().unwrap()).is_safe_to_retry());
        assert_eq!(Rc::strong_count(&held), 1, "the task is gone");
        let mut refused = Box::pin(kitchen.nothing().into_future());
        let Poll::Ready(refused) = poll_once(refused.as_mut()) else { panic!("a call is made") };
        assert!(failure(refused).is_safe_to_retry());
        let mut connecting = Box::pin(shard.connect(&address));
        let Poll::Ready(refused) = poll_once(connecting.as_mut()) else { panic!("it connects") };
        assert_eq!(refused.map(drop).unwrap_err().cause, Cause::Shutdown);
        let Address::Tcp(address) = address else { panic!("TCP was asked for") };
        assert!(TcpStream::connect(address).is_err(), "somebody listens");
    });
}

/// Calls that run; the question for the table of methods is answered at once.
fn running(shard: &Shard) -> u64 {
    let counters = shard.counters();
    counters.requests_taken - counters.requests_answered
}

/// A call on another thread that goes on until its connection ends.
fn call_from_elsewhere(address: &Address) -> thread::JoinHandle<Result<(), CallError>> {
    let address = address.clone();
    thread::spawn(move || {
        let kitchen = KitchenClient::<Client>::connect(&address).wait().unwrap();
        kitchen.simmer(&60_000).deadline(LOST * 3).wait().map(|_| ())
    })
}

// ---- adapters ----

#[cfg(any(feature = "tokio", feature = "async-io", feature = "monoio"))]
mod adapters {
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use super::*;

    type Work = Pin<Box<dyn Future<Output = ()>>>;

    /// Runs work beside a future that drives the shard, in some runtime. The driver is dropped when the
    /// work says so.
    type Run = fn(HostedShard, Work, Rc<Stop>);

    #[derive(Default)]
    struct Stop {
        is_set: Cell<bool>,
        waker: RefCell<Option<Waker>>,
    }

    impl Stop {
        fn set(&self) {
            self.is_set.set(true);
            self.waker.take().into_iter().for_each(Waker::wake);
        }

        async fn wait(&self) {
            std::future::poll_fn(|cx| {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                if self.is_set.get() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// The first of two futures to end is all that counts.
    async fn first(a: impl Future, b: impl Future) {
        let (mut a, mut b) = (Box::pin(a), Box::pin(b));
        std::future::poll_fn(|cx| match (a.as_mut().poll(cx), b.as_mut().poll(cx)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Drives until told to stop; then the driver is dropped.
    async fn drive(driver: impl Future<Output = std::io::Result<Infallible>>, stop: Rc<Stop>) {
        let driver = async { panic!("it does not end by itself: {:?}", driver.await) };
        first(driver, stop.wait()).await;
    }

    #[cfg(feature = "tokio")]
    fn tokio(shard: HostedShard, work: Work, stop: Rc<Stop>) {
        let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = ::tokio::task::LocalSet::new();
        runtime.block_on(local.run_until(async {
            let driver = ringcall::host::tokio::drive(shard);
            let driver = ::tokio::task::spawn_local(drive(driver, stop));
            ::tokio::time::timeout(LOST, work).await.expect("the work ends");
            driver.abort();
        }));
    }

    #[cfg(feature = "async-io")]
    fn async_io(shard: HostedShard, work: Work, stop: Rc<Stop>) {
        ::async_io::block_on(async {
            let driver = ringcall::host::async_io::drive(shard);
            let driver = async {
                drive(driver, stop).await;
                std::future::pending::<()>().await;
            };
            let is_done = Cell::new(false);
            let work = async {
                work.await;
                is_done.set(true);
            };
            first(first(work, driver), ::async_io::Timer::after(LOST)).await;
            assert!(is_done.get(), "the work ends");
        });
    }

    #[cfg(feature = "monoio")]
    fn monoio<D: ::monoio::Driver>(
        mut runtime: ::monoio::Runtime<::monoio::time::TimeDriver<D>>,
        shard: HostedShard,
        work: Work,
        stop: Rc<Stop>,
    ) {
        runtime.block_on(async {
            let driver = ringcall::host::monoio::drive(shard);
            ::monoio::spawn(drive(driver, stop));
            let work = ::monoio::spawn(work);
            ::monoio::time::timeout(LOST, work).await.expect("the work ends");
        });
    }

    #[cfg(feature = "monoio")]
    fn monoio_epoll(shard: HostedShard, work: Work, stop: Rc<Stop>) {
        let builder = ::monoio::RuntimeBuilder::<::monoio::LegacyDriver>::new();
        monoio(builder.enable_timer().build().unwrap(), shard, work, stop);
    }

    /// Where there is no ring, monoio has none either.
    #[cfg(feature = "monoio")]
    fn monoio_ring(shard: HostedShard, work: Work, stop: Rc<Stop>) {
        let builder = ::monoio::RuntimeBuilder::<::monoio::IoUringDriver>::new();
        match builder.enable_timer().build() {
            Ok(runtime) => monoio(runtime, shard, work, stop),
            Err(error) => crate::common::say(format_args!("skipped: monoio's ring: {error}")),
        }
    }

    const RUNTIMES: &[Run] = &[
        #[cfg(feature = "monoio")]
        monoio_epoll,
        #[cfg(feature = "monoio")]
        monoio_ring,
        #[cfg(feature = "tokio")]
        tokio,
        #[cfg(feature = "async-io")]
        async_io,
    ];

    /// Runs a test's body in every runtime, over every engine, with and without polling.
    fn in_every_runtime<F: Future<Output = ()> + 'static>(body: impl Fn(Shard, Rc<Stop>) -> F) {
        over_every_engine(|engine| {
            for run in RUNTIMES {
                for polling in [Duration::ZERO, Duration::from_micros(50)] {
                    let stop = Rc::new(Stop::default());
                    let shard = shard(engine);
                    let work = Box::pin(body(shard.clone(), Rc::clone(&stop)));
                    run(shard.hosted().unwrap().polling(polling), work, stop);
                }
            }
        });
    }

    /// Ready when a thread has ended.
    async fn join<T: Send + 'static>(thread: thread::JoinHandle<T>) -> T {
        let slot = Arc::new(Mutex::new((None, None::<Waker>)));
        let told = Arc::clone(&slot);
        thread::spawn(move || {
            let value = thread.join().unwrap();
            let mut slot = told.lock().unwrap();
            slot.0 = Some(value);
            slot.1.take().into_iter().for_each(Waker::wake);
        });
        std::future::poll_fn(|cx| {
            let mut slot = slot.lock().unwrap();
            slot.1 = Some(cx.waker().clone());
            slot.0.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    #[test]
    fn service_and_client_live_in_one_runtime() {
        in_every_runtime(|shard, _| async move {
            let address = serve(&shard);
            let client = shard.connect(&address).await.unwrap();
            let kitchen = KitchenClient::new(client);
            for id in 0..200 {
                let order = order(id);
                assert_eq!(kitchen.cook(&order).await.unwrap().to_owned(), order);
            }
            assert_eq!(kitchen.simmer(&5).await.unwrap().to_native(), 5);
            let late = kitchen.simmer(&60_000).deadline(Duration::from_millis(20)).await;
            assert!(!failure(late).is_safe_to_retry());
            shard.sleep(Duration::from_millis(5)).await;
        });
    }

    #[test]
    fn a_shard_that_is_busy_leaves_other_tasks_their_turn() {
        const FOREVER: u64 = 1_000_000;
        in_every_runtime(|shard, _| async move {
            let other = Rc::new(Stop::default());
            let (polled, starts) = (Rc::new(Cell::new(0)), Rc::clone(&other));
            let counter = Rc::clone(&polled);
            shard.spawn(std::future::poll_fn(move |cx| {
                if counter.replace(counter.get() + 1) == 0 {
                    starts.set();
                }
                cx.waker().wake_by_ref();
                // It ends when this task does.
                match counter.get() == FOREVER || Rc::strong_count(&counter) == 1 {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            }));
            other.wait().await;
            assert!(polled.get() < FOREVER, "the shard was turned until it had nothing to do");
        });
    }

    #[test]
    fn a_client_of_another_thread_calls_a_hosted_server() {
        in_every_runtime(|shard, _| async move {
            let address = serve(&shard);
            let caller = thread::spawn(move || {
                let kitchen = KitchenClient::<Client>::connect(&address).wait().unwrap();
                for id in 0..200 {
                    let order = order(id);
                    assert_eq!(kitchen.cook(&order).wait().unwrap().to_owned(), order);
                }
            });
            join(caller).await;
        });
    }

    #[test]
    fn dropping_the_driver_ends_calls() {
        in_every_runtime(|shard, stop| async move {
            let address = serve(&shard);
            let client = shard.connect(&address).await.unwrap();
            let kitchen = KitchenClient::new(client);
            let elsewhere = call_from_elsewhere(&address);
            let call = async {
                let ended = kitchen.simmer(&60_000).deadline(LOST * 3).await;
                assert!(matches!(failure(ended).cause, Cause::Closed(_)));
            };
            let stopping = async {
                while running(&shard) < 2 {
                    shard.sleep(Duration::from_millis(1)).await;
                }
                stop.set();
                std::future::pending::<()>().await;
            };
            first(call, stopping).await;
            assert!(!failure(join(elsewhere).await).is_safe_to_retry());
        });
    }
}
