//! Small models, explored whole: everything that two real connections, their applications and the network
//! between them can do in so many steps, in every order.
//!
//! A path is replayed from its beginning each time, since a connection cannot be copied. What lies at its end
//! heals: bytes arrive, handlers answer, deadlines pass. Then each call must have ended once, and nothing may be
//! left. How deep paths go is written with each model; `cargo xtask models` goes deeper and prints the figures.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it says how many paths there are, and which failed"
)]

mod harness;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use harness::{Peer, raw_call};
use ringcall_core::frame::CancelReason;
use ringcall_core::{
    CallId, CloseReason, Config, Instant, Outcome, Side, SplitMix64, Status, TransportError,
};

/// How long callers wait.
const TIMEOUT: Duration = Duration::from_millis(50);
/// Deadlines are kept in ticks of about a millisecond.
const TICKS: Duration = Duration::from_millis(3);

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The client makes its next call.
    Call,
    /// The client gives a call up, by its number.
    Cancel(usize),
    /// A side hands bytes to its network, as many as go at once.
    Send(usize),
    /// What is on its way from a side arrives.
    Arrive(usize),
    /// The server answers the call that came first, or last.
    AnswerFirst,
    AnswerLast,
    /// Deadlines of what runs pass.
    Time,
    /// The connection is reset: what was on its way is lost. There is another one at once.
    Reset,
    /// A call that certainly did not run is made again.
    Retry(usize),
    /// The server drains.
    Drain,
}

/// What may happen, and how often.
#[derive(Clone)]
struct Scene {
    name: &'static str,
    calls: usize,
    body_bytes: usize,
    cancels: usize,
    times: usize,
    resets: usize,
    drains: usize,
    /// Whether the server may answer out of order.
    any_order: bool,
    /// How many bytes go, or arrive, at once.
    bytes_at_once: usize,
    /// How many bytes of bodies are in flight at most, each way.
    window: u64,
    /// How long paths are, here and in `cargo xtask models`.
    depths: [usize; 2],
}

impl Scene {
    fn config(&self) -> Config {
        let config = Config::new().message_bytes_max(1024).cut_bytes(1024);
        config.calls_window(self.window).replies_window(self.window)
    }
}

/// One attempt of a call.
struct Attempt {
    ticket: usize,
    /// On the connection that there is now.
    id: Option<CallId>,
    deadline: Instant,
    end: Option<End>,
    has_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Answered,
    /// Its caller has given it up.
    Cancelled,
    /// It certainly did not run.
    DidNotRun,
    Unknown,
}

struct World<'a> {
    scene: &'a Scene,
    now: Instant,
    ends: [Peer; 2],
    /// From each side.
    wires: [VecDeque<u8>; 2],
    attempts: Vec<Attempt>,
    calls: usize,
    cancels: usize,
    times: usize,
    resets: usize,
    drains: usize,
    rng: SplitMix64,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl<'a> World<'a> {
    fn new(scene: &'a Scene) -> World<'a> {
        let now = Instant::from_nanos(1_000_000_000);
        let mut world = World {
            scene,
            now,
            ends: World::peers(scene, now),
            wires: [VecDeque::new(), VecDeque::new()],
            attempts: Vec::new(),
            calls: 0,
            cancels: 0,
            times: 0,
            resets: 0,
            drains: 0,
            rng: SplitMix64::new(7),
        };
        world.settle();
        world
    }

    fn peers(scene: &Scene, now: Instant) -> [Peer; 2] {
        [Side::Client, Side::Server].map(|side| {
            let mut peer = Peer::new(side, scene.config(), now);
            peer.echo = false;
            peer
        })
    }

    fn replay(scene: &'a Scene, path: &[Step]) -> World<'a> {
        let mut world = World::new(scene);
        for step in path {
            world.take(*step);
        }
        world
    }

    // ---- steps ----

    /// What can happen next; what would change nothing is left out.
    fn possible(&self) -> Vec<Step> {
        let scene = self.scene;
        let mut steps = Vec::new();
        let mut add = |may: bool, step: Step| {
            if may {
                steps.push(step);
            }
        };
        add(self.calls < scene.calls, Step::Call);
        for side in [CLIENT, SERVER] {
            let connection = &self.ends[side].connection;
            add(connection.wants_transmit() && !connection.has_ended(), Step::Send(side));
            add(!self.wires[side].is_empty(), Step::Arrive(side));
        }
        let runs = self.ends[SERVER].requests.len();
        add(runs > 0, Step::AnswerFirst);
        add(runs > 1 && scene.any_order, Step::AnswerLast);
        let in_flight = self.attempts.iter().any(|attempt| attempt.end.is_none());
        add(self.times < scene.times && in_flight, Step::Time);
        add(self.resets < scene.resets && self.calls > 0, Step::Reset);
        add(self.drains < scene.drains, Step::Drain);
        for (number, attempt) in self.attempts.iter().enumerate() {
            let is_last =
                !self.attempts[number + 1..].iter().any(|one| one.ticket == attempt.ticket);
            let may_cancel = attempt.end.is_none() && self.cancels < scene.cancels;
            add(may_cancel, Step::Cancel(number));
            let may_retry = is_last && number == attempt.ticket && self.resets > 0;
            add(may_retry && attempt.end == Some(End::DidNotRun), Step::Retry(number));
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Call => {
                self.calls += 1;
                self.call(self.calls - 1);
            }
            Step::Retry(number) => self.call(self.attempts[number].ticket),
            Step::Cancel(number) => self.cancel(number),
            Step::Send(side) => self.send(side),
            Step::Arrive(side) => self.arrive(side),
            Step::AnswerFirst => self.answer(0),
            Step::AnswerLast => self.answer(self.ends[SERVER].requests.len() - 1),
            Step::Time => {
                self.times += 1;
                self.pass(TIMEOUT + TICKS);
            }
            Step::Reset => {
                self.resets += 1;
                self.reset();
            }
            Step::Drain => {
                self.drains += 1;
                self.ends[SERVER].connection.drain(self.now);
            }
        }
        self.look();
    }

    fn call(&mut self, ticket: usize) {
        let number = self.attempts.len();
        let mut body = vec![0; self.scene.body_bytes];
        body[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut call = raw_call(self.now);
        call.deadline = self.now + TIMEOUT;
        let client = &mut self.ends[CLIENT].connection;
        let called = client.call(self.now, &call, &Bytes::from(body), number as u64);
        let end = called.is_err().then_some(End::DidNotRun);
        let deadline = call.deadline;
        self.attempts.push(Attempt { ticket, id: called.ok(), deadline, end, has_run: false });
    }

    fn cancel(&mut self, number: usize) {
        self.cancels += 1;
        let Some(id) = self.attempts[number].id else { return };
        let client = &mut self.ends[CLIENT].connection;
        // Otherwise its end is there already, and nobody has taken it yet.
        if let Some(ticket) = client.cancel(self.now, id, CancelReason::Dropped) {
            assert_eq!(ticket, number as u64, "another call was given up");
            self.end(number, End::Cancelled);
        }
    }

    fn send(&mut self, side: usize) {
        let sent = self.ends[side].transmit(self.now, self.scene.bytes_at_once);
        self.wires[side].extend(sent);
    }

    fn arrive(&mut self, from: usize) {
        let n = self.wires[from].len().min(self.scene.bytes_at_once);
        let bytes: Vec<u8> = self.wires[from].drain(..n).collect();
        self.ends[1 - from].receive(self.now, &bytes, true, &mut self.rng);
    }

    fn answer(&mut self, place: usize) {
        let request = self.ends[SERVER].requests.remove(place);
        let answered = self.ends[SERVER].reply(self.now, request.id, Status::OK, &request.body);
        answered.expect("a request that runs can be answered");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for end in &mut self.ends {
            if end.connection.poll_timeout().is_some_and(|at| at <= self.now) {
                end.connection.handle_timeout(self.now);
            }
        }
    }

    fn reset(&mut self) {
        let reason = CloseReason::Transport(TransportError::Reset);
        for end in &mut self.ends {
            end.connection.handle_closed(self.now, reason);
        }
        self.look();
        self.replace();
    }

    /// The connection is over: its calls are, too, and nothing of it is left. There is another one.
    fn replace(&mut self) {
        for (number, attempt) in self.attempts.iter_mut().enumerate() {
            assert!(attempt.end.is_some(), "call {number} has outlived its connection");
            attempt.id = None;
        }
        let over = std::mem::replace(&mut self.ends, World::peers(self.scene, self.now));
        for Peer { memory, connection, requests, .. } in over {
            drop((connection, requests));
            // The block that frames are built in.
            let (left, own) = (memory.pool().stats().lent_bytes, 64 << 10);
            assert!(left <= own, "memory is left: {left} bytes");
        }
        self.wires.iter_mut().for_each(VecDeque::clear);
        self.settle();
    }

    // ---- what must hold ----

    fn end(&mut self, number: usize, end: End) {
        let attempt = &mut self.attempts[number];
        assert_eq!(attempt.end, None, "call {number} ends twice, now as {end:?}");
        attempt.end = Some(end);
    }

    /// Takes what has happened, and checks what must always hold.
    fn look(&mut self) {
        self.ends.iter_mut().for_each(|end| end.drain(self.now));
        self.look_at_requests();
        let done = std::mem::take(&mut self.ends[CLIENT].done);
        for (ticket, outcome) in done {
            let end = match outcome {
                Outcome::Reply(reply) if reply.header.status == Status::OK => {
                    assert_eq!(number_of(&reply.body), ticket as usize, "another call's answer");
                    End::Answered
                }
                // A handler that was told of a cancel or a deadline says so.
                Outcome::Reply(_) => End::Unknown,
                Outcome::Failed(failure) if failure.is_safe_to_retry() => End::DidNotRun,
                Outcome::Failed(_) => End::Unknown,
                other => panic!("an end that these calls do not have: {other:?}"),
            };
            self.end(ticket as usize, end);
        }
        for (number, attempt) in self.attempts.iter().enumerate() {
            let is_late = attempt.end.is_none() && attempt.deadline + TICKS <= self.now;
            assert!(!is_late, "call {number} has outlived its deadline");
            let did_not_run = attempt.end == Some(End::DidNotRun);
            assert!(!(did_not_run && attempt.has_run), "call {number} is said not to have run");
        }
        self.look_at_credit();
    }

    fn look_at_requests(&mut self) {
        for body in std::mem::take(&mut self.ends[SERVER].began) {
            let number = number_of(&body);
            let has_run = std::mem::replace(&mut self.attempts[number].has_run, true);
            assert!(!has_run, "call {number} arrives twice");
            let ticket = self.attempts[number].ticket;
            let runs = self.attempts.iter().filter(|one| one.ticket == ticket && one.has_run);
            assert_eq!(runs.count(), 1, "call {number} runs again");
        }
    }

    fn look_at_credit(&self) {
        let [client, server] = &self.ends;
        for (from, to) in [(client, server), (server, client)] {
            if from.connection.has_ended() || to.connection.has_ended() {
                continue;
            }
            let (calls, replies) = from.connection.credit_available();
            let (calls_held, replies_held) = to.connection.credit_held();
            let window = self.scene.window;
            assert!(calls + calls_held <= window, "credit of calls was made");
            assert!(replies + replies_held <= window, "credit of replies was made");
        }
    }

    /// Everything arrives and is answered, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut has_moved = false;
            for side in [CLIENT, SERVER] {
                self.send(side);
                has_moved |= !self.wires[side].is_empty();
                while !self.wires[side].is_empty() {
                    self.arrive(side);
                }
            }
            self.look();
            while !self.ends[SERVER].requests.is_empty() {
                self.answer(0);
                has_moved = true;
            }
            self.look();
            if !has_moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Nothing bad happens any more: all calls end, and everything is as in the beginning.
    fn heal(mut self) {
        self.settle();
        let was_undisturbed = self.cancels + self.times + self.resets == 0;
        for (number, attempt) in self.attempts.iter().enumerate() {
            let end = attempt.end.unwrap_or_else(|| panic!("call {number} has not ended"));
            assert!(!was_undisturbed || end != End::Unknown, "call {number} was lost");
            assert!(
                !was_undisturbed || attempt.has_run == (end == End::Answered),
                "call {number}: {end:?}"
            );
        }
        self.pass(Duration::from_secs(3));
        self.settle();
        let is_over = self.ends.iter().any(|end| end.closed.is_some());
        assert_eq!(
            is_over,
            self.drains > 0 && self.ends[SERVER].closed.is_some(),
            "it has ended by itself"
        );
        self.at_rest();
        let reason = CloseReason::Local;
        self.ends.iter_mut().for_each(|end| end.connection.handle_closed(self.now, reason));
        self.look();
        self.replace();
    }

    fn at_rest(&self) {
        let [client, server] = &self.ends;
        for (from, to) in [(client, server), (server, client)] {
            let (from, to) = (&from.connection, &to.connection);
            assert_eq!((to.calls_in_flight(), to.calls_served()), (0, 0), "slots are left");
            assert_eq!(to.credit_held(), (0, 0), "bodies are held that nobody has");
            if from.has_ended() {
                continue;
            }
            assert_eq!(from.bytes_queued(), 0, "bytes wait for nothing");
            let (calls, replies) = from.credit_available();
            // What is kept back is less than a quarter.
            let enough = self.scene.window / 4 * 3 - 4;
            assert!(calls.min(replies) > enough, "credit was lost: {calls} and {replies} are left");
        }
    }

    /// What can be seen of a state, to count how many there are.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.wires.hash(&mut hasher);
        (self.calls, self.cancels, self.times, self.resets, self.drains).hash(&mut hasher);
        for attempt in &self.attempts {
            (attempt.ticket, attempt.end, attempt.has_run).hash(&mut hasher);
        }
        for end in &self.ends {
            let connection = &end.connection;
            format!("{connection:?} {:?}", connection.counters()).hash(&mut hasher);
            (connection.credit_available(), connection.credit_held()).hash(&mut hasher);
            (connection.bytes_queued(), connection.wants_transmit(), end.closed.is_some())
                .hash(&mut hasher);
            end.requests.iter().for_each(|request| number_of(&request.body).hash(&mut hasher));
        }
        hasher.finish()
    }
}

fn number_of(body: &[u8]) -> usize {
    let number: [u8; 8] = body[..8].try_into().expect("eight bytes");
    u64::from_le_bytes(number) as usize
}

/// Says which path it was when something does not hold.
struct Shown<'a>(&'a [Step]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Shown(path) = self;
            eprintln!("after {path:?}");
        }
    }
}

#[derive(Default)]
struct Found {
    paths: u64,
    states: HashSet<u64>,
}

fn explore(scene: &Scene) {
    // Asked for by `cargo xtask models`.
    let is_deep = std::env::var_os("RINGCALL_MODELS_DEEP").is_some();
    let depth = scene.depths[usize::from(is_deep)];
    let mut found = Found::default();
    descend(scene, depth, &mut Vec::new(), &mut found);
    let Found { paths, states } = found;
    println!("model {} | {depth} steps | {paths} paths, {} states", scene.name, states.len());
}

fn descend(scene: &Scene, depth: usize, path: &mut Vec<Step>, found: &mut Found) {
    let shown = Shown(path);
    let world = World::replay(scene, path);
    found.states.insert(world.fingerprint());
    let steps = world.possible();
    if path.len() == depth || steps.is_empty() {
        found.paths += 1;
        world.heal();
        return;
    }
    drop(shown);
    for step in steps {
        path.push(step);
        descend(scene, depth, path, found);
        path.pop();
    }
}

#[test]
fn call_cancel_deadline_reset_retry() {
    explore(&Scene {
        name: "core: call, cancel, deadline, reset, retry",
        calls: 2,
        body_bytes: 16,
        cancels: 1,
        times: 1,
        resets: 1,
        drains: 0,
        any_order: true,
        bytes_at_once: usize::MAX,
        window: 8192,
        depths: [7, 10],
    });
}

#[test]
fn credit() {
    explore(&Scene {
        name: "core: calls that wait for credit, cancel, deadline",
        calls: 3,
        body_bytes: 1000,
        cancels: 1,
        times: 1,
        resets: 0,
        drains: 0,
        any_order: false,
        bytes_at_once: 700,
        window: 2048,
        depths: [8, 12],
    });
}

#[test]
fn drain() {
    explore(&Scene {
        name: "core: drain, call, cancel, reset, retry",
        calls: 2,
        body_bytes: 16,
        cancels: 1,
        times: 0,
        resets: 1,
        drains: 1,
        any_order: false,
        bytes_at_once: usize::MAX,
        window: 8192,
        depths: [8, 11],
    });
}
