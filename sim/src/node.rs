//! A node: a clock, settings, and one life after another, each an endpoint with an application.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringcall_core::{Config, Endpoint, Memory, MemoryLimits, Transport};

use crate::app::{App, End};
use crate::clock::{MICROS, NodeClock, SECONDS, Time, draw_skew};
use crate::knobs::{Fault, Knobs};
use crate::marks::Mark;
use crate::net::Net;
use crate::oracle;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::transport::{Dialect, SimTransport, address};

/// A turn has at most so many events: an endpoint with more of them talks to itself.
const EVENTS_A_TURN_MAX: u64 = 200_000;
/// So many turns in a row may bring nothing within a hundredth of a second.
const IDLE_TURNS_MAX: u32 = 5_000;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) clock: NodeClock,
    pub(crate) config: Rc<Config>,
    pub(crate) sizes: Sizes,
    limits: MemoryLimits,
    dialect: Dialect,
    pub(crate) targets: Vec<usize>,
    pub(crate) life: Option<Life>,
    pub(crate) lives: u32,
    pub(crate) stopped_until: Time,
    /// How often its application does something in its next turn.
    pub(crate) acts: u32,
    idle_turns: (u32, Time),
}

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) end: End,
    pub(crate) app: App,
    pub(crate) memory: Memory,
    pub(crate) is_draining: bool,
}

impl Node {
    pub(crate) fn draw(seed: u64, index: usize, knobs: &Knobs) -> Node {
        let mut rng = Rng::new(seed, 10 + index as u64);
        let skew = draw_skew(&mut rng, knobs.rate(Fault::Skew) > 0);
        let targets = (0..knobs.nodes).filter(|&other| match index {
            0 => other == 1,
            _ => other != index && rng.one_in(3),
        });
        let targets = targets.collect();
        let (config, sizes, mut limits) = draw_config(&mut rng);
        if knobs.rate(Fault::LittleMemory) > 0 {
            // Numbers of its own, so that without it a seed is as it was.
            let mut rng = Rng::new(seed, 1000 + index as u64);
            let bytes = rng.log_uniform(MEMORY_MIN, MEMORY_MIN << 4) as usize;
            limits.total_bytes = rng.one_in(2).then_some(bytes);
        }
        Node {
            index,
            clock: NodeClock::draw(&mut rng, skew),
            config: Rc::new(config),
            sizes,
            limits,
            dialect: Dialect::draw(&mut rng),
            targets,
            life: None,
            lives: 0,
            stopped_until: 0,
            acts: 0,
            idle_turns: (0, 0),
        }
    }

    /// Begins a life.
    pub(crate) fn start(&mut self, net: &Rc<RefCell<Net>>, shared: &mut Shared) {
        if self.life.is_some() {
            return;
        }
        let time = net.borrow().now;
        net.borrow_mut().machine_is_up(self.index);
        let now = self.clock.read(time);
        self.lives += 1;
        let memory = Memory::new(self.limits);
        let net_ = Rc::clone(net);
        let mut transport = SimTransport::new(net_, self.index, memory.clone(), self.dialect);
        transport.listen(&address(self.index)).expect("nobody else listens there");
        let end = Endpoint::new(transport, memory.clone(), now);
        let me = (self.index, self.lives);
        let app = App::new(me, Rc::clone(&self.config), &self.targets, now);
        self.life = Some(Life { end, app, memory, is_draining: false });
        shared.note(self.index, "start", u64::from(self.lives), 0);
        net.borrow_mut().turn_at(time + MICROS, self.index);
    }

    /// Whether there is a bound of what its connections hold.
    pub(crate) fn has_little_memory(&self) -> bool {
        self.limits.total_bytes.is_some()
    }

    /// A turn of its loop.
    pub(crate) fn turn(&mut self, net: &Rc<RefCell<Net>>, shared: &mut Shared, knobs: &Knobs) {
        let time = net.borrow().now;
        let now = self.clock.read(time);
        let acts = std::mem::take(&mut self.acts);
        let Some(life) = &mut self.life else { return };
        let Life { end, app, .. } = life;
        let before = (shared.events, end.transport().told);
        end.reap(now);
        let (mut events, most) = (0, events_of_turn(&mut net.borrow_mut()));
        while events < most
            && let Some(event) = end.poll_event(now)
        {
            app.take(end, shared, now, event);
            events += 1;
            assert!(events < EVENTS_A_TURN_MAX, "an endpoint never says that there is nothing");
        }
        let has_heard_all = events < most;
        if has_heard_all {
            app.has_heard_all();
        }
        for _ in 0..acts {
            app.act(end, shared, now, knobs);
        }
        let has_more = app.go_on(end, shared, now);
        end.flush(now);
        // What is late may be among the events that were left.
        if has_heard_all {
            app.check(end, shared, now);
        }
        let told = end.transport().told - before.1;
        shared.events += told;
        oracle::memory(life, &self.sizes, shared, self.index);
        let Life { end, app, .. } = life;
        let mut net = net.borrow_mut();
        if has_more || end.has_work() {
            net.turn_at(time + MICROS, self.index);
        }
        for at in [end.next_timeout(), app.next()].into_iter().flatten() {
            let at = self.clock.when(time, at).max(time + MICROS);
            net.turn_at(at, self.index);
        }
        let why = [has_more, end.has_work(), end.next_timeout().is_some_and(|at| at <= now)];
        let is_idle = shared.events == before.0;
        self.notice(is_idle, time, why);
    }

    /// Polls without progress are bounded.
    fn notice(&mut self, is_idle: bool, time: Time, why: [bool; 3]) {
        let (turns, since) = &mut self.idle_turns;
        if !is_idle || time - *since > SECONDS / 100 {
            (*turns, *since) = (0, time);
        }
        *turns += 1;
        assert!(
            *turns < IDLE_TURNS_MAX,
            "node {} spins (application has more, endpoint has work, timer is due: {why:?})",
            self.index
        );
    }

    /// Its life ends, by a crash or because it is drained.
    pub(crate) fn end(&mut self, net: &Rc<RefCell<Net>>, shared: &mut Shared, silently: bool) {
        let Some(Life { mut end, mut app, memory, .. }) = self.life.take() else { return };
        // Also of those that it has not accepted yet.
        let has_others = !net.borrow().ports[self.index].accept_queue.is_empty();
        if end.connections() > 0 || has_others {
            end.transport_mut().die(silently);
        } else {
            net.borrow_mut().ports[self.index].is_listening = false;
        }
        net.borrow_mut().ports[self.index].is_up = !silently;
        app.die(shared);
        shared.note(self.index, "end", u64::from(self.lives), u64::from(silently));
        count(&end, shared);
        drop((end, app));
        let memory_says = format!("{memory:?}");
        assert!(memory_says.contains("landing: 0"), "the landing budget leaks: {memory_says}");
        let left = memory.pool().stats().lent_bytes;
        // The arena that frames are built in keeps its block.
        assert!(left <= ringcall_buf::BLOCK_BYTES, "{left} bytes are left of a life");
    }
}

/// How many events a turn takes at most.
fn events_of_turn(net: &mut Net) -> u64 {
    match net.strikes(Fault::EarlyTurn) {
        true => net.rng.between(1, 8),
        false => EVENTS_A_TURN_MAX,
    }
}

/// What the counters of an endpoint show that nobody sees otherwise.
fn count(end: &End, shared: &mut Shared) {
    let counters = end.counters();
    for (mark, n) in [
        (Mark::Landed, counters.landed),
        (Mark::CopiedMisaligned, counters.copied_misaligned),
        (Mark::CopiedHoard, counters.copied_hoard),
        (Mark::LateReply, counters.replies_late),
        (Mark::AfterGoAway, counters.requests_after_goaway),
        (Mark::ExpiredInQueue, counters.requests_expired),
    ] {
        shared.marks.count(mark, n);
    }
    // Behind a jump the second between two PINGs is none on the other side's clock.
    let is_seldom = counters.ping_strikes <= shared.clock_jumps;
    assert!(is_seldom, "this implementation asks too often: {} strikes", counters.ping_strikes);
    assert_eq!(counters.replies_unknown, 0, "a reply to a call that does not exist");
}

/// The largest message that any node accepts.
pub(crate) const MESSAGE_MAX: u64 = 1 << 18;
/// The least that a node's connections may hold together, if that is bounded: room for a few, with nothing to do.
const MEMORY_MIN: u64 = 1 << 17;
/// The most calls in flight that an application sets while it runs.
pub(crate) const IN_FLIGHT_SET: u32 = 64;

/// The settings that oracles count with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) in_flight_max: u32,
    pub(crate) calls_window: u64,
    pub(crate) replies_window: u64,
    pub(crate) send_queue_max: u64,
    /// How soon its connections may be drained because they are old, or nothing is asked on them.
    pub(crate) shortest_life: Time,
}

fn draw_config(rng: &mut Rng) -> (Config, Sizes, MemoryLimits) {
    let message = rng.log_uniform(1 << 10, MESSAGE_MAX);
    let millis = |rng: &mut Rng, low, high| Duration::from_millis(rng.log_uniform(low, high));
    let soft = rng.log_uniform(1 << 10, 1 << 20);
    let mut sizes = Sizes {
        in_flight_max: rng.log_uniform(1, 128) as u32,
        calls_window: message * rng.between(2, 8),
        replies_window: message * rng.between(2, 8),
        send_queue_max: soft * rng.between(1, 8),
        shortest_life: Time::MAX,
    };
    let mut config = Config::new()
        .in_flight_max(sizes.in_flight_max)
        .message_bytes_max(message as usize)
        .calls_window(sizes.calls_window)
        .replies_window(sizes.replies_window)
        .stream_window(rng.log_uniform(1 << 10, 1 << 18))
        .cut_bytes(rng.log_uniform(1 << 10, 1 << 18) as usize / 16 * 16)
        .send_queue_soft(soft as usize)
        .send_queue_max(sizes.send_queue_max as usize)
        .handshake_timeout(millis(rng, 1000, 5000))
        .connect_timeout(millis(rng, 1000, 2000))
        .stall_timeout(millis(rng, 2000, 10_000))
        .keepalive_idle(millis(rng, 2000, 15_000), rng.between(1, 3) as u32)
        .keepalive_busy(millis(rng, 2000, 5000), millis(rng, 2000, 4000));
    if rng.one_in(2) {
        config = config.first_generation(0x7fff_ffff - rng.below(4) as u32);
    }
    if rng.one_in(4) {
        let idle = millis(rng, 500, 20_000);
        sizes.shortest_life = sizes.shortest_life.min(idle.as_nanos() as Time);
        config = config.idle_close(idle);
    }
    if rng.one_in(4) {
        let age = millis(rng, 500, 20_000);
        sizes.shortest_life = sizes.shortest_life.min(age.as_nanos() as Time);
        config = config.connection_age_max(age);
    }
    if rng.one_in(8) {
        config = config.stream_idle_timeout(millis(rng, 500, 20_000));
    }
    let mut limits = MemoryLimits::default();
    if rng.one_in(3) {
        limits.landing_bytes = rng.log_uniform(1 << 14, 1 << 20) as usize;
    }
    if rng.one_in(3) {
        limits.lent_bytes = rng.log_uniform(1 << 16, 1 << 22) as usize;
    }
    limits.kept_bytes = 8 << 20;
    (config.validate().expect("they fit together"), sizes, limits)
}
