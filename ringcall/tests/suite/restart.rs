//! Servers that are replaced under load: nothing is lost, and nothing runs twice.
//!
//! `RINGCALL_RESTARTS=100` makes more restarts of it than the default.

use std::collections::HashMap;
use std::future::{Future, IntoFuture, poll_fn};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::alone::only;
use crate::common::{
    Cook, Kitchen as _, KitchenClient, PATIENT, Pair, Socket, block, engines, eventually,
    over_every_pair,
};
use ringcall::{
    CallError, Client, ConnectionState, Context, DrainReport, DrainStep, RunningServer, Server,
    Shard, ShardConfig, SlowConsumer, Status, Stream, Topic, TransportChoice,
};

#[ringcall::service(name = "test.Ledger")]
trait Ledger {
    /// Not to be done twice. Takes up to 50 ms.
    async fn book(&self, cx: &Context, id: u64) -> u64;
    #[method(idempotent)]
    async fn read(&self, cx: &Context, id: u64) -> u64;
    #[method(one_way)]
    async fn note(&self, cx: &Context, id: u64);
    #[method(offload)]
    async fn grind(&self, cx: &Context) -> bool;
}

/// How many times each id ran, on whichever server.
#[derive(Clone, Default)]
struct Books(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ran: Mutex<HashMap<u64, u32>>,
    grinding: AtomicU64,
    cancelled: AtomicU64,
}

impl Books {
    fn enter(&self, id: u64) {
        *self.0.ran.lock().unwrap().entry(id).or_default() += 1;
    }

    fn ran(&self, id: u64) -> u32 {
        self.0.ran.lock().unwrap().get(&id).copied().unwrap_or(0)
    }
}

/// 0 to 50 ms, mostly short, and nothing at all often.
fn time_of(id: u64) -> Duration {
    match id % 4 {
        0 => Duration::ZERO,
        1 => Duration::from_millis(50),
        _ => Duration::from_millis(id * 7 % 50),
    }
}

impl Ledger for Books {
    async fn book(&self, cx: &Context, id: u64) -> u64 {
        self.enter(id);
        if !time_of(id).is_zero() {
            cx.sleep(time_of(id)).await;
        }
        id
    }

    async fn read(&self, cx: &Context, id: u64) -> u64 {
        self.book(cx, id).await
    }

    async fn note(&self, cx: &Context, id: u64) {
        // Counted when it is done: it must have been left the time.
        cx.sleep(time_of(id)).await;
        self.enter(id);
    }

    async fn grind(&self, cx: &Context) -> bool {
        self.0.grinding.fetch_add(1, Ordering::SeqCst);
        while !cx.is_cancelled() {
            block(Duration::from_millis(1));
        }
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        true
    }
}

fn start(at: Server, engine: TransportChoice, books: &Books) -> RunningServer {
    at.transport(engine).shards(2).service(books.clone().into_ledger()).start().unwrap()
}

/// Where the servers are, as a registry would know it.
type Addresses = Arc<RwLock<Vec<String>>>;

/// A client that tries again what certainly did not run, elsewhere.
struct Retrying {
    addresses: Addresses,
    engine: TransportChoice,
    client: Option<LedgerClient<Client>>,
    next: usize,
    retries: u64,
}

impl Retrying {
    fn call<T>(
        &mut self,
        call: impl Fn(&LedgerClient<Client>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        for _ in 0..1000 {
            let Some(client) = self.client() else {
                block(Duration::from_millis(1));
                continue;
            };
            match call(&client) {
                Err(error) if error.is_safe_to_retry() => {
                    self.client = None;
                    self.retries += 1;
                }
                end => return end,
            }
        }
        panic!("nobody answers");
    }

    fn client(&mut self) -> Option<LedgerClient<Client>> {
        if self.client.is_none() {
            let addresses = self.addresses.read().unwrap();
            self.next += 1;
            let address = addresses[self.next % addresses.len()].clone();
            drop(addresses);
            let client = LedgerClient::connect(&address[..]).transport(self.engine).wait();
            self.client = client.ok().map(|client| client.with_options(PATIENT));
        }
        self.client.clone()
    }
}

/// What one caller did.
#[derive(Default)]
struct Done {
    answered: Vec<u64>,
    noted: Vec<u64>,
    failed: Vec<(u64, CallError)>,
    retries: u64,
}

fn caller(number: u64, addresses: Addresses, engine: TransportChoice, stop: &AtomicBool) -> Done {
    let mut client =
        Retrying { addresses, engine, client: None, next: number as usize, retries: 0 };
    let mut done = Done::default();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = number << 32 | round;
        let deadline = Duration::from_secs(20);
        let end = match round % 4 {
            0 | 1 => client.call(|ledger| ledger.book(&id).deadline(deadline).wait()),
            2 => client.call(|ledger| ledger.read(&id).deadline(deadline).wait()),
            _ => match client.call(|ledger| ledger.note(&id).deadline(deadline).wait()) {
                Ok(()) => {
                    done.noted.push(id);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match end {
            Ok(answer) => {
                assert_eq!(answer.to_native(), id);
                done.answered.push(id);
            }
            Err(error) => done.failed.push((id, error)),
        }
    }
    done.retries = client.retries;
    done
}

fn restarts() -> usize {
    std::env::var("RINGCALL_RESTARTS").map_or(10, |text| text.parse().expect("a number"))
}

/// Runs callers while `replace` is called again and again, and checks what became of their calls.
fn under_load(
    engine: TransportChoice,
    addresses: &Addresses,
    books: &Books,
    mut replace: impl FnMut(usize) -> DrainReport,
) {
    let stop = AtomicBool::new(false);
    let (mut reports, mut all) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let callers: Vec<_> = (1..=16)
            .map(|number| {
                let (addresses, stop) = (Arc::clone(addresses), &stop);
                scope.spawn(move || caller(number, addresses, engine, stop))
            })
            .collect();
        for round in 0..restarts() {
            block(Duration::from_millis(30));
            reports.push(replace(round));
        }
        stop.store(true, Ordering::Relaxed);
        all.extend(callers.into_iter().map(|caller| caller.join().unwrap()));
    });
    for report in &reports {
        assert!(report.is_clean(), "{report}");
    }
    let failed: Vec<_> = all.iter().flat_map(|done| &done.failed).collect();
    assert!(failed.is_empty(), "{engine}: {failed:?}");
    let (mut answered, mut noted) = (0, 0);
    for id in all.iter().flat_map(|done| &done.answered) {
        assert_eq!(books.ran(*id), 1, "{engine}: call {id:x}");
        answered += 1;
    }
    for id in all.iter().flat_map(|done| &done.noted) {
        eventually("a one-way call ran", || books.ran(*id) > 0);
        assert_eq!(books.ran(*id), 1, "{engine}: one-way call {id:x}");
        noted += 1;
    }
    let finished: u64 = reports.iter().map(|report| report.finished).sum();
    let retries: u64 = all.iter().map(|done| done.retries).sum();
    // Where the successor has the same address, clients find it by themselves.
    assert!(finished > 0, "the restarts met calls: {finished} {retries}");
    crate::common::say(format_args!(
        "{engine}: {} restarts, {answered} calls answered once, {noted} one-way calls ran once, 0 failed; \
         {finished} were finished by a server that drained, {retries} went elsewhere",
        reports.len()
    ));
}

#[test]
fn f07_two_servers_are_restarted_in_turn_under_load() {
    for engine in engines() {
        let books = Books::default();
        let fresh = || start(Server::bind("127.0.0.1:0"), engine, &books);
        let mut servers = [fresh(), fresh()].map(Some);
        let listed = |servers: &[Option<RunningServer>; 2]| -> Vec<String> {
            servers.iter().flatten().map(|server| server.address().to_string()).collect()
        };
        let addresses: Addresses = Arc::new(RwLock::new(listed(&servers)));
        under_load(engine, &addresses, &books, |round| {
            let old = servers[round % 2].take().unwrap();
            // Clients may still try the old one: only its goodbye tells them.
            let report = old.drain();
            servers[round % 2] = Some(fresh());
            *addresses.write().unwrap() = listed(&servers);
            report
        });
    }
}

#[test]
fn e21_a_server_hands_its_listener_over_under_load() {
    for engine in engines() {
        for socket in [Socket::Tcp, Socket::Unix] {
            let books = Books::default();
            let at = crate::common::address(socket);
            let mut server = start(Server::bind(&at[..]), engine, &books);
            let addresses: Addresses = Arc::new(RwLock::new(vec![server.address().to_string()]));
            let address = server.address().clone();
            under_load(engine, &addresses, &books, |_| {
                let listener = server.hand_over().unwrap();
                let next = start(Server::from_listener(listener), engine, &books);
                assert_eq!(next.address(), &address);
                std::mem::replace(&mut server, next).drain()
            });
            if let Some(path) = at.strip_prefix("unix:") {
                drop(server);
                std::fs::remove_file(path).expect("it is left to the last one's starter");
            }
        }
    }
}

#[test]
fn e21_a_successor_listens_at_the_same_port_under_load() {
    for engine in engines() {
        let books = Books::default();
        let mut server = start(Server::bind("127.0.0.1:0").reuse_port(true), engine, &books);
        let address = server.address().to_string();
        let addresses: Addresses = Arc::new(RwLock::new(vec![address.clone()]));
        under_load(engine, &addresses, &books, |_| {
            let next = start(Server::bind(&address[..]).reuse_port(true), engine, &books);
            std::mem::replace(&mut server, next).drain()
        });
    }
}

/// The service that comes next is neither told to leave, nor is its own drain over before it began.
#[test]
fn a_drain_that_nobody_waits_for_ends_with_the_next_service() {
    const LONG: Duration = Duration::from_secs(20);
    over_every_pair(|pair| {
        for is_over_before in [false, true] {
            let shard = pair.shard();
            shard.serve(Cook::default().into_kitchen()).unwrap();
            let serve = || {
                let address = shard.listen(crate::common::address(pair.socket).as_str()).unwrap();
                let connect = pair.secured(KitchenClient::connect(&address));
                let kitchen = shard.block_on(connect).unwrap();
                shard.block_on(kitchen.nothing().into_future()).unwrap();
                kitchen
            };
            let first = serve();
            {
                let mut drain = pin!(shard.drain(LONG));
                let mut cx = TaskContext::from_waker(Waker::noop());
                assert!(drain.as_mut().poll(&mut cx).is_pending());
            }
            if is_over_before {
                shard.run(|| shard.connections() > 0);
            }
            let second = serve();
            shard.block_on(second.nothing().into_future()).unwrap();
            assert_eq!(second.channel().state(), ConnectionState::Ready, "it is not told to leave");
            let report = shard.block_on(shard.drain(LONG));
            assert!(report.connections > 0 && report.is_clean(), "{report}");
            assert_eq!(shard.connections(), 0, "it is of this service");
            drop((first, second));
        }
    });
}

/// Whoever asks first gets the report; nobody waits for ever.
#[test]
fn two_that_wait_for_a_drain_both_hear_of_its_end() {
    for engine in engines() {
        let pair = Pair { server: engine, client: engine, socket: Socket::Tcp, is_secured: false };
        let shard = pair.shard();
        shard.serve(Cook::default().into_kitchen()).unwrap();
        shard.listen(crate::common::address(pair.socket).as_str()).unwrap();
        let ended = std::rc::Rc::new(std::cell::Cell::new(0));
        for _ in 0..2 {
            let (draining, ended) = (shard.clone(), std::rc::Rc::clone(&ended));
            shard.spawn(async move {
                draining.drain(Duration::from_secs(20)).await;
                ended.set(ended.get() + 1);
            });
        }
        shard.run(|| ended.get() < 2);
    }
}

#[test]
fn f09_a_drain_keeps_its_order() {
    for engine in engines() {
        let pair = Pair { server: engine, client: engine, socket: Socket::Tcp, is_secured: false };
        let books = Books::default();
        let hooks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&hooks);
        let server = pair.bind().service(books.clone().into_ledger()).on_drain(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let server = server.start().unwrap();
        let client = LedgerClient::connect(server.address()).transport(engine).wait().unwrap();
        let client = client.with_options(PATIENT);
        let long = thread::spawn(move || client.book(&1).wait().unwrap().to_native());
        eventually("it runs", || books.ran(1) > 0);
        let report = server.drain();
        assert_eq!((long.join().unwrap(), hooks.load(Ordering::SeqCst)), (1, 1));
        let steps: Vec<DrainStep> = report.steps.iter().map(|(.., step)| *step).collect();
        let order = [
            DrainStep::Unregistered,
            DrainStep::Announced,
            DrainStep::NotListening,
            DrainStep::Refusing,
            DrainStep::Closed,
        ];
        assert_eq!(steps, order, "{engine}");
        assert!(report.is_clean() && report.finished == 1 && report.connections == 1, "{report}");
    }
}

#[test]
fn f03_what_runs_too_long_is_cancelled() {
    for engine in engines() {
        let books = Books::default();
        let server = Server::bind("127.0.0.1:0").drain_timeout(Duration::from_millis(50));
        let server = start(server, engine, &books);
        let connect = || LedgerClient::connect(server.address()).transport(engine).wait().unwrap();
        let clients = [connect(), connect()];
        let callers = clients.map(|client| {
            thread::spawn(move || client.grind().deadline(Duration::from_secs(60)).wait())
        });
        eventually("they run", || books.0.grinding.load(Ordering::SeqCst) == 2);
        let report = server.drain();
        for caller in callers {
            let error = caller.join().unwrap().unwrap_err();
            let cause = &error.failure().unwrap().cause;
            assert_eq!(*cause, ringcall::Cause::Status(Status::ABORTED), "{engine}");
            assert!(!error.is_safe_to_retry());
        }
        assert_eq!((report.cancelled, report.stuck, report.is_clean()), (2, 0, false), "{report}");
        eventually("handlers saw it", || books.0.cancelled.load(Ordering::SeqCst) == 2);
    }
}

// ---- handlers that look at it ----

#[ringcall::service(name = "test.Tower")]
trait Tower {
    /// For ever, unless it is `polite`: until a drain begins.
    async fn watch(&self, cx: &Context, polite: bool) -> impl Stream<Item = u64>;
    async fn wait(&self, cx: &Context) -> bool;
    #[method(offload)]
    async fn wait_elsewhere(&self, cx: &Context) -> bool;
}

#[derive(Clone)]
struct Watchman {
    seen: Topic<u64>,
    waiting: Arc<AtomicU64>,
}

impl Watchman {
    async fn wait_here(&self, cx: &Context) -> bool {
        let was_draining = cx.is_draining();
        // One of them is given up.
        let given_up = poll_fn(|task| Poll::Ready(pin!(cx.draining()).poll(task))).await;
        assert!(given_up.is_pending());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        cx.draining().await;
        !was_draining && cx.is_draining()
    }
}

impl Tower for Watchman {
    async fn watch(&self, cx: &Context, polite: bool) -> impl Stream<Item = u64> {
        let seen = self.seen.subscribe();
        if polite { seen.until(cx.draining()) } else { seen }
    }

    async fn wait(&self, cx: &Context) -> bool {
        self.wait_here(cx).await
    }

    async fn wait_elsewhere(&self, cx: &Context) -> bool {
        self.wait_here(cx).await
    }
}

/// With what was published before it, and in order.
#[test]
fn a_subscription_may_end_with_a_drain() {
    over_every_pair(|pair| {
        for (polite, timeout) in
            [(true, Duration::from_secs(60)), (false, Duration::from_millis(50))]
        {
            let (seen, waiting) = (Topic::new(64, SlowConsumer::Wait), Arc::default());
            let watchman = Watchman { seen: seen.clone(), waiting };
            let server = pair.bind().service(watchman.into_tower()).drain_timeout(timeout);
            let server = pair.start(server);
            let tower = pair.secured(TowerClient::connect(server.address())).wait().unwrap();
            let mut items = tower.with_options(PATIENT).watch(&polite).wait().unwrap();
            (0..10).for_each(|number| seen.publish(number).unwrap());
            assert_eq!(items.next_wait().unwrap().unwrap(), 0);
            let draining = thread::spawn(move || server.drain());
            let rest: Vec<_> = items.wait_each().map(|it| it.map(|it| it.to_native())).collect();
            let report = draining.join().unwrap();
            assert_eq!(report.cancelled, u64::from(!polite), "{report}");
            assert_eq!(report.is_clean(), polite, "{report}");
            let (ended, failed): (Vec<_>, Vec<_>) = rest.into_iter().partition(Result::is_ok);
            assert!(ended.len() == 9 || !polite, "{ended:?}");
            assert_eq!(failed.is_empty(), polite, "{failed:?}");
            assert_eq!(seen.subscribers(), 0);
            assert!(report.took < Duration::from_secs(30), "{report}");
        }
    });
}

#[test]
fn handlers_see_a_drain_on_whatever_thread_they_are() {
    over_every_pair(|pair| {
        let seen = Topic::new(1, SlowConsumer::Wait);
        let watchman = Watchman { seen, waiting: Arc::default() };
        let waiting = Arc::clone(&watchman.waiting);
        let server = pair.start(pair.bind().shards(2).service(watchman.into_tower()));
        let tower = pair.secured(TowerClient::connect(server.address())).wait().unwrap();
        let tower = tower.with_options(PATIENT);
        let (here, elsewhere) = (tower.clone(), tower);
        let here = thread::spawn(move || *here.wait().wait().unwrap());
        let elsewhere = thread::spawn(move || *elsewhere.wait_elsewhere().wait().unwrap());
        eventually("both wait", || waiting.load(Ordering::SeqCst) == 2);
        let report = server.drain();
        assert!(here.join().unwrap() && elsewhere.join().unwrap());
        assert!(report.is_clean() && report.finished == 2, "{report}");
    });
}

/// Who listens again has no handlers that are told to leave.
#[test]
fn a_shard_that_serves_again_does_not_drain() {
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let seen = Topic::new(1, SlowConsumer::Wait);
    let watchman = Watchman { seen, waiting: Arc::default() };
    shard.serve(watchman.into_tower()).unwrap();
    for _ in 0..2 {
        let address = shard.listen("127.0.0.1:0").unwrap();
        let tower = TowerClient::new(shard.block_on(shard.connect(&address)).unwrap());
        let mut items = shard.block_on(tower.watch(&true).into_future()).unwrap();
        let is_over = {
            let mut next = pin!(items.next());
            let mut cx = TaskContext::from_waker(Waker::noop());
            next.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!is_over);
        let report = shard.block_on(shard.drain(Duration::from_secs(60)));
        assert!(report.is_clean(), "{report}");
        assert!(shard.block_on(items.next()).is_none());
    }
}

// ---- signals, in processes of their own ----

const CHILD: &str = "RINGCALL_TEST_SERVER";

/// Not a test by itself: the server of those below.
#[test]
fn serve_until_told_to_end() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let listener = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let server = Server::from_listener(listener).service(Books::default().into_ledger());
    let report = server.drain_timeout(Duration::from_secs(20)).run().unwrap();
    crate::common::say(format_args!("\nreport: {report}"));
}

/// The same, in code that must not block.
#[test]
fn serve_until_told_to_end_and_await_it() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let listener = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let server = Server::from_listener(listener).service(Books::default().into_ledger());
    let running = server.drain_timeout(Duration::from_secs(20)).start().unwrap();
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let report = shard.block_on(running.until_signalled()).unwrap();
    crate::common::say(format_args!("\nreport: {report}"));
}

/// Both ways to serve until a signal comes.
const SERVERS: [&str; 2] = ["serve_until_told_to_end", "serve_until_told_to_end_and_await_it"];

/// A server in another process, on a listener of this one's.
fn child(serve: &str) -> (Child, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(only(module_path!(), serve))
        .env(CHILD, "1")
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    (child.unwrap(), address)
}

fn tell(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn report(child: &mut Child) -> String {
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let report = lines.map(Result::unwrap).find(|line| line.starts_with("report: ")).unwrap();
    assert!(child.wait().unwrap().success());
    report
}

#[test]
fn f08_a_signal_drains_also_in_the_middle_of_a_handshake() {
    SERVERS.into_iter().for_each(a_signal_drains);
}

fn a_signal_drains(serve: &str) {
    let (mut child, address) = child(serve);
    let client = LedgerClient::connect(address).wait().unwrap().with_options(PATIENT);
    // It has said half of its preface, and says nothing more.
    let mut stranger = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stranger, &[0x89, 0x52]).unwrap();
    let long = thread::spawn(move || client.book(&1).wait().unwrap().to_native());
    // Whether it has arrived or comes too late for that, it is finished.
    block(Duration::from_millis(20));
    tell(&child);
    let report = report(&mut child);
    assert_eq!(long.join().unwrap(), 1);
    // On a busy machine it may be over before the signal is.
    assert!(report.contains(" calls finished, 0 refused, 0 cancelled"), "{report}");
}

#[test]
fn f08_a_second_signal_ends_it_at_once() {
    SERVERS.into_iter().for_each(a_second_signal_ends_it);
}

#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn a_second_signal_ends_it(serve: &str) {
    let (mut child, address) = child(serve);
    let client = LedgerClient::connect(address).wait().unwrap().with_options(PATIENT);
    let (ended, long) = std::sync::mpsc::channel();
    client.grind().deadline(Duration::from_secs(60)).callback(move |end| {
        let _ = ended.send(end.map(drop));
    });
    // Behind it, on the same connection: when this is answered, that runs.
    client.book(&1).wait().unwrap();
    tell(&child);
    block(Duration::from_millis(50));
    tell(&child);
    let told = Instant::now();
    let report = report(&mut child);
    assert!(report.contains("1 cancelled"), "{report}");
    // It would have cancelled by itself twenty seconds later.
    assert!(told.elapsed() < Duration::from_secs(10));
    assert!(!long.recv().unwrap().unwrap_err().is_safe_to_retry());
}
