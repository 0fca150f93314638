//! A world: clients that decide, servers with queues, and events in a time that is not real.

mod attempts;

use std::collections::VecDeque;
use std::time::Duration;

use ringcall_cluster::Settings;
use ringcall_cluster::discovery::{Instance, Listing, Update};
use ringcall_cluster::fleet::{Attempt, CallState, Fleet, LoadProbe, Readiness};
use ringcall_cluster::route::Asked;
use ringcall_core::{Cause, CloseReason, Failure, Instant, Status, TransportError};

use crate::Plan;
use crate::queue::Queue;
use crate::seen::Second;
use crate::server::{Health, Job, Server};
use crate::sources::{self, Believer, LOOK};
use crate::trace::{Offered, Offers, Shares, Trace};

/// The method that all calls are of.
pub const METHOD: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);
/// One way through the network.
const WIRE: Duration = Duration::from_micros(100);
/// How long a call may take.
pub(crate) const DEADLINE: Duration = SECOND;
/// What time it is at first.
pub(crate) const BEGIN: Instant = Instant::from_nanos(1_000_000_000);
/// After so long a connection on which nothing comes back is known to be lost: that of keepalive's defaults.
const NOTICED: Duration = Duration::from_secs(9);

struct Call {
    offered: Offered,
    state: CallState,
    running: Vec<Attempt>,
}

enum Event {
    /// A client makes its next call.
    Next(usize),
    /// A call of a trace.
    Offered(Offered),
    Arrives(Job),
    Served(Job),
    Ends(Job, Result<Status, Failure>),
    Again(u64),
    Hedge(u64),
    Expires(u64),
    /// A server is asked how busy it is, by a client.
    Asked(usize, u32, LoadProbe),
    /// What a client hears of that.
    Told(u32, LoadProbe, Option<u16>),
    /// Clients look after their lists.
    Look,
}

/// What is sent between some clients and servers is lost without a word.
#[derive(Clone, Copy, Debug)]
struct Cut {
    since: Instant,
    is_cut: fn(usize, usize) -> bool,
}

/// Many clients and servers. [`run`](World::run) lets time pass; in between a script changes what it likes.
pub struct World {
    now: Instant,
    events: Queue<Event>,
    offers: Offers,
    clients: Vec<Fleet<usize>>,
    /// The servers.
    pub servers: Vec<Server>,
    /// What was seen so far, second by second.
    pub seconds: Vec<Second>,
    second: Second,
    second_ends: Instant,
    settings: Settings,
    weights: Vec<u32>,
    /// Time between two calls of a client, on average.
    interval: Duration,
    says_load: bool,
    /// Those under way, by number; the first has the number `first_call`.
    calls: VecDeque<Option<Call>>,
    first_call: u64,
    cut: Option<Cut>,
    believers: Vec<Believer>,
    updates: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Whether a client's connections to servers can be used.
fn readiness(
    servers: &[Server],
    cut: Option<Cut>,
    now: Instant,
    client: usize,
) -> impl Fn(&usize) -> Readiness {
    let cut = cut.filter(|cut| now >= cut.since + NOTICED);
    move |server: &usize| match servers[*server].told(now) {
        _ if cut.is_some_and(|cut| (cut.is_cut)(client, *server)) => Readiness::Broken,
        Health::Draining => Readiness::Connecting,
        Health::Down { is_known: true } => Readiness::Broken,
        _ => Readiness::Ready,
    }
}

/// What a call asks for.
fn asked(offered: &Offered) -> Asked<'static> {
    let name = "world.Service/method";
    Asked { name, method: METHOD, key: Some(offered.key), extensions: &[], argument: None }
}

impl World {
    /// A world of this size, in which calls are drawn by chance.
    ///
    /// # Panics
    /// When its settings make no sense.
    #[must_use]
    pub fn new(plan: &Plan) -> World {
        let shares = Shares { every_once: plan.every_once, every_large: plan.every_large };
        let mut world = World::with_offers(plan, Offers::drawn(plan.seed, shares));
        for client in 0..plan.clients {
            world.next_of(client);
        }
        world
    }

    /// A world of this size, which is offered the calls of another.
    ///
    /// # Panics
    /// When its settings make no sense.
    #[must_use]
    pub fn replayed(plan: &Plan, trace: Trace) -> World {
        let mut world = World::with_offers(plan, Offers::replayed(trace));
        world.next_replayed();
        world
    }

    fn with_offers(plan: &Plan, offers: Offers) -> World {
        let now = BEGIN;
        let workers = plan.workers.iter().sum::<u32>();
        let capacity = f64::from(workers) / plan.service.as_secs_f64();
        let fleet = |client| {
            let fleet = Fleet::new(plan.settings.clone(), plan.seed << 32 | client, now);
            fleet.expect("the settings make sense")
        };
        let server = |workers: &u32| Server::new(*workers, plan.service, now);
        let mut world = World {
            now,
            events: Queue::default(),
            offers,
            clients: (0..plan.clients as u64).map(fleet).collect(),
            servers: plan.workers.iter().map(server).collect(),
            seconds: Vec::new(),
            second: Second::default(),
            second_ends: now + SECOND,
            settings: plan.settings.clone(),
            weights: plan.weights.clone(),
            interval: Duration::from_secs_f64(plan.clients as f64 / (capacity * plan.load)),
            says_load: plan.says_load,
            calls: VecDeque::new(),
            first_call: 0,
            cut: None,
            believers: Vec::new(),
            updates: 0,
        };
        world.list(1, |_, _| ());
        world
    }

    // ---- what a script does ----

    /// Lets so many seconds pass.
    pub fn run(&mut self, seconds: u64) {
        self.wait(SECOND * seconds as u32);
    }

    /// Lets so much time pass.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        // A script may have changed something since the last event.
        self.notice();
        while self.now < end {
            let until = end.min(self.second_ends);
            while let Some((at, event)) = self.events.pop_until(until) {
                self.now = at;
                self.happen(event);
            }
            self.now = until;
            if until == self.second_ends {
                self.close_second();
            }
        }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How clients were set up.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells all clients of a list with this version, in which `change` says more of each server.
    pub fn list(&mut self, version: u64, change: impl Fn(usize, &mut Instance)) {
        let listing = Listing::of(version, self.instances(change));
        for client in &mut self.clients {
            let _none = client.apply(self.now, &listing, sources::place);
        }
    }

    /// Changes the clients, with their number.
    pub fn each_client(&mut self, change: impl Fn(usize, Instant, &mut Fleet<usize>)) {
        let now = self.now;
        self.clients.iter_mut().enumerate().for_each(|(n, client)| change(n, now, client));
    }

    /// One of the clients.
    #[must_use]
    pub fn client(&self, index: usize) -> &Fleet<usize> {
        &self.clients[index]
    }

    /// A server is gone without a word, with all that it had under way.
    pub fn crash(&mut self, server: usize) {
        self.servers[server].health = Health::Down { is_known: false };
        let reset = CloseReason::Transport(TransportError::Reset);
        for job in self.servers[server].crash(self.now) {
            let call = call_of(&mut self.calls, self.first_call, job.call);
            self.second.cut_off += u64::from(call.is_some_and(|call| call.offered.runs_once));
            self.after(WIRE, Event::Ends(job, Err(Failure::unknown(Cause::Closed(reset)))));
        }
    }

    /// What is sent between these clients and servers is lost from now on, until [`heal`](World::heal).
    pub fn cut(&mut self, is_cut: fn(usize, usize) -> bool) {
        self.cut = Some(Cut { since: self.now, is_cut });
    }

    /// Nothing is lost any more, and connections are opened again.
    pub fn heal(&mut self) {
        self.cut = None;
    }

    /// Each client makes so many calls at this moment.
    pub fn burst(&mut self, calls: usize) {
        for client in (0..self.clients.len()).flat_map(|it| std::iter::repeat_n(it, calls)) {
            if let Some(offered) = self.offers.draw(self.now, client) {
                self.offer(offered);
            }
        }
    }

    /// Clients have their lists from a source from now on, each for itself; it has these servers.
    pub fn source(&mut self, has: impl Fn(usize) -> bool) {
        self.believers = self.clients.iter().map(|_| Believer::new()).collect();
        self.events.push(self.now, Event::Look);
        self.push(has);
    }

    /// The source says that there are these servers.
    pub fn push(&mut self, has: impl Fn(usize) -> bool) {
        self.updates += 1;
        let mut instances: Vec<Instance> = self.instances(|_, _| ()).collect();
        instances.retain(|it| sources::place(it).is_some_and(&has));
        self.hear(&sources::snapshot(self.updates, instances));
    }

    /// The source cannot say anything.
    pub fn outage(&mut self) {
        self.hear(&Update::Outage("no answer".to_owned()));
    }

    /// All calls that it was offered.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        self.offers.into_trace()
    }

    fn instances<'a>(
        &'a self,
        change: impl Fn(usize, &mut Instance) + 'a,
    ) -> impl Iterator<Item = Instance> + 'a {
        self.weights.iter().enumerate().map(move |(n, weight)| {
            let mut instance = sources::instance(n, *weight);
            change(n, &mut instance);
            instance
        })
    }

    fn hear(&mut self, update: &Update) {
        for believer in &mut self.believers {
            believer.hears(self.now, update.clone());
        }
    }

    // ---- events ----

    fn after(&mut self, wait: Duration, event: Event) {
        self.events.push(self.now + wait, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Next(client) => {
                self.next_of(client);
                if let Some(offered) = self.offers.draw(self.now, client) {
                    self.offer(offered);
                }
            }
            Event::Offered(offered) => {
                self.next_replayed();
                self.offer(offered);
            }
            Event::Arrives(job) => self.arrives(job),
            Event::Served(job) => self.served(job),
            Event::Ends(job, end) => self.ends(job, end),
            Event::Again(call) => self.attempt(call),
            Event::Hedge(call) => self.hedge(call),
            Event::Expires(call) => self.expires(call),
            Event::Asked(server, client, probe) => self.asked(server, client, probe),
            Event::Told(client, probe, load) => {
                self.clients[client as usize].end_load_probe(probe, load);
            }
            Event::Look => self.look(),
        }
    }

    fn next_of(&mut self, client: usize) {
        if let Some(pause) = self.offers.pause(self.interval) {
            self.after(pause, Event::Next(client));
        }
    }

    fn next_replayed(&mut self) {
        if let Some(offered) = self.offers.next() {
            self.events.push(offered.at, Event::Offered(offered));
        }
    }

    /// Puts down who is not well, and of whose state clients are being told.
    fn notice(&mut self) {
        let (cut, now) = (self.cut, self.now);
        for (n, server) in self.servers.iter_mut().enumerate() {
            let is_cut = cut
                .is_some_and(|cut| (0..self.clients.len()).any(|client| (cut.is_cut)(client, n)));
            server.was_well &= server.is_well() && !is_cut;
            server.tell(now);
        }
    }

    fn close_second(&mut self) {
        let mut second = std::mem::take(&mut self.second);
        for server in &mut self.servers {
            let (arrived, busy, was_well) = server.close_second(self.now);
            second.arrived.push(arrived);
            second.utilisation.push(busy);
            second.well.push(was_well);
        }
        second.listed_min = self.believers.iter().map(Believer::listed).min().unwrap_or(0);
        self.seconds.push(second);
        self.second_ends = self.now + SECOND;
        self.notice();
    }

    fn look(&mut self) {
        self.after(LOOK, Event::Look);
        for (n, (client, believer)) in self.clients.iter_mut().zip(&mut self.believers).enumerate()
        {
            let readiness = readiness(&self.servers, self.cut, self.now, n);
            self.second.lists += u64::from(believer.look(self.now, client, readiness));
        }
    }
}

fn call_of(calls: &mut VecDeque<Option<Call>>, first: u64, number: u64) -> Option<&mut Call> {
    calls.get_mut(number.checked_sub(first)? as usize)?.as_mut()
}

/// Whether somebody waits for an attempt: a server is told of those that were given up.
fn is_wanted(calls: &VecDeque<Option<Call>>, first: u64, job: &Job) -> bool {
    let call = job.call.checked_sub(first).and_then(|at| calls.get(at as usize)?.as_ref());
    call.is_some_and(|call| call.running.iter().any(|it| it.number == job.attempt))
}
