//! Balanced clients over real servers: restarted, killed and added under load, with a file as the source.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

#[cfg(feature = "tls")]
use crate::common::tls::{Authority, Validity};
use crate::common::{block, eventually};
use ringcall::cluster::balance::{Balancing, PrequalConfig};
use ringcall::cluster::discovery::{
    Change, Delta, DiscoveryConfig, DiskCache, FileSource, Instance, Listing, Revision, Snapshot,
    Source, StaticSource, Update, Wanted, write_list,
};
use ringcall::cluster::fleet::{self, FleetEvent, Readiness};
use ringcall::cluster::route::{
    Action, By, Fields, Groups, Match, Route, Rule, Rules, Sample, Subset,
};
use ringcall::cluster::{Balanced, Clients, Connector, Instant, LocalClients, Settings, Watch};
use ringcall::filter::{ClientCall, FilterExt, Filtered, ServerCall};
use ringcall::limits::Limits;
use ringcall::observe::{Event, Observer};
use ringcall::{
    Address, BlockOn, CallError, Cause, Client, CloseReason, Context, Expected, Failure,
    FailureClass, Identity, Missing, Refusal, RunningServer, Server, ServiceName, Shard,
    ShardConfig, Status, TransportChoice, TransportError,
};

#[cfg(feature = "tls")]
use ringcall::{TlsClient, TlsFault, TlsServer};

#[ringcall::service(name = "test.Till")]
trait Till {
    /// Not to be done twice.
    async fn pay(&self, cx: &Context, id: u64) -> u64;
    /// Which server it is.
    #[method(idempotent)]
    async fn who(&self) -> u64;
}

/// How many times each payment ran.
type Paid = Arc<Mutex<BTreeMap<u64, u32>>>;

struct Drawer {
    number: u64,
    paid: Paid,
}

impl Till for Drawer {
    async fn pay(&self, cx: &Context, id: u64) -> u64 {
        *self.paid.lock().unwrap().entry(id).or_default() += 1;
        cx.sleep(Duration::from_micros(id % 7 * 300)).await;
        self.number
    }

    async fn who(&self) -> u64 {
        self.number
    }
}

fn serve(number: u64, paid: &Paid) -> RunningServer {
    let till = Drawer { number, paid: Arc::clone(paid) };
    Server::bind("127.0.0.1:0").service(till.into_till()).start().unwrap()
}

fn instance(number: u64, server: &RunningServer) -> Instance {
    let address: Address = server.address().clone();
    Instance::new("till", number.to_string(), address)
}

/// In turn, so that it does not matter how long calls take.
fn in_turn() -> Settings {
    let mut settings = Settings::new();
    settings.balancing = Balancing::SmoothRoundRobin;
    settings
}

fn balanced() -> Balanced<Clients> {
    Balanced::new(Clients::new().unwrap(), in_turn()).unwrap()
}

fn who(till: &TillClient<Balanced<Clients>>) -> Result<u64, CallError> {
    till.who().wait().map(|number| number.to_native())
}

/// A server that says who it is.
fn serve_as(number: u64, who: &str, at: &str, choice: TransportChoice) -> RunningServer {
    let till = Drawer { number, paid: Paid::default() };
    let server = Server::bind(at).transport(choice).identity(Identity::new(who).unwrap());
    server.service(till.into_till()).start().unwrap()
}

fn expected(who: &str) -> Expected {
    Expected::new(Identity::new(who).unwrap())
}

/// Waits until there is a connection to so many.
fn until_ready(balanced: &Balanced<Clients>, count: usize) {
    let ready = || {
        let hosts = balanced.explain(0).hosts;
        hosts.iter().filter(|host| host.readiness == Readiness::Ready).count()
    };
    eventually("there are connections", || ready() == count);
}

#[test]
fn calls_are_shared_out_and_a_lost_server_is_left() {
    let paid = Paid::default();
    let mut servers: Vec<RunningServer> = (0..3).map(|number| serve(number, &paid)).collect();
    let balanced = balanced();
    let instances = servers.iter().zip(0..).map(|(server, number)| instance(number, server));
    balanced.apply(&Listing::of(1, instances));
    until_ready(&balanced, 3);
    let till = TillClient::new(balanced.clone());
    let mut counts = [0; 3];
    for _ in 0..300 {
        counts[who(&till).unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    servers.remove(0).stop();
    for _ in 0..100 {
        assert_ne!(who(&till), Ok(0));
    }
    let explained = balanced.explain("test.Till/who");
    assert_eq!(explained.hosts.len(), 3);
    assert!(explained.to_string().contains("SmoothRoundRobin"), "{explained}");
}

#[test]
fn calls_to_a_certain_instance_go_there_and_all_can_be_told_something() {
    let paid = Paid::default();
    let mut servers: Vec<RunningServer> = (0..3).map(|number| serve(number, &paid)).collect();
    let balanced = balanced();
    assert_eq!(balanced.names(), [""; 0]);
    let second = TillClient::new(balanced.at("1"));
    let nobody = |ended: Result<u64, CallError>| {
        let failure = ended.expect_err("it is not in the list").into_failure();
        matches!(failure.cause, Cause::NoInstance { why: Missing::NotListed, .. })
    };
    assert!(nobody(second.who().wait().map(|number| number.to_native())));
    let listed: Vec<_> =
        servers.iter().zip(0..).map(|(server, number)| instance(number, server)).collect();
    balanced.apply(&Listing::of(1, listed.clone()));
    for _ in 0..20 {
        assert_eq!(second.who().wait().map(|number| number.to_native()), Ok(1));
    }
    // Each hears it once.
    for name in balanced.names() {
        let till = TillClient::new(balanced.at(name.clone()));
        let number = till.pay(&name.parse().unwrap()).wait().map(|number| number.to_native());
        assert_eq!(number.map(|number| number.to_string()), Ok(name));
    }
    assert_eq!(*paid.lock().unwrap(), [(0, 1), (1, 1), (2, 1)].into());
    // It goes nowhere else, and is no news of the instance.
    servers.remove(1).stop();
    assert!(second.who().wait().is_err());
    assert_eq!(balanced.counts().calls, 0);
    balanced.apply(&Listing::of(2, [listed[0].clone(), listed[2].clone()]));
    assert!(nobody(second.who().wait().map(|number| number.to_native())));
    assert_eq!(balanced.names().len(), 2);
}

#[test]
fn a_balanced_channel_is_waited_for_until_somebody_can_be_called() {
    let balanced = balanced();
    let source = Told::default();
    let watch = Watch::new(Wanted::service("till"));
    let _watching = watch.start(source.clone(), balanced.clone()).unwrap();
    let service = Some(ServiceName::new(&"till"));
    let nobody = Failure::not_sent(Cause::NoInstance { why: Missing::NoneKnown, service });
    let soon = balanced.ready().within(Duration::from_millis(50));
    assert_eq!(balanced.block_on(soon), Err(nobody));
    let waits = {
        let balanced = balanced.clone();
        thread::spawn(move || {
            balanced.block_on(balanced.ready())?;
            Ok::<_, Failure>(TillClient::new(balanced).who().wait().unwrap().to_native())
        })
    };
    block(Duration::from_millis(100));
    // A list with nobody who answers is none yet.
    let server = serve(7, &Paid::default());
    let address = server.address().clone();
    server.stop();
    source.has(vec![Instance::new("till", "7", address.clone())]);
    block(Duration::from_millis(300));
    assert!(!waits.is_finished(), "nobody is there");
    let soon = balanced.ready().within(Duration::from_millis(50));
    let refused = Cause::Closed(CloseReason::Transport(TransportError::Refused));
    assert_eq!(balanced.block_on(soon), Err(Failure::not_sent(refused)), "it says why");
    let till = Drawer { number: 7, paid: Paid::default() }.into_till();
    let _server = Server::bind(address).service(till).start().unwrap();
    assert_eq!(waits.join().unwrap(), Ok(7));
    assert_eq!(balanced.block_on(balanced.ready().within(Duration::ZERO)), Ok(()), "at once");
}

#[test]
fn on_a_shard_a_balanced_channel_is_waited_for_as_well() {
    let server = serve(3, &Paid::default());
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let balanced = Balanced::new(LocalClients::new(&shard), in_turn()).unwrap();
    let (sleep, listed) = (shard.sleep(Duration::from_millis(50)), balanced.clone());
    let listing = Listing::of(1, [instance(3, &server)]);
    shard.spawn(async move {
        sleep.await;
        listed.apply(&listing);
    });
    let number = shard.block_on(async {
        balanced.ready().await.unwrap();
        TillClient::new(balanced.clone()).who().await.unwrap().to_native()
    });
    assert_eq!(number, 3);
}

/// Calls all of these once, if they are who they are said to be; what is wrong with the connections to others.
#[cfg(feature = "tls")]
fn called(balanced: &Balanced<Clients>, instances: &[Instance]) -> Vec<Result<u64, Cause>> {
    balanced.apply(&Listing::of(balanced.version() + 1, instances.to_vec()));
    let one = |instance: &Instance| {
        let till = TillClient::new(balanced.at(&instance.name[..]));
        match till.who().wait() {
            Ok(number) => Ok(number.to_native()),
            Err(CallError::Failed(failure)) => Err(failure.cause),
            Err(other) => panic!("{other}"),
        }
    };
    instances.iter().map(one).collect()
}

#[cfg(feature = "tls")]
#[test]
fn with_tls_each_instance_is_verified_by_its_own_name() {
    let authority = Authority::new("ours");
    let trusting = TlsClient::new(authority.roots()).unwrap();
    let names = ["one.example", "two.example"];
    let servers: Vec<RunningServer> = (0..2)
        .map(|number| {
            let identity = authority.sign(names[number], Validity::Now).identity();
            let till = Drawer { number: number as u64, paid: Paid::default() }.into_till();
            let server = Server::bind("127.0.0.1:0").tls(TlsServer::new(identity).unwrap());
            server.service(till).start().unwrap()
        })
        .collect();
    let listed = |named: [Option<&str>; 2]| {
        let all = servers.iter().zip(0..).zip(named);
        let said = |((server, number), name): ((&RunningServer, u64), Option<&str>)| {
            let instance = instance(number, server);
            name.map_or(instance.clone(), |name| instance.with_tls_name(name))
        };
        all.map(said).collect::<Vec<Instance>>()
    };
    let wrong = Err(Cause::Closed(CloseReason::Tls(TlsFault::CertificateWrongName)));
    let with = |tls: &TlsClient| {
        let tls = tls.clone();
        let clients = Clients::new().unwrap().with(move |connect| connect.tls(tls.clone()));
        Balanced::new(clients, in_turn()).unwrap()
    };
    let balanced = with(&trusting);
    assert_eq!(called(&balanced, &listed([None, None])), [wrong; 2], "nobody has their addresses");
    assert_eq!(called(&balanced, &listed(names.map(Some))), [Ok(0), Ok(1)]);
    assert_eq!(called(&balanced, &listed([Some(names[0]); 2])), [Ok(0), wrong]);
    // Who says which name it has to be means it.
    let named = with(&trusting.clone().server_name(names[1]).unwrap());
    assert_eq!(called(&named, &listed(names.map(Some))), [wrong, Ok(1)]);
}

#[cfg(feature = "tls")]
#[test]
fn on_a_shard_each_instance_is_verified_by_its_own_name_as_well() {
    let authority = Authority::new("ours");
    let trusting = TlsClient::new(authority.roots()).unwrap();
    let identity = authority.sign("one.example", Validity::Now).identity();
    let till = Drawer { number: 5, paid: Paid::default() }.into_till();
    let server = Server::bind("127.0.0.1:0").tls(TlsServer::new(identity).unwrap());
    let server = server.service(till).start().unwrap();
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let clients = LocalClients::new(&shard).with(move |connect| connect.tls(trusting.clone()));
    let balanced = Balanced::new(clients, in_turn()).unwrap();
    balanced.apply(&Listing::of(1, [instance(5, &server).with_tls_name("one.example")]));
    let till = TillClient::new(balanced);
    assert_eq!(shard.block_on(async { till.who().await.unwrap().to_native() }), 5);
}

/// To which of eight instances, chosen by chance, calls go that are made one after the other.
fn chosen(balanced: Balanced<Clients>, server: &RunningServer) -> Vec<String> {
    balanced.apply(&Listing::of(1, (0..8).map(|number| instance(number, server))));
    until_ready(&balanced, 8);
    let till = TillClient::new(balanced.reporting());
    let mut chosen = Vec::new();
    for _ in 0..30 {
        assert_eq!(who(&till), Ok(1));
        let report = balanced.poll_report().expect("the call is reported");
        chosen.push(report.attempts[0].instance.clone());
    }
    chosen
}

#[test]
fn channels_that_are_made_alike_do_not_choose_alike_unless_they_are_told_to() {
    let server = serve(1, &Paid::default());
    let mut settings = Settings::new();
    settings.balancing = Balancing::WeightedRandom;
    let new = || Balanced::new(Clients::new().unwrap(), settings.clone()).unwrap();
    assert_ne!(chosen(new(), &server), chosen(new(), &server));
    let seeded = || Balanced::seeded(Clients::new().unwrap(), settings.clone(), 1).unwrap();
    assert_eq!(chosen(seeded(), &server), chosen(seeded(), &server));
}

#[test]
fn a_filter_beneath_sees_attempts_and_one_around_sees_calls() {
    let paid = Paid::default();
    let servers: Vec<RunningServer> = (0..2).map(|number| serve(number, &paid)).collect();
    let (calls, attempts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let beneath = {
        let attempts = Arc::clone(&attempts);
        move |mut call: ClientCall| {
            attempts.fetch_add(1, Ordering::SeqCst);
            async move {
                // Ready a little later.
                let mut is_later = false;
                std::future::poll_fn(|cx| match std::mem::replace(&mut is_later, true) {
                    true => std::task::Poll::Ready(()),
                    false => {
                        cx.waker().wake_by_ref();
                        std::task::Poll::Pending
                    }
                })
                .await;
                call.add_metadata("attempt", call.attempt().to_string());
                if call.attempt() == 0 { Err(Status::OVERLOADED) } else { Ok(call) }
            }
        }
    };
    let ended = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ended);
    let beneath = beneath.after(move |end| told.lock().unwrap().push(end.status));
    let around = {
        let calls = Arc::clone(&calls);
        move |call: ClientCall| {
            calls.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, Status>(call))
        }
    };
    let balanced = Balanced::new(Clients::new().unwrap().filter(beneath), in_turn()).unwrap();
    let instances = servers.iter().zip(0..).map(|(server, number)| instance(number, server));
    balanced.apply(&Listing::of(1, instances));
    let ready = |host: &fleet::HostReport| host.readiness == Readiness::Ready;
    eventually("there are connections", || balanced.explain(0).hosts.iter().all(ready));
    let till = TillClient::new(Filtered::new(balanced, around));
    for call in 1..=3 {
        let who = till.who().wait().unwrap().to_native();
        assert!(who < 2);
        assert_eq!(calls.load(Ordering::SeqCst), call);
        assert_eq!(attempts.load(Ordering::SeqCst), 2 * call);
    }
    // What a filter ends at a client it does not tell.
    assert_eq!(*ended.lock().unwrap(), [Some(Status::OK); 3]);
}

#[test]
fn an_observer_can_tell_a_retry_from_a_first_attempt() {
    struct Attempts(Mutex<Vec<(u8, Option<Status>)>>);
    impl Observer for Attempts {
        fn observe(&self, event: &Event<'_>) {
            if let Event::CallEnded(call, end) = event {
                self.0.lock().unwrap().push((call.attempt, end.end.status()));
            }
        }
    }
    let is_first = Arc::new(AtomicBool::new(true));
    let busy_once = move |call: ServerCall| {
        let is_first = is_first.swap(false, Ordering::SeqCst);
        std::future::ready(if is_first { Err(Status::OVERLOADED) } else { Ok(call) })
    };
    let till = Drawer { number: 0, paid: Paid::default() };
    let server =
        Server::bind("127.0.0.1:0").service(till.into_till()).filter(busy_once).start().unwrap();
    let told = Arc::new(Attempts(Mutex::default()));
    let observer: Arc<dyn Observer> = Arc::clone(&told) as _;
    let clients =
        Clients::new().unwrap().with(move |connect| connect.observer(Arc::clone(&observer)));
    let balanced = Balanced::new(clients, in_turn()).unwrap();
    balanced.apply(&Listing::of(1, [instance(0, &server)]));
    until_ready(&balanced, 1);
    assert_eq!(who(&TillClient::new(balanced)), Ok(0));
    let ends = [(0, Some(Status::OVERLOADED)), (1, Some(Status::OK))];
    assert_eq!(*told.0.lock().unwrap(), ends);
}

/// A call that had a hedge to wait for, and was answered before: the shard is not to keep it in mind until then.
#[test]
fn a_sleep_that_is_given_up_is_forgotten() {
    struct Waiting;
    impl std::task::Wake for Waiting {
        fn wake(self: Arc<Self>) {}
    }
    let (clients, waiting) = (Clients::new().unwrap(), Arc::new(Waiting));
    let waker = std::task::Waker::from(Arc::clone(&waiting));
    for _ in 0..100 {
        let mut sleep = std::pin::pin!(Connector::sleep(&clients, Duration::from_secs(600)));
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::future::Future::poll(sleep.as_mut(), &mut cx).is_pending());
    }
    drop(waker);
    eventually("nobody has it", || Arc::strong_count(&waiting) == 1);
}

#[ringcall::service(name = "test.Counted")]
trait Counted {
    async fn count(&self) -> Result<u64, Refusal>;
}

struct Counter {
    refuses: bool,
    asked: Arc<AtomicU64>,
}

impl Counted for Counter {
    async fn count(&self) -> Result<u64, Refusal> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        if self.refuses { Err(Refusal::overloaded()) } else { Ok(asked) }
    }
}

/// It did not run, so it need not be idempotent.
#[test]
fn what_one_server_refuses_is_asked_of_another() {
    let asked = [Arc::<AtomicU64>::default(), Arc::default()];
    let servers = [0, 1].map(|place| {
        let counter = Counter { refuses: place == 0, asked: Arc::clone(&asked[place]) };
        Server::bind("127.0.0.1:0").service(counter.into_counted()).start().unwrap()
    });
    let balanced = balanced();
    let instances = servers.iter().zip(0..).map(|(server, number)| instance(number, server));
    balanced.apply(&Listing::of(1, instances));
    let counted = CountedClient::new(balanced);
    for number in 0..4 {
        let patient = counted.count().deadline(Duration::from_secs(30));
        assert_eq!(patient.wait().unwrap(), number);
    }
    assert!(asked[0].load(Ordering::SeqCst) > 0, "it was asked");
}

#[test]
fn without_a_listing_a_call_says_so() {
    let till = TillClient::new(balanced());
    let Err(CallError::Failed(failure)) = who(&till) else { panic!("it was answered") };
    assert_eq!(failure, Failure::not_sent(Cause::no_instance(Missing::NoneKnown)));
}

#[test]
fn f07_a_rolling_restart_under_load_fails_no_payment() {
    let paid = Paid::default();
    let mut servers: Vec<(u64, RunningServer)> =
        (0..3).map(|number| (number, serve(number, &paid))).collect();
    let balanced = balanced();
    let publish = |version, servers: &[(u64, RunningServer)]| {
        let instances = servers.iter().map(|(number, server)| instance(*number, server));
        balanced.apply(&Listing::of(version, instances));
    };
    publish(1, &servers);
    until_ready(&balanced, 3);
    let (stop, ids) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let till = TillClient::new(balanced.clone());
                while !stop.load(Ordering::Relaxed) {
                    let id = ids.fetch_add(1, Ordering::Relaxed);
                    till.pay(&id).wait().unwrap_or_else(|error| panic!("{id}: {error}"));
                }
            });
        }
        for round in 0..6 {
            block(Duration::from_millis(30));
            let number = round + 3;
            servers.push((number, serve(number, &paid)));
            publish(2 + 2 * round, &servers);
            until_ready(&balanced, 4);
            // It goes without a word to the list: only its goodbye tells.
            servers.remove(0).1.drain();
            publish(3 + 2 * round, &servers);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let paid = paid.lock().unwrap();
    assert_eq!(paid.len() as u64, ids.load(Ordering::Relaxed));
    assert!(paid.values().all(|times| *times == 1));
}

#[ringcall::service(name = "test.Tier")]
trait Tier {
    /// Fails, after it has tried the tier below, if there is one.
    #[method(idempotent)]
    async fn down(&self, cx: &Context) -> u64;
}

struct Floor {
    below: Option<Balanced<Clients>>,
    ran: Arc<AtomicU64>,
}

impl Tier for Floor {
    async fn down(&self, cx: &Context) -> u64 {
        self.ran.fetch_add(1, Ordering::Relaxed);
        if let Some(below) = &self.below {
            let below = TierClient::new(cx.client(below));
            let _fails = below.down().deadline(Duration::from_secs(60)).await;
        }
        panic!("this floor always fails");
    }
}

#[test]
fn d11_a_failure_three_tiers_down_is_not_multiplied() {
    let balanced_over = |server: &RunningServer| {
        let mut settings = Settings::new();
        settings.retry_floor_per_s = 100;
        settings.method.retry.backoff = Duration::from_millis(1);
        let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
        balanced.apply(&Listing::of(1, [instance(1, server)]));
        balanced
    };
    let (mut servers, mut below, mut floors) = (Vec::new(), None, Vec::new());
    for _ in 0..3 {
        let ran = Arc::new(AtomicU64::new(0));
        let floor = Floor { below: below.take(), ran: Arc::clone(&ran) };
        let server = Server::bind("127.0.0.1:0").service(floor.into_tier()).start().unwrap();
        below = Some(balanced_over(&server));
        servers.push(server);
        floors.push(ran);
    }
    let below = TierClient::new(below.unwrap());
    assert!(below.down().deadline(Duration::from_secs(60)).wait().is_err());
    let ran: Vec<u64> = floors.iter().rev().map(|ran| ran.load(Ordering::Relaxed)).collect();
    // The first try of each tier is retried twice; a try that is a retry is not retried below. Three to the
    // power of three would be 27.
    assert_eq!(ran, [3, 5, 7]);
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn g01_a_file_says_where_the_servers_are_and_the_cache_when_it_is_gone() {
    let path = std::env::temp_dir().join(format!("ringcall-cluster-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    let folder = Folder(path);
    let (file, cache) = (folder.0.join("list"), DiskCache::new(folder.0.join("cache")));
    let paid = Paid::default();
    let (one, two) = (serve(1, &paid), serve(2, &paid));
    let nine: Address = "127.0.0.1:9".parse().unwrap();
    write_list(&file, &[instance(1, &one), Instance::new("other", "9", nine)]).unwrap();

    let watched = balanced();
    let watch = Watch::new(Wanted::service("till")).cache(cache.clone());
    let watching = watch.clone().start(FileSource::new(&file), watched.clone()).unwrap();
    let till = TillClient::new(watched.clone());
    assert_eq!(who(&till), Ok(1));
    write_list(&file, &[instance(1, &one), instance(2, &two)]).unwrap();
    eventually("the second is called, too", || who(&till) == Ok(2));
    // Half a file, and then none: the list stays.
    fs::write(&file, "till 1 127.0").unwrap();
    block(Duration::from_millis(200));
    assert_eq!(watched.explain(0).hosts.len(), 2);
    fs::remove_file(&file).unwrap();
    block(Duration::from_millis(200));
    assert!(who(&till).is_ok());
    drop(watching);

    // A process that starts now knows them from the cache.
    let later = balanced();
    let _watching = watch.start(FileSource::new(&file), later.clone()).unwrap();
    assert_eq!(cache.load().unwrap().instances.len(), 2);
    assert_eq!(later.explain(0).hosts.len(), 2);
    assert_eq!(who(&TillClient::new(later)).map(|_| ()), Ok(()));
}

#[test]
fn whoever_watches_next_is_heard() {
    let paid = Paid::default();
    let (one, two) = (serve(1, &paid), serve(2, &paid));
    let balanced = balanced();
    balanced.apply(&Listing::of(40, [instance(1, &one)]));
    let till = TillClient::new(balanced.clone());
    assert_eq!(who(&till), Ok(1));
    let watch = Watch::new(Wanted::service("till"));
    let _watching = watch.start(StaticSource::new([instance(2, &two)]), balanced.clone()).unwrap();
    assert_eq!(balanced.version(), 41);
    assert_eq!(who(&till), Ok(2));
}

#[test]
fn g01_a_list_from_before_outlasts_an_outage_of_everything() {
    let path = std::env::temp_dir().join(format!("ringcall-outage-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    let folder = Folder(path);
    let (file, cache) = (folder.0.join("list"), DiskCache::new(folder.0.join("cache")));
    let paid = Paid::default();
    let server = serve(1, &paid);
    let nobody: Address = "127.0.0.1:9".parse().unwrap();
    let of = |address: &Address| Instance::new("till", "1", address.clone());
    let others = ["4", "5", "6", "7"].map(|name| Instance::new("till", name, nobody.clone()));
    let all: Vec<Instance> = others.into_iter().chain([of(&nobody)]).collect();
    cache.save(0, &all).unwrap();
    // There is no file, and nobody can be reached: this side's network may not be up yet.
    let balanced = balanced();
    let watch = Watch::new(Wanted::service("till")).cache(cache);
    let _watching = watch.start(FileSource::new(&file), balanced.clone()).unwrap();
    block(Duration::from_millis(2000));
    assert_eq!(balanced.explain(0).hosts.len(), 5);
    // Once somebody answers, nobody at the others says something of them.
    write_list(&file, &[of(server.address()), Instance::new("till", "3", nobody)]).unwrap();
    let till = TillClient::new(balanced.clone());
    eventually("it is called", || who(&till) == Ok(1));
    let has = |name: &str| balanced.explain(0).hosts.iter().any(|host| host.name == name);
    let others = ["4", "5", "6", "7"];
    eventually("who is neither there nor in the list is left out", || {
        !others.iter().any(|it| has(it))
    });
    assert!(has("1") && has("3"));
}

#[test]
fn g01_a_list_that_is_not_believed_is_not_cached() {
    let path = std::env::temp_dir().join(format!("ringcall-believed-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    let folder = Folder(path);
    let (file, cache) = (folder.0.join("list"), DiskCache::new(folder.0.join("cache")));
    let servers: Vec<RunningServer> = (0..3).map(|n| serve(n, &Paid::default())).collect();
    let all: Vec<Instance> = (0..).zip(&servers).map(|(n, it)| instance(n, it)).collect();
    write_list(&file, &all).unwrap();
    let watched = balanced();
    let watch = Watch::new(Wanted::service("till")).cache(cache.clone());
    let watching = watch.start(FileSource::new(&file), watched.clone()).unwrap();
    assert_eq!(cache.load().unwrap().instances.len(), 3);
    write_list(&file, &all[..1]).unwrap();
    eventually("two are held", || {
        watched.explain(0).hosts.iter().filter(|host| host.is_held).count() == 2
    });
    // With its end the look has ended in which that was seen.
    drop(watching);
    assert_eq!(cache.load().unwrap().instances.len(), 3);
}

#[test]
fn a_server_says_how_busy_it_is_when_it_is_asked_if_it_has_limits() {
    let paid = Paid::default();
    let till = || Drawer { number: 1, paid: Arc::clone(&paid) }.into_till();
    let limited = Server::bind("127.0.0.1:0").service(till()).limits(Limits::default());
    let (limited, other) = (limited.start().unwrap(), serve(2, &paid));
    for (server, says) in [(&limited, true), (&other, false)] {
        let mut config = PrequalConfig::default();
        (config.probe_percent, config.age_max) = (100, Duration::from_millis(1));
        let mut settings = Settings::new();
        settings.balancing = Balancing::Prequal(config);
        let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
        balanced.apply(&Listing::of(1, [instance(1, server)]));
        let till = TillClient::new(balanced.clone());
        eventually("it is asked", || {
            assert!(who(&till).is_ok());
            block(Duration::from_millis(1));
            balanced.counts().load_probes >= 20
        });
        eventually("all are over", || {
            let fleet::FleetCounts { load_probes, load_probes_failed, .. } = balanced.counts();
            // Where the machine stands still for a while an answer may be too late.
            if says { load_probes_failed < 10 } else { load_probes_failed == load_probes }
        });
        assert_eq!(balanced.explain(0).hosts[0].load > 0.0, says);
    }
}

#[test]
fn a_channel_with_a_filter_is_watched_like_any_other() {
    let server = serve(4, &Paid::default());
    let attempts = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&attempts);
    let filter = move |call: ClientCall| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Status>(call))
    };
    let balanced = Balanced::new(Clients::new().unwrap().filter(filter), in_turn()).unwrap();
    let source = StaticSource::new([instance(4, &server)]);
    let watch = Watch::new(Wanted::service("till"));
    let watching = watch.clone().start(source.clone(), balanced.clone()).unwrap();
    assert_eq!(TillClient::new(balanced.clone()).who().wait().unwrap().to_native(), 4);
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    let mut config = DiscoveryConfig::default();
    config.damping.half_life = Duration::MAX;
    assert_eq!(watching.configure(config).unwrap_err().name, "damping.half_life");
    let refused = watch.config(config).start(source, balanced).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
}

/// A source that has what it is told to have.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<(u64, Option<Vec<Instance>>)>>);

impl Told {
    fn has(&self, instances: Vec<Instance>) {
        let mut told = self.0.lock().unwrap();
        *told = (told.0 + 1, Some(instances));
    }
}

impl Source for Told {
    fn poll_update(&mut self, _: Instant) -> Option<Update> {
        let mut told = self.0.lock().unwrap();
        let instances = told.1.take()?;
        let revision = Revision { epoch: 1, number: told.0 };
        Some(Update::Snapshot { snapshot: Snapshot { revision, instances }, clock_ms: None })
    }
}

/// A source of which many changes have not been heard yet.
struct Deployed {
    updates: VecDeque<Update>,
    /// At which times it was asked before it had told everything: once a look, however often it is asked then.
    looks: Arc<Mutex<BTreeSet<Instant>>>,
}

impl Source for Deployed {
    fn poll_update(&mut self, now: Instant) -> Option<Update> {
        let update = self.updates.pop_front()?;
        self.looks.lock().unwrap().insert(now);
        Some(update)
    }
}

#[test]
fn what_has_changed_at_once_is_heard_at_once() {
    let server = serve(1, &Paid::default());
    let at = |number| Revision { epoch: 1, number };
    let snapshot = Snapshot { revision: at(0), instances: vec![instance(1, &server)] };
    let put = |number: u32| {
        let changes = vec![Change::Put(instance(1, &server).with_weight(number))];
        Update::Delta { delta: Delta { revision: at(number.into()), changes }, clock_ms: None }
    };
    let changes = vec![Change::Put(instance(2, &server))];
    let last = Update::Delta { delta: Delta { revision: at(501), changes }, clock_ms: None };
    let mut updates = VecDeque::from([Update::Snapshot { snapshot, clock_ms: None }]);
    updates.extend((1..=500).map(put));
    updates.push_back(last);
    let looks = Arc::default();
    let source = Deployed { updates, looks: Arc::clone(&looks) };
    let balanced = balanced();
    let watch = Watch::new(Wanted::service("till"));
    let _watching = watch.start(source, balanced.clone()).unwrap();
    eventually("the last one is there", || balanced.explain(0).hosts.len() == 2);
    // The snapshot, and what followed it; more if that takes long on a busy machine.
    let looks = looks.lock().unwrap().len();
    assert!(looks < 100, "{looks} for 502 updates");
}

#[test]
fn how_a_source_is_believed_is_replaced_while_it_is_watched() {
    let server = serve(1, &Paid::default());
    let instances = |numbers: &[u64]| -> Vec<_> {
        numbers.iter().map(|number| instance(*number, &server)).collect()
    };
    let balanced = balanced();
    let mut config = DiscoveryConfig::default();
    config.damping.quiet = Duration::ZERO;
    let source = Told::default();
    source.has(instances(&[1, 2, 3, 4]));
    let watch = Watch::new(Wanted::service("till")).config(config);
    let watching = watch.start(source.clone(), balanced.clone()).unwrap();
    let held = || {
        let hosts = balanced.explain(0).hosts;
        hosts.iter().map(|host| host.is_held).collect::<Vec<_>>()
    };
    source.has(instances(&[1]));
    eventually("three are held", || held() == [false, true, true, true]);
    config.guard.hold = Duration::from_millis(1);
    watching.configure(config).unwrap();
    eventually("they have been held for long enough", || held() == [false]);
    config.guard.vanish_percent = 100;
    watching.configure(config).unwrap();
    source.has(instances(&[1, 2, 3, 4]));
    eventually("all are back", || held() == [false; 4]);
    source.has(instances(&[1]));
    eventually("three are gone", || held() == [false]);
}

#[test]
fn on_a_shard_calls_do_not_leave_the_thread() {
    let paid = Paid::default();
    let (one, two) = (serve(1, &paid), serve(2, &paid));
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let balanced = Balanced::new(LocalClients::new(&shard), in_turn()).unwrap();
    balanced.apply(&Listing::of(1, [instance(1, &one), instance(2, &two)]));
    let till = TillClient::new(balanced.clone());
    let counts = shard.block_on(async {
        let mut counts = [0; 3];
        // Whoever is not connected yet gets none.
        for _ in 0..1_000_000 {
            if counts[1] > 20 && counts[2] > 20 {
                break;
            }
            counts[till.who().await.unwrap().to_native() as usize] += 1;
        }
        counts
    });
    assert!(counts[1] > 20 && counts[2] > 20, "{counts:?}");
    one.stop();
    shard.block_on(async {
        for _ in 0..100 {
            assert_eq!(till.who().await.unwrap().to_native(), 2);
        }
    });
}

#[test]
fn calls_can_be_awaited_by_any_executor() {
    let paid = Paid::default();
    let server = serve(5, &paid);
    let balanced = balanced();
    balanced.apply(&Listing::of(1, [instance(5, &server)]));
    let till = TillClient::new(balanced);
    let future = async move { till.who().await.map(|number| number.to_native()) };
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(is_send(future)), Ok(5));
}

// ---- routing and groups ----

#[ringcall::service(name = "test.Post")]
trait Post {
    /// Who serves it, which group was asked for, and which one it was routed to by which version of the list.
    async fn letter(&self, cx: &Context, parcel: Parcel) -> String;
}

#[ringcall::message]
struct Parcel {
    user: String,
    grams: u32,
}

struct Office(&'static str);

impl Post for Office {
    async fn letter(&self, cx: &Context, _: Parcel) -> String {
        let metadata = cx.metadata();
        let asked = metadata.group().unwrap_or("-");
        let (version, real) = metadata.real_group().unwrap_or((0, "-"));
        format!("{} {asked} {real} {version}", self.0)
    }
}

/// What arrived, and by which rule it is a copy.
type Copies = Arc<Mutex<Vec<(String, Option<String>, Option<String>)>>>;

/// Answers too late for anybody, after it has put down what it was asked.
struct Shadow(Copies);

impl Post for Shadow {
    async fn letter(&self, cx: &Context, parcel: Parcel) -> String {
        let metadata = cx.metadata();
        let text = |key| metadata.text(key).map(str::to_owned);
        self.0.lock().unwrap().push((parcel.user, text("x"), text("mirrored-by")));
        cx.sleep(Duration::from_secs(60)).await;
        String::new()
    }
}

#[test]
fn a_copy_has_the_argument_and_the_metadata_of_its_call() {
    let copies = Copies::default();
    let shadow = Shadow(Arc::clone(&copies)).into_post();
    let shadow = Server::bind("127.0.0.1:0").service(shadow).start().unwrap();
    let one = office("one", "");
    let balanced = balanced();
    let instances = [of_group("one", "", &one), of_group("shadow", "", &shadow)];
    balanced.apply(&Listing::of(1, instances));
    until_ready(&balanced, 2);
    let only = || Subset::named(["shadow"]);
    let rules = Rules::new(1)
        .with(Rule::new("for copies", Match::all(), Action::Exclude(only())))
        .with(Rule::new("new version", Match::all(), Action::Mirror(only())));
    balanced.route(rules).unwrap();
    let post = PostClient::new(balanced.clone());
    // Longer than what is copied into a frame, and short.
    for user in ["x".repeat(100_000), "ann".to_owned()] {
        let parcel = Parcel { user, grams: 5 };
        let answer = post.letter(&parcel).metadata("x", "y").wait().unwrap().to_string();
        assert_eq!(answer, "one - - 0");
        drop(parcel);
    }
    eventually("copies arrive", || copies.lock().unwrap().len() == 2);
    for (user, x, by) in copies.lock().unwrap().iter() {
        assert!(user.len() == 100_000 || user == "ann");
        assert_eq!((x.as_deref(), by.as_deref()), (Some("y"), Some("new version")));
    }
    assert_eq!((balanced.counts().mirrored, balanced.counts().mirrors_dropped), (2, 0));
}

#[test]
fn calls_of_a_shard_are_copied_once_each() {
    let (paid, copied) = (Paid::default(), Paid::default());
    let (one, two) = (serve(1, &paid), serve(2, &copied));
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let balanced = Balanced::new(LocalClients::new(&shard), in_turn()).unwrap();
    balanced.apply(&Listing::of(1, [instance(1, &one), instance(2, &two)]));
    let till = TillClient::new(balanced.clone());
    let is_ready = || {
        let hosts = balanced.explain(0).hosts;
        hosts.iter().all(|host| host.readiness == Readiness::Ready)
    };
    shard.block_on(async {
        while !is_ready() {
            till.who().await.unwrap();
        }
        let only = || Subset::named(["2"]);
        let rules = Rules::new(1)
            .with(Rule::new("for copies", Match::all(), Action::Exclude(only())))
            .with(Rule::new(
                "copies",
                Match::all().method("test.Till/pay"),
                Action::Mirror(only()),
            ));
        balanced.route(rules).unwrap();
        for id in 0..50 {
            assert_eq!(till.pay(&id).await.unwrap().to_native(), 1);
        }
        while copied.lock().unwrap().len() < 50 {
            till.who().await.unwrap();
        }
    });
    assert_eq!(*copied.lock().unwrap(), (0..50).map(|id| (id, 1)).collect());
    let counts = balanced.counts();
    assert_eq!((counts.mirrored, counts.mirrors_dropped, counts.mirrors_failed), (50, 0, 0));
}

fn office(name: &'static str, group: &str) -> RunningServer {
    Server::bind("127.0.0.1:0").service(Office(name).into_post()).group(group).start().unwrap()
}

fn of_group(name: &str, group: &str, server: &RunningServer) -> Instance {
    let mut instance = Instance::new("post", name, server.address().clone());
    instance.group = group.to_owned();
    instance
}

fn parcel() -> Parcel {
    Parcel { user: "ann".into(), grams: 5 }
}

fn grouped(own: Groups, instances: Vec<Instance>) -> Balanced<Clients> {
    let count = instances.len();
    let mut settings = in_turn();
    settings.groups = Some(own);
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    balanced.apply(&Listing::of(9, instances));
    until_ready(&balanced, count);
    balanced
}

#[test]
fn calls_go_to_the_group_that_is_asked_for_and_say_so() {
    let (blue, base) = (office("one", "blue"), office("two", "base"));
    let instances = vec![of_group("one", "blue", &blue), of_group("two", "base", &base)];
    let balanced = grouped(Groups::of("green").or("base"), instances);
    let post = PostClient::new(balanced);
    let parcel = parcel();
    let alias = post.letter(&parcel).wait().unwrap();
    assert_eq!(&alias[..], "two green base 9", "an alias, and it is told");
    let asking = post.letter(&parcel).group("blue").wait().unwrap();
    assert_eq!(&asking[..], "one blue blue 9");
    let with_more = post.letter(&parcel).metadata("x", "y").wait().unwrap();
    assert_eq!(&with_more[..], "two green base 9");
}

#[test]
fn g07_a_server_refuses_calls_that_were_meant_for_another_group() {
    // The list says that both are blue, but one of the addresses is another group's by now.
    let (blue, green) = (office("one", "blue"), office("two", "green"));
    let instances = vec![of_group("one", "blue", &blue), of_group("two", "blue", &green)];
    let balanced = grouped(Groups::of("blue"), instances);
    let post = PostClient::new(balanced.clone());
    for _ in 0..20 {
        let answer = post.letter(&parcel()).wait().unwrap().to_string();
        assert_eq!(answer, "one blue blue 9", "what is refused is made again elsewhere");
    }
    let counts = balanced.counts();
    assert!(counts.attempts > counts.calls, "nothing went to the wrong one");
    // Alone it says so.
    balanced.apply(&Listing::of(10, [of_group("two", "blue", &green)]));
    until_ready(&balanced, 1);
    let Err(CallError::Failed(failure)) = post.letter(&parcel()).wait() else { panic!("served") };
    assert_eq!(failure.cause, Cause::Status(Status::WRONG_GROUP));
    assert_eq!(failure.class, FailureClass::Refused);
    // Whoever goes by no group is served.
    let direct = PostClient::connect(green.address()).wait().unwrap();
    assert_eq!(direct.letter(&parcel()).wait().unwrap().to_string(), "two - - 0");
}

/// What becomes of a call that was routed to a group.
fn routed_to(group: &str, server: &RunningServer) -> Result<String, Cause> {
    let balanced = grouped(Groups::of(group), vec![of_group("it", group, server)]);
    match PostClient::new(balanced).letter(&parcel()).wait() {
        Ok(answer) => Ok(answer.to_string()),
        Err(CallError::Failed(failure)) => Err(failure.cause),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_server_that_is_moved_refuses_calls_to_the_group_that_it_has_left() {
    const HOUR: Duration = Duration::from_secs(3600);
    let wrong = Err(Cause::Status(Status::WRONG_GROUP));
    let server = office("one", "green");
    let group = server.group().clone();
    assert_eq!(group.get().as_deref(), Some("green"));
    assert_eq!(routed_to("blue", &server), wrong);
    group.move_to("blue", Duration::ZERO);
    assert_eq!(group.get().as_deref(), Some("blue"));
    assert_eq!(routed_to("blue", &server), Ok("one blue blue 9".to_owned()));
    assert_eq!(routed_to("green", &server), wrong);
    // With a grace both are served, and no other one.
    group.move_back(HOUR);
    assert_eq!(routed_to("green", &server), Ok("one green green 9".to_owned()));
    assert_eq!(routed_to("blue", &server), Ok("one blue blue 9".to_owned()));
    assert_eq!(routed_to("red", &server), wrong);
    // Of those that were left some are forgotten: the first.
    for next in ["1", "2", "3", "4"] {
        group.move_to(next, HOUR);
    }
    assert_eq!(routed_to("blue", &server), wrong);
    assert_eq!(routed_to("green", &server), Ok("one green green 9".to_owned()));
}

#[test]
fn a_server_of_no_group_serves_calls_to_all_unless_it_is_moved() {
    let wrong = Err(Cause::Status(Status::WRONG_GROUP));
    let server = Server::bind("127.0.0.1:0").service(Office("one").into_post()).start().unwrap();
    let group = server.group();
    assert_eq!((group.get(), routed_to("green", &server).is_ok()), (None, true));
    group.move_to("blue", Duration::ZERO);
    assert_eq!(routed_to("green", &server), wrong);
    assert!(routed_to("blue", &server).is_ok());
    // Whoever goes by no group is served.
    let direct = PostClient::connect(server.address()).wait().unwrap();
    assert_eq!(direct.letter(&parcel()).wait().unwrap().to_string(), "one - - 0");
    group.move_back(Duration::ZERO);
    assert!(routed_to("green", &server).is_ok());
}

#[test]
fn rules_see_metadata_and_arguments_of_typed_calls() {
    let (old, new) = (office("old", ""), office("new", ""));
    let versioned = |name: &str, server: &RunningServer| {
        let mut instance = of_group(name, "", server);
        instance.version = name.to_owned();
        instance
    };
    let mut settings = in_turn();
    settings.fields = Fields::new()
        .text("user", |parcel: &Parcel| &parcel.user)
        .number("grams", |parcel: &Parcel| parcel.grams.into());
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    balanced.apply(&Listing::of(1, [versioned("old", &old), versioned("new", &new)]));
    until_ready(&balanced, 2);
    let to = |version: &str| Action::route(Route::to(Subset::all().version(version)));
    let rules = Rules::new(1)
        .with(Rule::new("header", Match::all().metadata("canary", "yes"), to("new")))
        .with(Rule::new("tester", Match::all().field("user", "eve"), to("new")))
        .with(Rule::new("heavy", Match::all().number("grams", 1000..=u64::MAX), to("new")))
        .with(Rule::new("others", Match::all().service("test.Post"), to("old")));
    balanced.route(rules).unwrap();
    let post = PostClient::new(balanced.clone());
    let who = |parcel: Parcel, canary: &str| {
        let answer = post.letter(&parcel).metadata("canary", canary).wait().unwrap();
        answer.split(' ').next().unwrap().to_owned()
    };
    let of = |user: &str, grams| Parcel { user: user.to_owned(), grams };
    for _ in 0..4 {
        assert_eq!([who(of("ann", 5), "no"), who(of("ann", 5), "yes")], ["old", "new"]);
        assert_eq!([who(of("eve", 5), "no"), who(of("ann", 1000), "no")], ["new", "new"]);
    }
    let trace = balanced.explain_call(&Sample::of("test.Post/letter")).trace.unwrap();
    assert_eq!(trace.met, ["others"]);
}

#[test]
fn rules_are_replaced_under_load_without_losing_a_call() {
    let paid = Paid::default();
    let servers: Vec<RunningServer> = (0..4).map(|number| serve(number, &paid)).collect();
    let balanced = balanced();
    let versioned = |(server, number): (&RunningServer, u64)| {
        let mut instance = instance(number, server);
        instance.version = (number % 2).to_string();
        instance
    };
    balanced.apply(&Listing::of(1, servers.iter().zip(0..).map(versioned)));
    until_ready(&balanced, 4);
    let (stop, ids) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let till = TillClient::new(balanced.clone());
                while !stop.load(Ordering::Relaxed) {
                    let id = ids.fetch_add(1, Ordering::Relaxed);
                    till.pay(&id).wait().unwrap_or_else(|error| panic!("{id}: {error}"));
                }
            });
        }
        for version in 1..=200 {
            let of = |number: u64| Route::to(Subset::all().version((number % 2).to_string()));
            let routes = [(5, of(version)), (95, of(version + 1))];
            let split = Action::split(routes, By::Chance);
            let rules = Rules::new(version).with(Rule::new("shift", Match::all(), split));
            balanced.route(rules).unwrap();
            block(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let paid = paid.lock().unwrap();
    assert_eq!(paid.len() as u64, ids.load(Ordering::Relaxed));
    assert!(paid.values().all(|times| *times == 1));
}

#[test]
fn g07_an_address_that_is_another_instances_by_now_gets_no_calls() {
    for choice in crate::common::engines() {
        let (one, two) =
            (serve_as(1, "a1", "127.0.0.1:0", choice), serve_as(2, "a2", "127.0.0.1:0", choice));
        let at = one.address().to_string();
        let first = instance(1, &one).with_identity(expected("a1"));
        let list = |version| {
            Listing::of(version, [first.clone(), instance(2, &two).with_identity(expected("a2"))])
        };
        let watched = Balanced::new(Clients::over(choice).unwrap(), in_turn()).unwrap();
        watched.apply(&list(1));
        until_ready(&watched, 2);
        let till = TillClient::new(watched.clone());
        eventually("both are called", || who(&till) == Ok(1));
        one.stop();
        let other = serve_as(9, "b7", &at, choice);
        eventually("it is noticed", || {
            assert_ne!(who(&till), Ok(9));
            watched.explain(0).hosts[0].readiness == Readiness::Stranger
        });
        let Some(FleetEvent::WrongInstance { name, mismatch }) = watched.poll_event() else {
            panic!("nothing was told")
        };
        let told = "expected the instance \"a1\" and met \"b7\"";
        assert_eq!((&name[..], &mismatch.unwrap().to_string()[..]), ("1", told));
        for id in 0..50 {
            assert_eq!(till.pay(&id).wait().map(|number| number.to_native()), Ok(2));
        }
        assert_eq!(watched.poll_event(), None, "told once");

        // Whoever begins with such a list has calls that wait for the connection: they go elsewhere.
        let later = Balanced::new(Clients::over(choice).unwrap(), in_turn()).unwrap();
        later.apply(&list(1));
        let waiting = TillClient::new(later.clone());
        for id in 0..20 {
            assert_eq!(waiting.pay(&id).wait().map(|number| number.to_native()), Ok(2));
        }
        later.apply(&Listing::of(2, [first.clone()]));
        eventually("alone it is not called either", || {
            let Err(CallError::Failed(failure)) = who(&waiting) else { panic!("it was") };
            assert_eq!(failure.class, FailureClass::NotSent);
            failure.cause == Cause::Closed(CloseReason::WrongInstance)
        });
        // A list that says who is there by now is enough.
        later.apply(&Listing::of(3, [first.clone().with_identity(expected("b7"))]));
        assert_eq!(who(&waiting), Ok(9));

        // And so is the right one, when it is back.
        other.stop();
        let _one = serve_as(1, "a1", &at, choice);
        eventually("it is called again", || who(&till) == Ok(1));
        let told = FleetEvent::RightInstance { name: "1".to_owned() };
        eventually("that is told", || watched.poll_event() == Some(told.clone()));
    }
}

#[test]
fn g07_a_server_that_says_nothing_is_taken_unless_it_has_to() {
    let server = serve(1, &Paid::default());
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let balanced = Balanced::new(LocalClients::new(&shard), in_turn()).unwrap();
    let till = TillClient::new(balanced.clone());
    balanced.apply(&Listing::of(1, [instance(1, &server).with_identity(expected("a1"))]));
    let answer = shard.block_on(async { till.who().await });
    assert_eq!(answer.map(|number| number.to_native()), Ok(1));
    let required = instance(1, &server).with_identity(expected("a1").required());
    balanced.apply(&Listing::of(2, [required]));
    let answer = shard.block_on(async { till.who().await });
    let wrong = Failure::not_sent(Cause::Closed(CloseReason::WrongInstance));
    assert_eq!(answer.map(|number| number.to_native()), Err(CallError::Failed(wrong)));
    let Some(FleetEvent::WrongInstance { mismatch, .. }) = balanced.poll_event() else {
        panic!("nothing was told")
    };
    assert_eq!(mismatch.unwrap().met, None);
    // The same without a list.
    let connect = || TillClient::connect(server.address());
    assert!(connect().expecting(expected("a1")).wait().is_ok());
    let refused = connect().expecting(expected("a1").required()).wait().map(|_| ());
    assert_eq!(refused, Err(wrong));
    let lazy = Client::connect(server.address()).expecting(expected("a1").required()).lazy();
    let lazy = lazy.wait().unwrap();
    assert!(TillClient::new(lazy.clone()).who().wait().is_err());
    assert_eq!(lazy.mismatch().unwrap().expected.as_str(), "a1");
}

#[test]
fn reports_do_not_keep_a_watch_from_its_source() {
    let mut settings = Settings::new();
    settings.report_one_in = 1;
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    // Calls fail at once while there is no list, each of them with a report; a hook is slower than that.
    let is_over = Arc::new(AtomicBool::new(false));
    let calling = {
        let (till, is_over) = (TillClient::new(balanced.clone()), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                assert!(till.who().wait().is_err());
                block(Duration::from_micros(200));
            }
        })
    };
    let source = Told::default();
    let watch = Watch::new(Wanted::service("till")).on_report(|_| block(Duration::from_millis(1)));
    let starting = {
        let (source, balanced) = (source.clone(), balanced.clone());
        thread::spawn(move || watch.start(source, balanced).unwrap())
    };
    block(Duration::from_millis(100));
    let address: Address = "127.0.0.1:9".parse().unwrap();
    source.has(vec![Instance::new("till", "7", address)]);
    let has_list = || balanced.names() == ["7"];
    let waited = (0..100).take_while(|_| !has_list()).map(|_| block(Duration::from_millis(50)));
    let rounds = waited.count();
    is_over.store(true, Ordering::Relaxed);
    calling.join().unwrap();
    drop(starting.join().unwrap());
    assert!(rounds < 100, "its list was not heard");
}

#[test]
fn g07_a_watch_tells_of_it() {
    let server = serve_as(9, "b7", "127.0.0.1:0", TransportChoice::Auto);
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let watch = Watch::new(Wanted::service("till"))
        .on_event(move |event| telling.lock().unwrap().push(event.clone()));
    let source = StaticSource::new([instance(1, &server).with_identity(expected("a1"))]);
    let _watching = watch.start(source, balanced()).unwrap();
    eventually("it is told", || !told.lock().unwrap().is_empty());
    assert!(
        matches!(&told.lock().unwrap()[..], [FleetEvent::WrongInstance { name, .. }] if name == "1")
    );
}
