//! Servers that are asked for more than they can do: what they refuse, and that what they refuse did not run.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{PATIENT, Pair, SOON, block, eventually, over_every_pair, over_one_pair};
use ringcall::limits::{AdaptiveConfig, Limits, QueueRule, Rate};
use ringcall::{
    BlockOn, CallError, CallerKey, Cause, Client, Context, Credentials, Items, Responder,
    RunningServer, ServeError, Server, Shard, ShardConfig, Starting, Status, StatusClass, Stream,
    WithCredentials,
};

#[ringcall::service(name = "test.Mill")]
trait Mill {
    /// Keeps its thread.
    async fn grind(&self, time_ms: u64) -> u64;
    #[method(offload)]
    async fn grind_apart(&self, time_ms: u64) -> u64;
    /// Waits, and leaves its thread to others.
    async fn soak(&self, cx: &Context, time_ms: u64) -> u64;
    /// Is answered when [`Count::answer`] says so.
    fn ask(&self, responder: Responder<u64>);
    /// Notes the number, and gives back which priority the call has.
    async fn note(&self, cx: &Context, number: u64) -> u8;
    /// The priority of a call that this one makes, to a server at that address.
    async fn pass_on(&self, cx: &Context, address: String) -> u8;
    #[method(one_way)]
    async fn drop_in(&self, number: u64);
    async fn weigh(&self, sacks: Items<u64>) -> u64;
    async fn pour(&self, number: u64) -> impl Stream<Item = u64>;
}

#[derive(Clone, Default)]
struct Miller {
    count: Arc<Count>,
}

/// What has run.
#[derive(Default)]
struct Count {
    ran: AtomicU64,
    running: AtomicU64,
    /// How many ran at a time at most.
    most: AtomicU64,
    dropped_in: AtomicU64,
    asked: Mutex<Vec<Responder<u64>>>,
    /// Priorities and numbers, in the order in which calls began.
    noted: Mutex<Vec<(u8, u64)>>,
}

struct Run<'a>(&'a Count);

impl Count {
    fn run(&self) -> Run<'_> {
        self.ran.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        Run(self)
    }

    fn ran(&self) -> u64 {
        self.ran.load(Ordering::SeqCst)
    }

    fn answer(&self) {
        let asked = std::mem::take(&mut *self.asked.lock().expect("nobody panics"));
        asked.into_iter().for_each(|responder| responder.send(Ok(1)));
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Mill for Miller {
    async fn grind(&self, time_ms: u64) -> u64 {
        let _run = self.count.run();
        block(Duration::from_millis(time_ms));
        time_ms
    }

    async fn grind_apart(&self, time_ms: u64) -> u64 {
        let _run = self.count.run();
        block(Duration::from_millis(time_ms));
        time_ms
    }

    async fn soak(&self, cx: &Context, time_ms: u64) -> u64 {
        let _run = self.count.run();
        cx.sleep(Duration::from_millis(time_ms)).await;
        time_ms
    }

    fn ask(&self, responder: Responder<u64>) {
        drop(self.count.run());
        self.count.asked.lock().expect("nobody panics").push(responder);
    }

    async fn note(&self, cx: &Context, number: u64) -> u8 {
        let priority = cx.info().priority;
        self.count.noted.lock().expect("nobody panics").push((priority, number));
        priority
    }

    async fn pass_on(&self, cx: &Context, address: String) -> u8 {
        let channel = cx.connect(address.as_str()).await.expect("it accepts");
        *MillClient::new(cx.client(&channel)).note(&0).await.expect("it answers")
    }

    async fn drop_in(&self, number: u64) {
        self.count.dropped_in.fetch_add(number, Ordering::SeqCst);
    }

    async fn weigh(&self, mut sacks: Items<u64>) -> u64 {
        let _run = self.count.run();
        let mut sum = 0;
        while let Some(sack) = sacks.next().await {
            sum += sack;
        }
        sum
    }

    async fn pour(&self, number: u64) -> impl Stream<Item = u64> {
        Numbers(number)
    }
}

/// Counts down.
struct Numbers(u64);

impl Stream for Numbers {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        let next = self.0.checked_sub(1);
        self.0 = next.unwrap_or(0);
        Poll::Ready(next)
    }
}

/// A rule that notices soon.
const QUICK: QueueRule = QueueRule::new(Duration::from_millis(5), Duration::from_millis(20));

/// No rule, so that only what is counted is refused.
fn counted() -> Limits {
    Limits::default().queue(None)
}

fn serve(pair: Pair, change: impl FnOnce(Server) -> Server) -> (RunningServer, Arc<Count>) {
    let miller = Miller::default();
    let count = Arc::clone(&miller.count);
    (pair.start(change(pair.bind().service(miller.into_mill()))), count)
}

fn connect(pair: Pair, server: &RunningServer) -> MillClient<Client> {
    let client = pair.secured(MillClient::connect(server.address()));
    client.wait().expect("the server accepts").with_options(PATIENT)
}

type Ended = Result<(), CallError>;

fn assert_answered<T>(ended: Result<T, CallError>) {
    assert_eq!(ended.map(drop), Ok(()));
}

fn assert_refused<T>(ended: Result<T, CallError>) {
    let error = ended.map(drop).expect_err("it is refused");
    let cause = error.failure().map(|failure| failure.cause);
    assert_eq!(cause, Some(Cause::Status(Status::OVERLOADED)));
    assert!(error.is_safe_to_retry(), "it did not run");
}

/// What a call is to be ended with.
type End<T> = Box<dyn FnOnce(Result<T, CallError>) + Send>;

/// Makes so many calls at once, and tells how they end.
fn many<T>(calls: u64, make: impl Fn(End<T>)) -> Receiver<Ended> {
    let (ended, ends) = channel();
    for _ in 0..calls {
        let ended = ended.clone();
        make(Box::new(move |end| drop(ended.send(end.map(drop)))));
    }
    ends
}

// ---- how many ----

#[test]
fn d15_calls_beyond_the_limit_are_refused_and_do_not_run() {
    over_every_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(counted().concurrency(2)));
        let client = connect(pair, &server);
        let asked = many(2, |end| client.ask().callback(end));
        eventually("both run", || count.ran() == 2);
        assert_refused(client.grind(&0).wait());
        assert_refused(client.ask().wait());
        assert_eq!(count.ran(), 2);
        assert_eq!(server.incidents().over_limit, 2);
        count.answer();
        assert!(asked.iter().take(2).all(|end| end.is_ok()));
        assert_answered(client.grind(&0).wait());
    });
}

#[test]
fn d15_a_method_has_a_limit_of_its_own() {
    over_one_pair(|pair| {
        let limits = counted().method("test.Mill/ask", 1).concurrency(3);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let _asked = many(1, |end| client.ask().callback(end));
        eventually("it runs", || count.ran() == 1);
        assert_refused(client.ask().wait());
        assert_answered(client.grind(&0).wait());
        let _soaking = many(2, |end| client.soak(&60_000).callback(end));
        eventually("they run", || count.ran() == 4);
        assert_refused(client.grind(&0).wait());
    });
}

#[test]
fn d15_whatever_ends_a_call_makes_room() {
    over_every_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(counted().concurrency(2)));
        let client = connect(pair, &server);
        let is_full = || assert_refused(client.grind(&0).wait());
        // By their deadline.
        let expired = many(2, |end| client.soak(&60_000).deadline(SOON * 4).callback(end));
        eventually("they run", || count.ran() == 2);
        is_full();
        assert!(expired.iter().take(2).all(|end| end.is_err()));
        eventually("there is room", || client.grind_apart(&0).wait().is_ok());
        // By the end of their connection, with its shard.
        let shard = pair.shard();
        let other = shard.block_on(shard.connect(server.address())).expect("it accepts");
        let other = MillClient::new(other).with_options(PATIENT);
        let before = count.ran();
        (0..2).for_each(|_| other.soak(&60_000).callback(|_| {}));
        shard.run(|| count.ran() < before + 2);
        is_full();
        drop((other, shard));
        eventually("there is room", || client.grind(&0).wait().is_ok());
        // By a handler that answers from elsewhere.
        let before = count.ran();
        let asked = many(2, |end| client.ask().callback(end));
        eventually("they run", || count.ran() == before + 2);
        is_full();
        count.answer();
        assert!(asked.iter().take(2).all(|end| end.is_ok()));
        assert_answered(client.grind(&0).wait());
    });
}

#[test]
fn d15_calls_with_streams_are_counted() {
    over_one_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(Limits::default().concurrency(1)));
        let client = connect(pair, &server);
        let weighing = client.weigh().wait().expect("it begins");
        eventually("it runs", || count.ran() == 1);
        assert_refused(client.grind(&0).wait());
        assert_answered(client.channel().block_on(weighing.finish()));
        let mut poured = client.pour(&3).wait().expect("there is room");
        let mut sum = 0;
        while let Some(item) = poured.next_wait() {
            sum += item.expect("an item").to_native();
        }
        assert_eq!(sum, 3);
        eventually("there is room again", || client.grind(&0).wait().is_ok());
    });
}

#[test]
fn d15_an_adaptive_limit_keeps_its_bounds() {
    over_one_pair(|pair| {
        let mut config = AdaptiveConfig::default();
        (config.start, config.min, config.max) = (4, 2, 6);
        let (server, count) = serve(pair, |server| server.limits(counted().concurrency(config)));
        let client = connect(pair, &server);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..40 {
            for end in many(20, |end| client.soak(&1).callback(end)).iter().take(20) {
                match end {
                    Ok(_) => good += 1,
                    refused => {
                        assert_refused(refused);
                        bad += 1;
                    }
                }
            }
        }
        assert!((2..=6).contains(&count.most.load(Ordering::SeqCst)));
        assert_eq!((count.ran(), server.incidents().over_limit), (good, bad));
    });
}

// ---- whose, and how many in a time ----

/// What a caller was told who has made too many: when to come again.
fn assert_limited<T>(ended: Result<T, CallError>) -> u16 {
    let error = ended.map(drop).expect_err("it is refused");
    let failure = *error.failure().expect("by the server");
    assert_eq!(failure.cause, Cause::Status(Status::RATE_LIMITED));
    assert!(error.is_safe_to_retry(), "it did not run");
    failure.retry_after_ms
}

const HOUR: Duration = Duration::from_secs(3600);

fn tenant() -> CallerKey {
    CallerKey::metadata("tenant")
}

#[test]
fn d15_what_a_rate_refuses_does_not_run_and_is_told_when_to_come_again() {
    over_every_pair(|pair| {
        let limits = counted().rate(Rate::new(10, Duration::from_secs(2)).burst(3));
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        // Together, since apart they might be slower than the rate.
        let ends = many(200, |end| client.soak(&0).callback(end));
        let advice = ends.iter().take(200).filter(Result::is_err).map(assert_limited).max();
        let advice = advice.expect("some are refused");
        assert!((1..=200).contains(&advice), "{advice}");
        let refused = server.incidents().over_rate;
        assert_eq!(count.ran() + refused, 200);
        assert!(refused > 0);
        block(Duration::from_millis(advice.into()));
        assert_answered(client.soak(&0).wait());
    });
}

#[test]
fn d15_each_caller_has_a_rate_and_all_shards_count_together() {
    over_every_pair(|pair| {
        let limits = counted()
            .rate(Rate::new(6, HOUR).method("test.Mill/soak"))
            .rate(Rate::new(2, HOUR).service("test.Mill").each(tenant()).callers_max(3));
        let (server, count) = serve(pair, |server| server.limits(limits).shards(2));
        let clients = [connect(pair, &server), connect(pair, &server)];
        let call = |n: usize, who: &str| clients[n % 2].soak(&0).metadata("tenant", who).wait();
        assert_answered(call(0, "a"));
        assert_answered(call(1, "a"));
        for n in 0..20 {
            assert_eq!(assert_limited(call(n, "a")), u16::MAX - 1, "an hour is far");
        }
        // Whoever says nothing is one caller.
        assert_answered(clients[0].soak(&0).wait());
        assert_answered(clients[1].soak(&0).wait());
        assert_limited(clients[0].soak(&0).wait());
        // What these were refused is still there for others, until it is used up for all.
        assert_answered(call(0, "b"));
        assert_answered(call(1, "b"));
        assert_limited(call(0, "c"));
        assert_eq!(count.ran(), 6);
        // Another method has the caller's rate, and none of its own.
        assert_answered(clients[0].grind(&0).metadata("tenant", "d").wait());
        assert_eq!(server.incidents().over_rate, 22);
    });
}

#[test]
fn d15_what_a_caller_has_under_way_is_limited_whatever_others_have() {
    over_every_pair(|pair| {
        let limits = counted().concurrency(5).concurrency_of_each(tenant(), 2);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let ask = |who: &'static str, end| client.ask().metadata("tenant", who).callback(end);
        let grind = |who: &str| client.grind(&0).metadata("tenant", who).wait();
        let asked = many(2, |end| ask("a", end));
        eventually("both run", || count.ran() == 2);
        assert_eq!(assert_limited(grind("a")), 0);
        assert_answered(grind("b"));
        count.answer();
        assert!(asked.iter().take(2).all(|end| end.is_ok()));
        assert_answered(grind("a"));
    });
}

// ---- how long ----

/// So many calls at once: how many were answered, how many refused. All end.
fn sorted(ends: Receiver<Ended>, calls: u64) -> (u64, u64) {
    let (mut good, mut bad) = (0, 0);
    for end in ends.iter().take(calls as usize) {
        match end {
            Ok(_) => good += 1,
            Err(error) => {
                let failure = error.failure().expect("nothing else fails");
                assert_eq!(failure.retry_after_ms, 20, "when the rule has looked again");
                assert_refused::<()>(Err(error));
                bad += 1;
            }
        }
    }
    assert_eq!(good + bad, calls);
    (good, bad)
}

#[test]
fn d15_what_waits_too_long_in_a_queue_that_stands_is_refused_and_does_not_run() {
    over_every_pair(|pair| {
        let limits = Limits::default().queue(QUICK);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let calls = 200;
        let (good, bad) = sorted(many(calls, |end| client.grind(&2).callback(end)), calls);
        assert!(bad > 0, "it stands for longer than two intervals");
        assert_eq!((count.ran(), server.incidents().waited_too_long), (good, bad));
        assert_answered(client.grind(&0).wait());
    });
}

#[test]
fn d15_without_a_rule_nothing_that_waits_is_refused() {
    over_one_pair(|pair| {
        for limits in [None, Some(counted().concurrency(1000))] {
            let (server, count) = serve(pair, |server| match limits {
                None => server,
                Some(limits) => server.limits(limits),
            });
            let client = connect(pair, &server);
            assert_eq!(sorted(many(100, |end| client.grind(&2).callback(end)), 100), (100, 0));
            assert_eq!(count.ran(), 100);
        }
    });
}

#[test]
fn d15_the_queue_of_the_pool_has_the_same_rule() {
    over_every_pair(|pair| {
        let limits = Limits::default().queue(QUICK);
        let (server, count) = serve(pair, |server| server.limits(limits).offload_threads(1));
        let client = connect(pair, &server);
        let calls = 200;
        let (good, bad) = sorted(many(calls, |end| client.grind_apart(&2).callback(end)), calls);
        assert!(bad > 0, "it stands for longer than two intervals");
        assert_eq!((count.ran(), server.incidents().waited_too_long), (good, bad));
    });
}

/// Keeps the server's only shard for a while.
fn occupy(client: &MillClient<Client>, count: &Count, time_ms: u64) -> Receiver<Ended> {
    let before = count.ran();
    let grinding = many(1, |end| client.grind(&time_ms).callback(end));
    eventually("the shard computes", || count.ran() == before + 1);
    grinding
}

#[test]
fn d02_what_its_caller_gave_up_while_the_shard_computed_does_not_run() {
    over_every_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(Limits::default()));
        let client = connect(pair, &server);
        let grinding = occupy(&client, &count, 500);
        let late = client.soak(&0).deadline(Duration::from_millis(100)).wait();
        assert!(late.is_err(), "{late:?}");
        assert!(grinding.iter().take(1).all(|end| end.is_ok()));
        assert_answered(client.soak(&0).wait());
        assert_eq!(count.ran(), 2, "the late one did not run");
        let counters = server.stop();
        assert_eq!(counters.requests_expired, 1);
    });
}

#[test]
fn d15_one_way_calls_wait_as_others_and_are_dropped_beyond_the_limit() {
    over_one_pair(|pair| {
        let limits = Limits::default().method("test.Mill/drop_in", 3);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let grinding = occupy(&client, &count, 300);
        for _ in 0..5 {
            client.drop_in(&1).wait().expect("it is sent");
        }
        assert!(grinding.iter().take(1).all(|end| end.is_ok()));
        assert_answered(client.grind(&0).wait());
        assert_eq!(count.dropped_in.load(Ordering::SeqCst), 3);
        assert_eq!(server.incidents().over_limit, 2);
        client.drop_in(&1).wait().expect("it is sent");
        eventually("there is room again", || count.dropped_in.load(Ordering::SeqCst) == 4);
    });
}

#[test]
fn answers_say_how_long_calls_waited_and_how_busy_the_server_is() {
    over_one_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(Limits::default()));
        let client = connect(pair, &server);
        let grinding = occupy(&client, &count, 200);
        let waiting = many(1, |end| client.grind(&50).callback(end));
        let reply = client.grind(&0).with_metadata().wait();
        assert!(reply.queued >= Duration::from_millis(50), "{:?}", reply.queued);
        assert!(reply.load > 0);
        drop((grinding, waiting));
        // Without limits nothing is said.
        let (server, _) = serve(pair, |server| server);
        let reply = connect(pair, &server).grind(&0).with_metadata().wait();
        assert_eq!((reply.queued, reply.load), (Duration::ZERO, 0));
    });
}

// ---- which ----

#[test]
fn d15_of_what_waits_too_long_the_lowest_priority_is_refused_first() {
    over_every_pair(|pair| {
        for is_offloaded in [false, true] {
            let limits = Limits::default().queue(QUICK);
            let (server, count) = serve(pair, |server| server.limits(limits).offload_threads(1));
            let client = connect(pair, &server);
            let grind = |priority, end| match is_offloaded {
                false => client.grind(&2).priority(priority).callback(end),
                true => client.grind_apart(&2).priority(priority).callback(end),
            };
            let low = many(200, |end| grind(0, end));
            // Fewer than there would be refused of the others for each of them, if all had waited too long.
            let high = many(10, |end| grind(3, end));
            assert_eq!(sorted(high, 10), (10, 0));
            let (good, bad) = sorted(low, 200);
            assert!(bad > 0, "it stands for longer than two intervals");
            assert_eq!((count.ran(), server.incidents().waited_too_long), (10 + good, bad));
        }
    });
}

#[test]
fn d15_a_priority_is_refused_only_when_no_lower_one_waits() {
    over_every_pair(|pair| {
        let (server, count) = serve(pair, |server| server.limits(Limits::default().queue(QUICK)));
        let client = connect(pair, &server);
        let (ended, ends) = channel();
        for (priority, calls) in [(0, 100), (3, 300)] {
            for _ in 0..calls {
                let ended = ended.clone();
                let call = client.grind(&2).priority(priority);
                call.callback(move |end| {
                    ended.send((priority, end.is_ok())).expect("the test waits");
                });
            }
        }
        // Answers come in the order in which they were made.
        let ends: Vec<_> = ends.iter().take(400).collect();
        let refused = ends.iter().position(|end| *end == (3, false)).expect("it is far too much");
        assert!(ends[refused..].iter().all(|(priority, _)| *priority == 3));
        let good = ends.iter().filter(|(_, is_good)| *is_good).count() as u64;
        assert_eq!((count.ran(), server.incidents().waited_too_long), (good, 400 - good));
    });
}

#[test]
fn d15_higher_priorities_begin_first_but_for_one_in_sixteen() {
    over_every_pair(|pair| {
        let patient = QueueRule::new(Duration::from_secs(60), Duration::from_secs(600));
        let limits = Limits::default().queue(patient);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let grinding = occupy(&client, &count, 500);
        let (ended, ends) = channel();
        for number in 0..40 {
            for priority in [0, 7] {
                let ended = ended.clone();
                let call = client.note(&number).priority(priority);
                call.callback(move |end| drop(ended.send(end.map(drop))));
            }
        }
        assert!(grinding.iter().chain(ends.iter().take(80)).all(|end| end.is_ok()));
        let noted = count.noted.lock().expect("nobody panics");
        let of = |priority| noted.iter().filter(move |(of, _)| *of == priority);
        for priority in [0, 7] {
            assert!(of(priority).map(|(_, number)| *number).eq(0..40), "in order");
        }
        // The call that kept the shard was the first of 15.
        let lower = noted.iter().take(42).enumerate().filter(|(_, (priority, _))| *priority == 0);
        assert!(lower.map(|(at, _)| at).eq([14, 30]), "{noted:?}");
    });
}

#[test]
fn d15_what_is_kept_for_a_priority_is_not_used_up_by_ordinary_calls() {
    over_every_pair(|pair| {
        let limits = counted().concurrency(4).reserve(2, 50);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let asked = many(2, |end| client.ask().callback(end));
        eventually("both run", || count.ran() == 2);
        assert_refused(client.grind(&0).wait());
        assert_refused(client.grind(&0).priority(1).wait());
        let higher = many(1, |end| client.ask().priority(2).callback(end));
        eventually("it runs", || count.ran() == 3);
        let noted = || client.note(&0).priority(2).with_metadata().wait();
        eventually("answers say which is the lowest that is admitted", || {
            assert_refused(client.grind(&0).wait());
            assert_refused(client.grind(&0).priority(1).wait());
            let reply = noted();
            assert_eq!(*reply.result.expect("there is room"), 2);
            assert!([0, 2].contains(&reply.admission), "{}", reply.admission);
            reply.admission == 2
        });
        count.answer();
        assert!(asked.iter().take(2).chain(higher.iter().take(1)).all(|end| end.is_ok()));
        assert_answered(client.grind(&0).wait());
        eventually("and that all are", || noted().admission == 0);
    });
}

#[test]
fn d15_what_waits_gives_up_its_place_in_a_limit_to_what_is_more_important() {
    over_every_pair(|pair| {
        let patient = QueueRule::new(Duration::from_secs(60), Duration::from_secs(600));
        let limits = Limits::default().queue(patient).concurrency(4);
        let (server, count) = serve(pair, |server| server.limits(limits));
        let client = connect(pair, &server);
        let grinding = occupy(&client, &count, 300);
        // Nothing of this is read before the shard has computed.
        let low = many(20, |end| client.grind(&1).callback(end));
        let high = many(4, |end| client.grind(&1).priority(1).callback(end));
        assert!(grinding.iter().chain(high.iter().take(4)).take(5).all(|end| end.is_ok()));
        let ends: Vec<_> = low.iter().take(20).collect();
        let refused = ends.into_iter().filter(Result::is_err).map(assert_refused::<()>).count();
        assert!(refused >= 16, "{refused}");
        assert_eq!(
            (count.ran(), server.incidents().over_limit),
            (25 - refused as u64, refused as u64)
        );
        assert_answered(client.grind(&0).wait());
    });
}

#[test]
fn d15_a_call_has_no_higher_priority_than_its_caller_may_claim() {
    over_every_pair(|pair| {
        let (other, _) = serve(pair, |server| server);
        let asked = Arc::new(AtomicU64::new(0));
        let times = Arc::clone(&asked);
        let (server, _) = serve(pair, |server| {
            server.priority_max(move |call| {
                times.fetch_add(1, Ordering::SeqCst);
                match call.method() {
                    "test.Mill/grind" => panic!("as asked"),
                    _ => call.credentials().map_or(0, |shown| shown[0]),
                }
            })
        });
        let client = connect(pair, &server);
        let five = Credentials::new([5]).expect("they are short");
        let trusted = WithCredentials::new(client.channel().clone(), &five);
        let trusted = MillClient::new(trusted).with_options(PATIENT);
        let noted = |client: &MillClient<_>, priority| client.note(&0).priority(priority).wait();
        assert_eq!(*client.note(&0).wait().expect("it answers"), 0);
        assert_eq!(asked.load(Ordering::SeqCst), 0, "what claims nothing is not asked about");
        assert_eq!(*client.note(&0).priority(200).wait().expect("it answers"), 0);
        assert_eq!(*noted(&trusted, 200).expect("it answers"), 5);
        assert_eq!(*noted(&trusted, 4).expect("it answers"), 4);
        // Nor do the calls that it makes.
        if !pair.is_secured {
            let passed = trusted.pass_on(&other.address().to_string()).priority(200).wait();
            assert_eq!(*passed.expect("it answers"), 5);
        }
        assert_answered(client.grind(&0).priority(1).wait());
    });
}

// ---- ends ----

#[test]
fn a_drain_finishes_what_waits_and_refuses_it_when_its_time_is_over() {
    over_every_pair(|pair| {
        for (timeout, all_run) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
            let patient = QueueRule::new(Duration::from_secs(60), Duration::from_secs(600));
            let limits = Limits::default().queue(patient);
            let (server, count) =
                serve(pair, |server| server.limits(limits).drain_timeout(timeout));
            let client = connect(pair, &server);
            let grinding = occupy(&client, &count, 300);
            let waiting = many(20, |end| client.grind(&20).deadline(SOON * 100).callback(end));
            block(Duration::from_millis(100));
            server.drain();
            assert!(grinding.iter().take(1).all(|end| end.is_ok() || !all_run));
            let mut good = 0;
            for end in waiting.iter().take(20) {
                match end {
                    Ok(_) => good += 1,
                    Err(error) => assert!(!all_run && error.is_safe_to_retry(), "{error}"),
                }
            }
            assert_eq!(count.ran(), good + 1);
            assert_eq!(good == 20, all_run, "{good}");
        }
    });
}

// ---- other limits than before ----

/// Puts limits in force; `passes` makes a call at each shard, so that they have made a turn behind it.
fn replace(server: &RunningServer, limits: Limits, passes: impl Fn()) {
    server.limits().replace(limits).expect("they are sound");
    passes();
}

#[test]
fn limits_are_replaced_while_calls_run_and_those_count() {
    over_every_pair(|pair| {
        let (server, count) = serve(pair, |server| server);
        let client = connect(pair, &server);
        let replace = |limits| replace(&server, limits, || drop(client.grind(&0).wait()));
        let running = || count.asked.lock().expect("nobody panics").len();
        let ask = |all: usize| {
            let asked = many(1, |end| client.ask().callback(end));
            eventually("it runs", || running() == all);
            asked
        };
        let asked = ask(1);
        assert_eq!(server.limits().get(), None);
        replace(counted().concurrency(2));
        // The first began when nobody counted.
        let _two = (ask(2), ask(3));
        assert_refused(client.ask().wait());
        replace(counted().concurrency(3).method("test.Mill/ask", 10));
        let _one = ask(4);
        assert_refused(client.ask().wait());
        replace(counted().method("test.Mill/ask", 3));
        assert_refused(client.ask().wait());
        assert_answered(client.grind(&0).wait());
        // More than there may be now, and none is ended for that.
        replace(counted().concurrency(1));
        assert_refused(client.grind(&0).wait());
        assert_eq!(running(), 4);
        count.answer();
        assert_answered(asked.recv().expect("it ends"));
        eventually("all have ended", || client.grind(&0).wait().is_ok());
        assert_eq!(server.limits().get(), Some(counted().concurrency(1)));
        replace(counted());
        assert_eq!(sorted(many(100, |end| client.soak(&1).callback(end)), 100), (100, 0));
    });
}

#[test]
fn a_rate_that_stays_is_not_filled_up_by_other_limits() {
    over_every_pair(|pair| {
        let (kept, keep) = channel();
        let rate = || Rate::new(2, HOUR).method("test.Mill/soak").each(tenant());
        let (server, _) = serve(pair, |server| {
            let hook = move |starting: &Starting| Ok(kept.send(starting.limits().clone())?);
            server.limits(counted().rate(rate())).shards(2).on_start(hook)
        });
        let clients = [connect(pair, &server), connect(pair, &server)];
        let passes = || clients.iter().for_each(|client| assert_answered(client.grind(&0).wait()));
        let call = |n: usize| clients[n].soak(&0).metadata("tenant", "a").wait();
        assert_answered(call(0));
        assert_answered(call(1));
        assert_limited(call(0));
        replace(&server, counted().rate(rate()).concurrency(100), passes);
        assert_limited(call(0));
        assert_limited(call(1));
        let limits = keep.recv().expect("the hook has run");
        limits.replace(counted().rate(Rate::new(3, HOUR).method("test.Mill/soak"))).unwrap();
        passes();
        (0..3).for_each(|n| assert_answered(call(n % 2)));
        assert_limited(call(1));
        assert_eq!(limits.get(), server.limits().get());
    });
}

#[test]
fn a_rule_is_replaced_for_what_waits_for_the_shard_and_the_pool() {
    over_one_pair(|pair| {
        let (server, _) = serve(pair, |server| server.limits(counted()).offload_threads(1));
        let client = connect(pair, &server);
        let passes = || assert_answered(client.grind(&0).wait());
        let grind = || sorted(many(200, |end| client.grind(&2).callback(end)), 200);
        let apart = || sorted(many(200, |end| client.grind_apart(&2).callback(end)), 200);
        assert_eq!((grind(), apart()), ((200, 0), (200, 0)));
        replace(&server, Limits::default().queue(QUICK), passes);
        assert!(grind().1 > 0 && apart().1 > 0, "both stand");
        replace(&server, counted(), passes);
        assert_eq!((grind(), apart()), ((200, 0), (200, 0)));
    });
}

#[test]
fn a_shard_of_ones_own_replaces_its_limits() {
    let shard = Shard::new(ShardConfig::default()).expect("it can be made");
    shard.serve(Miller::default().into_mill()).expect("nothing else is served");
    let address = shard.listen("127.0.0.1:0").expect("there is a port");
    shard.block_on(async {
        let client = MillClient::new(shard.connect(address).await.expect("it accepts"));
        assert!(client.soak(&0).await.is_ok());
        let hourly = || Limits::default().rate(Rate::new(1, HOUR));
        shard.replace_limits(&hourly()).expect("they are sound");
        assert!(client.soak(&0).await.is_ok());
        assert_limited(client.soak(&0).await);
        shard.replace_limits(&hourly().concurrency(9)).expect("they are sound");
        assert_limited(client.soak(&0).await);
        let error = shard.replace_limits(&hourly().concurrency(0)).expect_err("it makes no sense");
        assert!(matches!(error, ServeError::Limits { setting: "concurrency", .. }), "{error}");
        assert_limited(client.soak(&0).await);
    });
}

// ---- settings ----

#[test]
fn limits_that_make_no_sense_do_not_replace_others() {
    over_one_pair(|pair| {
        let (server, _) = serve(pair, |server| server.limits(counted()));
        let replace = |limits| server.limits().replace(limits).expect_err("it makes no sense");
        let error = replace(Limits::default().concurrency(0));
        assert!(matches!(error, ServeError::Limits { setting: "concurrency", .. }), "{error}");
        let error = replace(Limits::default().method("test.Mill/grnd", 5));
        assert!(matches!(error, ServeError::UnknownMethod { .. }), "{error}");
        let limits = server.limits().clone();
        assert_eq!(limits.get(), Some(counted()));
        server.stop();
        limits.replace(Limits::default()).expect("whom they are for is gone");
    });
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    over_one_pair(|pair| {
        let start = |limits| {
            let server = pair.bind().service(Miller::default().into_mill()).limits(limits);
            server.start().expect_err("it makes no sense")
        };
        let error = start(Limits::default().concurrency(0));
        assert!(matches!(error, ServeError::Limits { setting: "concurrency", .. }), "{error}");
        let error = start(Limits::default().reserve(1, 100));
        assert!(matches!(error, ServeError::Limits { setting: "reserve", .. }), "{error}");
        let error = start(Limits::default().rate(Rate::per_second(0)));
        assert!(matches!(error, ServeError::Limits { setting: "rate", .. }), "{error}");
        let rate = || Rate::per_second(5);
        for unknown in [
            rate().service("test.Mil"),
            rate().service("test.Mill/grind"),
            rate().method("test.Mill"),
            rate().method("a.B/c"),
        ] {
            let error = start(Limits::default().rate(unknown));
            assert!(matches!(error, ServeError::UnknownMethod { .. }), "{error}");
        }
        let error = start(Limits::default().method("test.Mill/grnd", 5));
        assert!(matches!(error, ServeError::UnknownMethod { .. }), "{error}");
        assert!(error.to_string().contains("test.Mill/grnd"), "{error}");
    });
}

#[test]
fn overloaded_is_of_the_class_that_did_not_run() {
    assert_eq!(Status::OVERLOADED.class(), StatusClass::Refused);
}
