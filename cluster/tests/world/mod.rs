//! A world of clients and servers with queues, as events in a time that is not real: what fleets decide, many of
//! them together, without a socket.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use ringcall_cluster::Settings;
use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::{Attempt, CallState, Fleet, Readiness};
use ringcall_cluster::retry::Verdict;
use ringcall_cluster::route::Asked;
use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Cause, CloseReason, Entropy, Failure, Instant, SplitMix64, Status, TransportError,
};

pub(crate) const METHOD: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);
/// One way through the network.
const WIRE: Duration = Duration::from_micros(100);

/// How a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Up,
    /// Refuses new calls, finishes what it has; its clients know.
    Draining,
    /// Nobody is there. Its clients' connections know, if `is_known`.
    Down {
        is_known: bool,
    },
    /// Answers every call with an error, at once.
    FailsFast,
    /// Refuses every call as overloaded, at once.
    Refuses,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) health: Health,
    /// Calls it works on at a time.
    pub(crate) workers: u32,
    /// How long one takes, on average.
    pub(crate) service: Duration,
    busy: u32,
    queue: VecDeque<Job>,
    /// Calls that arrived, and worker-nanoseconds that were busy, of the current second.
    arrived: u64,
    busy_ns: u64,
}

impl Server {
    /// How busy it is, in thousandths: half when all of its workers are, more when calls wait.
    fn load(&self) -> u16 {
        let calls = u64::from(self.busy) + self.queue.len() as u64;
        (calls * 500 / u64::from(self.workers)).clamp(1, 1000) as u16
    }
}

#[derive(Clone, Copy, Debug)]
struct Job {
    call: u64,
    attempt: u8,
    server: usize,
}

struct Call {
    client: usize,
    state: CallState,
    running: Vec<(u8, Attempt)>,
}

enum Event {
    /// A client makes its next call.
    Next(usize),
    Arrives(Job),
    Served(Job, Duration),
    Ends(Job, Result<Status, Failure>),
    Again(u64),
    Hedge(u64),
    Expires(u64),
}

/// What was seen in a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Second {
    /// Calls that ended well, and badly.
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Of each server: attempts that arrived, and the share of its workers that was busy.
    pub(crate) arrived: Vec<u64>,
    pub(crate) utilisation: Vec<f64>,
}

pub(crate) struct World {
    now: Instant,
    order: u64,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    what: HashMap<u64, Event>,
    rng: SplitMix64,
    clients: Vec<Fleet<usize>>,
    pub(crate) servers: Vec<Server>,
    /// Time between two calls of a client, on average.
    interval: Duration,
    weights: Vec<u32>,
    calls: HashMap<u64, Call>,
    next_call: u64,
    pub(crate) seconds: Vec<Second>,
    second: Second,
    /// Calls that run twice do harm: one in so many may not be made again.
    pub(crate) every_unsafe: u64,
    /// Answers say how busy their server is.
    pub(crate) says_load: bool,
}

/// Whether connections to servers can be used.
fn readiness(servers: &[Server]) -> impl Fn(&usize) -> Readiness {
    move |server: &usize| match servers[*server].health {
        Health::Draining => Readiness::Connecting,
        Health::Down { is_known: true } => Readiness::Broken,
        _ => Readiness::Ready,
    }
}

/// What a call asks for: each is about something else.
fn asked(number: u64) -> Asked<'static> {
    let name = "world.Service/method";
    Asked { name, method: METHOD, key: Some(number), extensions: &[], argument: None }
}

impl World {
    /// So many clients, and a server for each number of workers, with its weight. Together they are asked for
    /// `load` of what they can do.
    pub(crate) fn new(
        clients: usize,
        workers: &[u32],
        weights: &[u32],
        load: f64,
        settings: &Settings,
    ) -> World {
        let service = Duration::from_millis(2);
        let server = |workers: &u32| Server {
            health: Health::Up,
            workers: *workers,
            service,
            busy: 0,
            queue: VecDeque::new(),
            arrived: 0,
            busy_ns: 0,
        };
        let capacity = f64::from(workers.iter().sum::<u32>()) / service.as_secs_f64();
        let start = Instant::from_nanos(1_000_000_000);
        let fleet =
            |seed| Fleet::new(settings.clone(), seed, start).expect("the settings make sense");
        let mut world = World {
            now: start,
            order: 0,
            events: BinaryHeap::new(),
            what: HashMap::new(),
            rng: SplitMix64::new(0xc1),
            clients: (0..clients as u64).map(fleet).collect(),
            servers: workers.iter().map(server).collect(),
            interval: Duration::from_secs_f64(clients as f64 / (capacity * load)),
            calls: HashMap::new(),
            next_call: 0,
            seconds: Vec::new(),
            second: Second::default(),
            weights: weights.to_vec(),
            every_unsafe: 2,
            says_load: false,
        };
        world.list(1, |_, _| ());
        for client in 0..clients {
            let first = world.exponential(world.interval);
            world.after(first, Event::Next(client));
        }
        world
    }

    /// Tells all clients of a list with this version, in which `change` says more of each server.
    pub(crate) fn list(&mut self, version: u64, change: impl Fn(usize, &mut Instance)) {
        let instances = self.weights.iter().enumerate().map(|(n, weight)| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1 + n as u16));
            let mut instance = Instance::new("s", format!("{n:03}"), address).with_weight(*weight);
            change(n, &mut instance);
            instance
        });
        let listing = Listing::of(version, instances);
        for client in &mut self.clients {
            let place = |it: &Instance| it.name.parse::<usize>().ok();
            let _none = client.apply(self.now, &listing, place);
        }
    }

    /// Changes the clients, with their number.
    pub(crate) fn each_client(&mut self, change: impl Fn(usize, Instant, &mut Fleet<usize>)) {
        let now = self.now;
        self.clients.iter_mut().enumerate().for_each(|(n, client)| change(n, now, client));
    }

    /// Lets so many seconds pass.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let end = self.now + SECOND;
            while let Some(Reverse((at, order))) = self.events.peek().copied() {
                if at > end {
                    break;
                }
                self.events.pop();
                self.now = at;
                if let Some(event) = self.what.remove(&order) {
                    self.happen(event);
                }
            }
            self.now = end;
            self.close_second();
        }
    }

    /// Counts of all clients: calls, attempts.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let counts = self.clients.iter().map(Fleet::counts);
        counts.fold((0, 0), |(calls, attempts), it| (calls + it.calls, attempts + it.attempts))
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn client(&self, index: usize) -> &Fleet<usize> {
        &self.clients[index]
    }

    fn close_second(&mut self) {
        let mut second = std::mem::take(&mut self.second);
        for server in &mut self.servers {
            second.arrived.push(std::mem::take(&mut server.arrived));
            let busy = std::mem::take(&mut server.busy_ns) as f64;
            second.utilisation.push(busy / 1e9 / f64::from(server.workers));
        }
        self.seconds.push(second);
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + wait, self.order)));
        self.what.insert(self.order, event);
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        mean.mul_f64(-(1.0 - uniform).ln())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Next(client) => {
                let wait = self.exponential(self.interval);
                self.after(wait, Event::Next(client));
                self.call(client);
            }
            Event::Arrives(job) => self.arrives(job),
            Event::Served(job, took) => self.served(job, took),
            Event::Ends(job, end) => self.ends(job, end),
            Event::Again(call) => self.attempt(call),
            Event::Hedge(call) => self.hedge(call),
            Event::Expires(call) => self.expires(call),
        }
    }

    // ---- clients ----

    fn call(&mut self, client: usize) {
        let number = self.next_call;
        self.next_call += 1;
        let is_unsafe = self.every_unsafe > 0 && number.is_multiple_of(self.every_unsafe);
        let flags = if is_unsafe { 0 } else { request_flags::IDEMPOTENT };
        match self.clients[client].begin(self.now, &asked(number), flags, SECOND) {
            Ok(state) => {
                self.calls.insert(number, Call { client, state, running: Vec::new() });
                self.after(SECOND, Event::Expires(number));
                self.attempt(number);
            }
            Err(_) => self.second.bad += 1,
        }
    }

    fn attempt(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let fleet = &mut self.clients[call.client];
        let asked = asked(number);
        match fleet.start(self.now, &asked, &mut call.state, readiness(&self.servers)) {
            Ok(begun) => self.send(number, begun),
            Err(failure) => self.finish(number, Err(failure)),
        }
    }

    fn send(&mut self, number: u64, (attempt, server): (Attempt, usize)) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let job = Job { call: number, attempt: attempt.number, server };
        let hedge_after = attempt.hedge_after.filter(|_| call.running.is_empty());
        call.running.push((attempt.number, attempt));
        self.after(WIRE, Event::Arrives(job));
        if let Some(wait) = hedge_after {
            self.after(wait, Event::Hedge(number));
        }
    }

    fn hedge(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.running.len() != 1 {
            return;
        }
        let fleet = &mut self.clients[call.client];
        let second = fleet.hedge(self.now, &mut call.state, readiness(&self.servers));
        second.into_iter().for_each(|begun| self.send(number, begun));
    }

    fn ends(&mut self, job: Job, end: Result<Status, Failure>) {
        let Some(call) = self.calls.get_mut(&job.call) else { return };
        let Some(at) = call.running.iter().position(|(number, _)| *number == job.attempt) else {
            return;
        };
        let (_, attempt) = call.running.remove(at);
        let fleet = &mut self.clients[call.client];
        let load = if self.says_load { self.servers[job.server].load() } else { 0 };
        let header = end.map(|status| ReplyHeader { load, ..ReplyHeader::new(status) });
        let seen = header.as_ref();
        if end.is_err() && !call.running.is_empty() {
            return fleet.end_beside(self.now, &call.state, attempt, seen);
        }
        match fleet.end(self.now, &mut call.state, attempt, seen) {
            Verdict::Again(wait) => self.after(wait, Event::Again(job.call)),
            Verdict::End => self.finish(job.call, header),
        }
    }

    fn expires(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let expired = Failure::unknown(Cause::Expired);
        for (_, attempt) in std::mem::take(&mut call.running) {
            self.clients[call.client].end_beside(self.now, &call.state, attempt, Err(&expired));
        }
        self.finish(number, Err(expired));
    }

    fn finish(&mut self, number: u64, end: Result<ReplyHeader, Failure>) {
        let Some(call) = self.calls.remove(&number) else { return };
        let fleet = &mut self.clients[call.client];
        for (_, attempt) in call.running {
            fleet.abandon(self.now, &call.state, attempt);
        }
        fleet.finish(self.now, &call.state, Some(end.as_ref()));
        if end.is_ok() {
            self.second.good += 1;
        } else {
            self.second.bad += 1;
        }
    }

    // ---- servers ----

    fn arrives(&mut self, job: Job) {
        let server = &mut self.servers[job.server];
        server.arrived += 1;
        let refused = |status| Failure::from_status(status, 0).expect("it is no answer");
        let end = match server.health {
            Health::Up if server.queue.len() >= 1000 => refused(Status::OVERLOADED),
            Health::Up => {
                server.queue.push_back(job);
                return self.work(job.server);
            }
            Health::Draining => refused(Status::DRAINING),
            Health::Down { .. } => {
                let nobody = CloseReason::Transport(TransportError::Refused);
                Failure::not_sent(Cause::Closed(nobody))
            }
            Health::FailsFast => refused(Status::INTERNAL),
            Health::Refuses => refused(Status::OVERLOADED),
        };
        self.after(WIRE, Event::Ends(job, Err(end)));
    }

    fn work(&mut self, at: usize) {
        while self.servers[at].busy < self.servers[at].workers {
            let Some(job) = self.servers[at].queue.pop_front() else { return };
            self.servers[at].busy += 1;
            let took = self.exponential(self.servers[at].service);
            self.after(took, Event::Served(job, took));
        }
    }

    fn served(&mut self, job: Job, took: Duration) {
        let server = &mut self.servers[job.server];
        server.busy -= 1;
        server.busy_ns += took.as_nanos() as u64;
        self.after(WIRE, Event::Ends(job, Ok(Status::OK)));
        self.work(job.server);
    }
}
