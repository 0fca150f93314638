//! Calls that wait at two servers, of which the one that begins first keeps them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::eventually;
use ringcall::cluster::discovery::{Instance, Listing};
use ringcall::cluster::fleet::Readiness;
use ringcall::cluster::hedge::HedgeConfig;
use ringcall::cluster::route::{Action, Match, Route, Rule, Rules, Subset};
use ringcall::cluster::{Balanced, Clients, LocalClients, Settings};
use ringcall::{Client, Context, RunningServer, Server, Shard, ShardConfig};

#[ringcall::service(name = "test.Queue")]
trait Queue {
    /// Keeps the thread until the gate is open; says who has worked.
    #[method(idempotent, offload)]
    async fn work(&self) -> u64;
    /// The same, and only keeps the thread.
    #[method(offload)]
    async fn hold(&self);
    /// Which server it is.
    #[method(idempotent)]
    async fn who(&self) -> u64;
    /// Begins at once, and takes long.
    #[method(idempotent)]
    async fn long(&self, cx: &Context) -> u64;
}

/// By then a server has said that it begins, if it does.
const LATER: Duration = Duration::from_millis(200);

/// Threads wait before it until it is open.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set_open(&self, is_open: bool) {
        *self.0.0.lock().unwrap() = is_open;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

#[derive(Clone, Default)]
struct Worker {
    number: u64,
    held: Gate,
    works: Gate,
    holding: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
}

impl Queue for Worker {
    async fn work(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.works.pass();
        self.number
    }

    async fn hold(&self) {
        self.holding.fetch_add(1, Ordering::SeqCst);
        self.held.pass();
    }

    async fn who(&self) -> u64 {
        self.number
    }

    async fn long(&self, cx: &Context) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst);
        cx.sleep(2 * LATER).await;
        self.number
    }
}

impl Worker {
    /// A server with one thread for such work.
    fn serve(number: u64) -> (Worker, RunningServer) {
        let worker = Worker { number, ..Worker::default() };
        let server = Server::bind("127.0.0.1:0").offload_threads(1);
        (worker.clone(), server.service(worker.into_queue()).start().unwrap())
    }

    fn has_begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

fn tied() -> Settings {
    let mut hedge = HedgeConfig::default();
    hedge.tied = Some(Duration::from_millis(1));
    hedge.extra_percent = 100;
    let mut settings = Settings::new();
    settings.method.hedge = Some(hedge);
    settings
}

fn listing(servers: [&RunningServer; 2]) -> Listing {
    let instance = |(number, server): (usize, &RunningServer)| {
        Instance::new("queue", number.to_string(), server.address().clone())
    };
    Listing::of(1, servers.into_iter().enumerate().map(instance))
}

#[test]
fn d12_the_server_that_begins_first_keeps_a_tied_call_and_the_other_never_begins() {
    let (workers, servers): (Vec<_>, Vec<_>) = (0..2).map(Worker::serve).unzip();
    let balanced = Balanced::new(Clients::new().unwrap(), tied()).unwrap();
    balanced.apply(&listing([&servers[0], &servers[1]]));
    let is_ready = |host: &ringcall::cluster::fleet::HostReport| host.readiness == Readiness::Ready;
    eventually("there are connections", || balanced.explain(0).hosts.iter().all(is_ready));
    // Calls that succeed pay for hedges, which these are until one has begun.
    let queue = QueueClient::new(balanced.clone());
    workers.iter().for_each(|worker| worker.works.set_open(true));
    (0..50).for_each(|_| assert!(queue.work().wait().is_ok()));
    workers.iter().for_each(|worker| worker.works.set_open(false));
    // Both threads are taken.
    let direct = servers.iter().map(|server| Client::connect(server.address()).wait().unwrap());
    let direct: Vec<_> = direct.map(QueueClient::new).collect();
    let holds = direct.iter().map(|client| {
        let client = client.clone();
        thread::spawn(move || client.hold().wait())
    });
    let holds: Vec<_> = holds.collect();
    eventually("both are held", || {
        workers.iter().all(|worker| worker.holding.load(Ordering::SeqCst) == 1)
    });
    let (begun, untied) = (workers.iter().map(Worker::has_begun).sum::<u64>(), balanced.counts());
    let caller = {
        let queue = queue.clone();
        thread::spawn(move || queue.work().wait().map(|number| number.to_native()))
    };
    eventually("it waits at both", || balanced.counts().hedges == untied.hedges + 1);
    workers[1].held.set_open(true);
    eventually("the other one is given up", || balanced.counts().untied == untied.untied + 1);
    // By the same way, behind the word of that.
    let to_it = Action::route(Route::to(Subset::named(["0"])));
    balanced.route(Rules::new(1).with(Rule::new("to it", Match::all(), to_it))).unwrap();
    assert_eq!(queue.who().wait().unwrap().to_native(), 0);
    // Its turn comes, and it is not there any more: what comes behind it is done.
    workers[0].held.set_open(true);
    workers[0].works.set_open(true);
    assert!(holds.into_iter().all(|hold| hold.join().unwrap().is_ok()));
    assert_eq!(direct[0].work().wait().unwrap().to_native(), 0);
    assert_eq!(workers.iter().map(Worker::has_begun).sum::<u64>(), begun + 2);
    workers[1].works.set_open(true);
    assert_eq!(caller.join().unwrap().unwrap(), 1);
}

#[test]
fn d12_a_tied_call_that_begins_at_once_goes_to_one_server() {
    let (workers, servers): (Vec<_>, Vec<_>) = (0..2).map(Worker::serve).unzip();
    let shard = Shard::new(ShardConfig::default()).unwrap();
    let mut settings = tied();
    settings.method.hedge.as_mut().unwrap().tied = Some(LATER);
    let balanced = Balanced::new(LocalClients::new(&shard), settings).unwrap();
    balanced.apply(&listing([&servers[0], &servers[1]]));
    let queue = QueueClient::new(balanced.clone());
    shard.block_on(async {
        for _ in 0..3 {
            assert!(queue.long().await.is_ok());
        }
    });
    assert_eq!(balanced.counts().hedges, 0);
    assert_eq!(workers.iter().map(Worker::has_begun).sum::<u64>(), 3);
}
