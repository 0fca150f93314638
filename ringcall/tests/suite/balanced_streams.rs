//! Calls with streams over balanced channels and real servers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::Duration;

use crate::common::{block, eventually};
use ringcall::cluster::balance::Balancing;
use ringcall::cluster::breaker::{BreakerConfig, BreakerState};
use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::fleet::Readiness;
use ringcall::cluster::{
    Balanced, BalancedStream, Clients, Connector, LocalClients, MethodSettings, Settings,
};
use ringcall::filter::{ClientCall, FilterExt, Filtered};
use ringcall::{
    Address, CallError, Cause, Context, Failure, FailureClass, Fallbacks, ItemSender, Items,
    Missing, Refusal, ReplyItems, RunningServer, Server, Shard, ShardConfig, Status, Stream,
    Upload, WithFallbacks,
};

#[ringcall::service(name = "test.Choir")]
trait Choir {
    /// Who sings, so many times.
    async fn sing(&self, times: u64) -> Result<impl Stream<Item = u64>, Refusal>;
    /// A thousand times who hears them, and their sum.
    async fn hear(&self, notes: Items<u64>) -> Result<u64, Refusal>;
    /// Each note, and a thousand times who repeats it.
    async fn repeat(&self, notes: Items<u64>) -> impl Stream<Item = u64>;
    /// One note, and then it breaks.
    async fn break_off(&self) -> impl Stream<Item = u64>;
    /// What another one sings.
    async fn pass_on(&self, cx: &Context, times: u64) -> u64;
}

#[derive(Debug, Default)]
struct Seen {
    asked: AtomicU64,
    /// Streams that were dropped.
    dropped: AtomicU64,
}

struct Singer {
    number: u64,
    refuses: bool,
    below: Option<Balanced<Clients>>,
    seen: Arc<Seen>,
}

/// So many times the same.
struct Notes(u64, u64, Arc<Seen>);

impl Stream for Notes {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        let Some(left) = self.1.checked_sub(1) else { return Poll::Ready(None) };
        self.1 = left;
        Poll::Ready(Some(self.0))
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.2.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Each of the caller's, changed.
struct Repeated(Items<u64>, u64);

impl Stream for Repeated {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        let number = self.1;
        let next = Pin::new(&mut self.0).poll_next(cx);
        next.map(|note| note.map(|note| number * 1000 + note))
    }
}

struct Breaks(bool);

impl Stream for Breaks {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        assert!(!std::mem::replace(&mut self.0, true), "this stream always breaks");
        Poll::Ready(Some(1))
    }
}

impl Choir for Singer {
    async fn sing(&self, times: u64) -> Result<impl Stream<Item = u64>, Refusal> {
        self.seen.asked.fetch_add(1, Ordering::SeqCst);
        match self.refuses {
            true => Err(Refusal::overloaded()),
            false => Ok(Notes(self.number, times, Arc::clone(&self.seen))),
        }
    }

    async fn hear(&self, mut notes: Items<u64>) -> Result<u64, Refusal> {
        if self.refuses {
            return Err(Refusal::overloaded());
        }
        let mut sum = 0;
        while let Some(note) = notes.next().await {
            sum += note;
        }
        Ok(self.number * 1000 + sum)
    }

    async fn repeat(&self, notes: Items<u64>) -> impl Stream<Item = u64> {
        Repeated(notes, self.number)
    }

    async fn break_off(&self) -> impl Stream<Item = u64> {
        Breaks(false)
    }

    async fn pass_on(&self, cx: &Context, times: u64) -> u64 {
        let below = self.below.as_ref().expect("there is somebody below");
        let mut items = ChoirClient::new(cx.client(below)).sing(&times).await.unwrap();
        let mut sum = 0;
        while let Some(note) = items.next().await {
            sum += note.unwrap().to_native();
        }
        sum
    }
}

fn singer(number: u64) -> Singer {
    Singer { number, refuses: false, below: None, seen: Arc::default() }
}

fn serve(singer: Singer) -> RunningServer {
    Server::bind("127.0.0.1:0").service(singer.into_choir()).start().unwrap()
}

fn instance(number: u64, address: &Address) -> Instance {
    Instance::new("choir", number.to_string(), address.clone())
}

fn in_turn() -> Settings {
    let mut settings = Settings::new();
    settings.balancing = Balancing::SmoothRoundRobin;
    settings
}

fn listing(servers: &[RunningServer]) -> Listing {
    let listed = servers.iter().zip(0..);
    Listing::of(1, listed.map(|(server, number)| instance(number, server.address())))
}

fn channel() -> Balanced<Clients> {
    Balanced::new(Clients::new().unwrap(), in_turn()).unwrap()
}

fn ready<N: Connector>(balanced: &Balanced<N>) -> usize {
    let hosts = balanced.explain(0).hosts;
    hosts.iter().filter(|host| host.readiness == Readiness::Ready).count()
}

fn until_ready<N: Connector>(balanced: &Balanced<N>, count: usize) {
    eventually("there are connections", || ready(balanced) == count);
}

fn in_flight<N: Connector>(balanced: &Balanced<N>) -> u32 {
    balanced.explain(0).hosts.iter().map(|host| host.in_flight).sum()
}

fn three() -> (Vec<RunningServer>, Balanced<Clients>) {
    let servers: Vec<RunningServer> = (0..3).map(|number| serve(singer(number))).collect();
    let balanced = channel();
    balanced.apply(&listing(&servers));
    until_ready(&balanced, 3);
    (servers, balanced)
}

/// Who sings.
fn sung(choir: &ChoirClient<Balanced<Clients>>, times: u64) -> Result<Vec<u64>, CallError> {
    let mut items = choir.sing(&times).wait()?;
    items.wait_each().map(|note| note.map(|note| note.to_native())).collect()
}

#[test]
fn streams_of_each_kind_go_to_all_instances_and_stay_where_they_are() {
    let (_servers, balanced) = three();
    let choir = ChoirClient::new(balanced.clone());
    let mut counts = [[0; 3]; 3];
    for _ in 0..30 {
        let notes = sung(&choir, 5).unwrap();
        assert_eq!(notes, [notes[0]; 5]);
        counts[0][notes[0] as usize] += 1;
    }
    for _ in 0..30 {
        let mut upload = choir.hear().wait().unwrap();
        (1..=4).for_each(|note| upload.send_wait(&note).unwrap());
        let heard = upload.finish_wait().unwrap().to_native();
        assert_eq!(heard % 1000, 10);
        counts[1][heard as usize / 1000] += 1;
    }
    for _ in 0..30 {
        let (mut sender, mut items) = choir.repeat().wait().unwrap();
        let mut who = Vec::new();
        for note in 0..4 {
            sender.send_wait(&note).unwrap();
            let repeated = items.next_wait().unwrap().unwrap().to_native();
            assert_eq!(repeated % 1000, note);
            who.push(repeated / 1000);
        }
        sender.end();
        assert!(items.next_wait().is_none());
        assert_eq!(who, [who[0]; 4]);
        counts[2][who[0] as usize] += 1;
    }
    assert!(counts.iter().flatten().all(|count| *count > 3), "{counts:?}");
    assert_eq!(in_flight(&balanced), 0);
    let explained = balanced.explain("test.Choir/sing");
    assert!(explained.hosts.iter().all(|host| host.latency.is_some() && host.errors == 0.0));
}

#[test]
fn on_a_shard_streams_do_the_same_without_leaving_the_thread() {
    let servers: Vec<RunningServer> = (0..3).map(|number| serve(singer(number))).collect();
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let balanced = Balanced::new(LocalClients::new(&shard), in_turn()).unwrap();
    balanced.apply(&listing(&servers));
    let choir = ChoirClient::new(balanced.clone());
    let counts = shard.block_on(async {
        while ready(&balanced) < 3 {
            balanced.ready().await.unwrap();
            shard.sleep(Duration::from_millis(1)).await;
        }
        let mut counts = [[0; 3]; 3];
        for _ in 0..12 {
            let mut items = choir.sing(&3).await.unwrap();
            let first = items.next().await.unwrap().unwrap().to_native();
            counts[0][first as usize] += 1;
            assert_eq!(items.next().await.unwrap().unwrap().to_native(), first);
            assert_eq!(in_flight(&balanced), 1);
            drop(items);
            assert_eq!(in_flight(&balanced), 0);
        }
        for _ in 0..12 {
            let mut upload = choir.hear().await.unwrap();
            for note in 1..=4 {
                upload.send(&note).await.unwrap();
            }
            let heard = upload.finish().await.unwrap().to_native();
            counts[1][heard as usize / 1000] += 1;
        }
        for _ in 0..12 {
            let (mut sender, mut items) = choir.repeat().await.unwrap();
            sender.send(&7).await.unwrap();
            let repeated = items.next().await.unwrap().unwrap().to_native();
            assert_eq!(repeated % 1000, 7);
            counts[2][repeated as usize / 1000] += 1;
            sender.end();
            assert!(items.next().await.is_none());
        }
        counts
    });
    assert!(counts.iter().flatten().all(|count| *count > 3), "{counts:?}");
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn streams_can_be_awaited_by_any_executor_and_sent_to_any_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    type Opened = BalancedStream<Clients>;
    is_send(None::<Opened>);
    is_send(None::<ReplyItems<Opened, u64, Refusal>>);
    is_send(None::<ItemSender<Opened, u64>>);
    is_send(None::<Upload<Opened, u64, u64, ()>>);
    let (_servers, balanced) = three();
    let choir = ChoirClient::new(balanced);
    let future = async move {
        let mut items = choir.sing(&2).await.unwrap();
        let who = items.next().await.unwrap().unwrap().to_native();
        let mut upload = choir.hear().await.unwrap();
        upload.send(&who).await.unwrap();
        let heard = upload.finish().await.unwrap().to_native();
        let (mut sender, mut items) = choir.repeat().await.unwrap();
        sender.send(&heard).await.unwrap();
        items.next().await.unwrap().unwrap().to_native() % 1000
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let task = thread::spawn(move || runtime.block_on(is_send(future)));
    assert!(task.join().unwrap() < 1000);
}

#[test]
fn a_stream_is_asked_for_elsewhere_while_an_instance_is_down() {
    let gone = serve(singer(0));
    let address = gone.address().clone();
    gone.stop();
    let server = serve(singer(1));
    let listed = [instance(0, &address), instance(1, server.address())];
    for _ in 0..5 {
        // Nobody is connected yet: some are opened where nobody is.
        let balanced = channel();
        balanced.apply(&Listing::of(1, listed.clone()));
        let choir = ChoirClient::new(balanced.clone());
        assert_eq!(sung(&choir, 1), Ok(vec![1]));
        let upload = choir.hear().wait().unwrap();
        assert_eq!(upload.finish_wait().unwrap().to_native(), 1000);
    }
    // When it is there, it has streams, too.
    let balanced = channel();
    balanced.apply(&Listing::of(1, listed));
    let choir = ChoirClient::new(balanced.clone());
    for _ in 0..20 {
        assert_eq!(sung(&choir, 1), Ok(vec![1]));
    }
    let _back = Server::bind(address).service(singer(0).into_choir()).start().unwrap();
    until_ready(&balanced, 2);
    let is_back = (0..20).any(|_| sung(&choir, 1) == Ok(vec![0]));
    assert!(is_back);
}

#[test]
fn a_stream_that_a_server_refuses_is_asked_of_another_one() {
    let seen = Arc::<Seen>::default();
    let refuses = Singer { refuses: true, seen: Arc::clone(&seen), ..singer(0) };
    let servers = [serve(refuses), serve(singer(1))];
    let balanced = channel();
    balanced.apply(&listing(&servers));
    until_ready(&balanced, 2);
    let choir = ChoirClient::new(balanced.clone());
    for _ in 0..4 {
        let mut items = choir.sing(&2).deadline(Duration::from_secs(30)).wait().unwrap();
        assert_eq!(items.next_wait().unwrap().unwrap().to_native(), 1);
    }
    assert!(seen.asked.load(Ordering::SeqCst) > 0, "it was asked");
    // Not one whose items it may have taken.
    let refused = (0..4).filter(|_| {
        let end = choir.hear().wait().unwrap().finish_wait();
        match end.map(|heard| heard.to_native()) {
            Ok(heard) => assert_eq!(heard, 1000),
            Err(CallError::Failed(failure)) => {
                assert_eq!(failure.cause, Cause::Status(Status::OVERLOADED));
                assert_eq!(failure.class, FailureClass::Refused);
                return true;
            }
            Err(other) => panic!("{other}"),
        }
        false
    });
    assert!(refused.count() > 0);
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn a_stream_goes_on_while_its_server_drains_and_the_next_one_goes_elsewhere() {
    let (mut servers, balanced) = three();
    let choir = ChoirClient::new(balanced.clone());
    let (mut sender, mut items) = choir.repeat().wait().unwrap();
    let mut repeat = |note: u64| {
        sender.send_wait(&note).unwrap();
        items.next_wait().unwrap().unwrap().to_native()
    };
    let who = (repeat(1) / 1000) as usize;
    let server = servers.remove(who);
    let drains = thread::spawn(move || server.drain());
    until_ready(&balanced, 2);
    for note in 0..50 {
        assert_eq!(repeat(note), who as u64 * 1000 + note);
        let singers = sung(&choir, 1).unwrap();
        assert_ne!(singers, [who as u64]);
    }
    assert_eq!(in_flight(&balanced), 1);
    // Nor does it matter to it that it is not listed any more.
    let others = (0..3).filter(|number| *number != who as u64).zip(&servers);
    let listed = others.map(|(number, server)| instance(number, server.address()));
    balanced.apply(&Listing::of(2, listed));
    assert_eq!(in_flight(&balanced), 0, "of those that are listed");
    assert_eq!(repeat(7), who as u64 * 1000 + 7);
    assert!(!drains.is_finished());
    sender.end();
    assert!(items.next_wait().is_none());
    assert!(drains.join().unwrap().is_clean());
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn a_stream_that_is_dropped_is_under_way_no_more_and_its_server_is_told() {
    let seen = Arc::<Seen>::default();
    let server = serve(Singer { seen: Arc::clone(&seen), ..singer(0) });
    let balanced = channel();
    balanced.apply(&listing(std::slice::from_ref(&server)));
    let choir = ChoirClient::new(balanced.clone());
    // No more, since they are never read and share the connection's window.
    let mut streams: Vec<_> = (0..3).map(|_| choir.sing(&u64::MAX).wait().unwrap()).collect();
    for stream in &mut streams {
        assert_eq!(stream.next_wait().unwrap().unwrap().to_native(), 0);
    }
    let upload = choir.hear().wait().unwrap();
    let (sender, items) = choir.repeat().wait().unwrap();
    assert_eq!(in_flight(&balanced), 5);
    drop(items);
    drop((sender, upload));
    assert_eq!(in_flight(&balanced), 3);
    drop(streams);
    assert_eq!(in_flight(&balanced), 0);
    eventually("handlers are dropped", || seen.dropped.load(Ordering::SeqCst) == 3);
    assert_eq!(balanced.explain(0).hosts[0].errors, 0.0);
}

#[test]
fn a_breaker_opens_when_streams_break_off() {
    let server = serve(singer(0));
    let mut method = MethodSettings::default();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 4;
    method.breaker = Some(breaker);
    let settings = in_turn().with_method("test.Choir/break_off", method);
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    balanced.apply(&listing(std::slice::from_ref(&server)));
    let choir = ChoirClient::new(balanced.clone());
    for _ in 0..4 {
        let mut items = choir.break_off().wait().unwrap();
        assert!(items.next_wait().unwrap().is_ok());
        let Some(Err(CallError::Failed(failure))) = items.next_wait() else { panic!("it holds") };
        assert_eq!(failure.cause, Cause::Status(Status::INTERNAL));
    }
    let broken = choir.break_off().wait().map(drop);
    assert_eq!(broken, Err(CallError::Failed(Failure::not_sent(Cause::BreakerOpen))));
    let state = balanced.explain("test.Choir/break_off").breaker;
    assert!(matches!(state, Some(BreakerState::Open { .. })), "{state:?}");
    assert_eq!(sung(&choir, 1), Ok(vec![0]), "of that method only");
}

#[test]
fn streams_can_be_had_of_a_certain_instance() {
    let (_servers, balanced) = three();
    for name in balanced.names() {
        let choir = ChoirClient::new(balanced.at(name.clone()));
        let mut items = choir.sing(&2).wait().unwrap();
        let singers: Vec<String> =
            items.wait_each().map(|note| note.unwrap().to_native().to_string()).collect();
        assert_eq!(singers, [&name[..], &name[..]]);
        let heard = choir.hear().wait().unwrap().finish_wait().unwrap().to_native();
        assert_eq!((heard / 1000).to_string(), name);
    }
    let nobody = ChoirClient::new(balanced.at("nobody")).sing(&1).wait().map(drop);
    let cause = nobody.err().and_then(|error| error.failure().map(|failure| failure.cause));
    assert!(matches!(cause, Some(Cause::NoInstance { why: Missing::NotListed, .. })), "{cause:?}");
    assert_eq!(balanced.counts().calls, 0);
}

#[test]
fn filters_see_attempts_beneath_and_streams_around() {
    let servers: Vec<RunningServer> = (0..2).map(|number| serve(singer(number))).collect();
    let [attempts, ended, calls] = [(); 3].map(|()| Arc::<AtomicU64>::default());
    let beneath = {
        let (attempts, ended) = (Arc::clone(&attempts), Arc::clone(&ended));
        let refuses = move |call: ClientCall| {
            attempts.fetch_add(1, Ordering::SeqCst);
            std::future::ready(if call.attempt() == 0 { Err(Status::OVERLOADED) } else { Ok(call) })
        };
        refuses.after(move |_| {
            ended.fetch_add(1, Ordering::SeqCst);
        })
    };
    let around = {
        let calls = Arc::clone(&calls);
        move |call: ClientCall| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, Status>(call))
        }
    };
    let balanced = Balanced::new(Clients::new().unwrap().filter(beneath), in_turn()).unwrap();
    balanced.apply(&listing(&servers));
    until_ready(&balanced, 2);
    let choir = ChoirClient::new(Filtered::new(balanced.clone(), around));
    for call in 1..=2 {
        let mut items = choir.sing(&3).wait().unwrap();
        assert_eq!(items.wait_each().filter(Result::is_ok).count(), 3);
        assert_eq!(calls.load(Ordering::SeqCst), call);
        assert_eq!(attempts.load(Ordering::SeqCst), 2 * call);
        assert_eq!(ended.load(Ordering::SeqCst), call);
    }
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn handlers_make_streams_over_balanced_channels_within_their_own_time() {
    let (_servers, below) = three();
    let server = serve(Singer { below: Some(below.clone()), ..singer(9) });
    let balanced = channel();
    balanced.apply(&listing(std::slice::from_ref(&server)));
    // Calls with streams pass whoever has fallbacks for others.
    let fallbacks = Fallbacks::of(ChoirClient::service_table());
    let choir = ChoirClient::new(WithFallbacks::new(balanced, fallbacks));
    let sums: Vec<u64> = (0..9).map(|_| choir.pass_on(&10).wait().unwrap().to_native()).collect();
    assert!(sums.iter().all(|sum| [0, 10, 20].contains(sum)), "{sums:?}");
    assert!([0, 10, 20].iter().all(|sum| sums.contains(sum)), "{sums:?}");
    assert_eq!(choir.sing(&2).wait().unwrap().wait_each().count(), 2);
    assert_eq!(below.counts().calls, 9);
    assert_eq!(in_flight(&below), 0);
}

#[test]
fn a_stream_for_ever_has_no_deadline_over_a_balanced_channel_either() {
    let server = serve(singer(0));
    let balanced = channel();
    balanced.apply(&listing(std::slice::from_ref(&server)));
    let choir = ChoirClient::new(balanced.clone());
    let mut upload = choir.hear().deadline(Duration::from_millis(100)).wait().unwrap();
    let mut other = choir.hear().wait().unwrap();
    block(Duration::from_millis(300));
    let late = upload.send_wait(&1).and_then(|()| upload.finish_wait().map(|_| ()));
    let Err(CallError::Failed(failure)) = late else { panic!("it is not late") };
    assert!(failure.is_expired() || failure.cause == Cause::StreamEnded, "{failure}");
    other.send_wait(&3).unwrap();
    assert_eq!(other.finish_wait().unwrap().to_native(), 3);
    assert_eq!(in_flight(&balanced), 0);
}
