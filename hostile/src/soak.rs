//! A long run through the proxy: every call ends, and nothing grows.
#![expect(clippy::disallowed_methods, reason = "says when things were as they were")]

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ringcall::observe::{Event, Observer};
use ringcall::{Bytes, CallError, LocalClient, TransportChoice};
use ringcall_hostile::honest::{Honest, Tally};
use ringcall_hostile::live::Live;
use ringcall_hostile::process::{Process, Usage};
use ringcall_hostile::proxy::{Faults, Proxy};
use ringcall_hostile::victim::{Setting, VictimClient};

/// How long the proxy does the same.
const SPELL: Duration = Duration::from_secs(4);
const SPELLS: u32 = 14;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const SIZES_EVERY: Duration = Duration::from_secs(28);
/// Which is also how many samples there are in a round of all of them.
const ROUND_S: usize = SPELLS as usize * SPELL.as_secs() as usize;
/// What comes before the run, and is not looked at: the same at a higher rate, so that pools, tables and the heap, which
/// keep what was ever needed at once, are as large by then as the run itself will want them at any moment. At its own
/// rate they would grow for as long as there are still moments that are worse than all before, which never ends.
const WARM_UP: Duration = Duration::from_secs(4 * ROUND_S as u64);
const WARM_UP_RATE: f64 = 1.4;
const SLOPE_MAX_MIB_PER_H: f64 = 1.0;
/// Nobody waits longer for the last calls.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// On each engine, behind the warm-up.
    pub(crate) time: Duration,
    /// Of the most that goes through the proxy in a round of its faults,
    pub(crate) share: f64,
    /// unless it is said how many calls a second.
    pub(crate) calls_per_s: Option<u64>,
    pub(crate) engines: Vec<TransportChoice>,
    pub(crate) seed: u64,
    /// Where a picture of memory goes, `NAME-engine.svg`.
    pub(crate) picture: Option<String>,
    /// Whether to say every half minute how much memory there is of which size.
    pub(crate) says_sizes: bool,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            time: Duration::from_secs(30 * 60),
            share: 0.7,
            calls_per_s: None,
            engines: vec![TransportChoice::Epoll, TransportChoice::Uring],
            seed: 1,
            picture: None,
            says_sizes: false,
        }
    }
}

/// What was seen in a second.
#[derive(Clone, Default)]
struct Sample {
    /// Since the warm-up began.
    at_s: f64,
    /// Of the server, and of this process: the client and the proxy.
    usage: [Usage; 2],
    /// What of it is allocated, in bytes.
    allocated: [u64; 2],
}

const WHO: [&str; 2] = ["server", "client and proxy"];

/// Runs the plan and prints its tables.
pub(crate) fn run(plan: &Plan) -> Result<(), String> {
    let mut faults = Vec::new();
    for &engine in &plan.engines {
        faults.extend(run_one(plan, engine)?.into_iter().map(|fault| format!("{engine}: {fault}")));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn run_one(plan: &Plan, engine: TransportChoice) -> Result<Vec<String>, String> {
    let binary = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut server = Process::start(&binary, engine, &Setting::default())?;
    let proxy = Proxy::start(server.address(), plan.seed).map_err(|error| error.to_string())?;
    let told = Arc::new(Told::default());
    let honest = Honest::connect_observed(proxy.address(), engine, Some(Arc::clone(&told) as _))?;
    let rate = match plan.calls_per_s {
        Some(rate) => rate,
        None => (peak(&honest, &proxy) * plan.share) as u64,
    };
    let rate = rate.max(1);
    let before = told.begun.load(Ordering::Relaxed);
    let (tally, Watch { samples, phase_from, .. }) =
        load(plan, &honest, &proxy, &mut server, rate)?;

    let seconds = (WARM_UP + plan.time).as_secs();
    println!(
        "{engine}: {rate} calls/s for {} s, behind {} s of warm-up with {WARM_UP_RATE} times as many: {} calls/s were made \
         over all; {} connections",
        plan.time.as_secs(),
        WARM_UP.as_secs(),
        tally.begun / seconds.max(1),
        proxy.made()
    );
    println!("{tally}");
    let mut faults = trends(&samples[phase_from..]);
    if tally.open() != 0 {
        faults.push(format!("{} calls have not ended", tally.open()));
    }
    let (begun, ended) = (told.begun.load(Ordering::Relaxed), told.ended.load(Ordering::Relaxed));
    if begun != ended || begun - before != tally.begun {
        faults.push(format!(
            "observers are told of {} calls, of which {} were made, and of {} ends",
            begun - before,
            tally.begun,
            ended - before
        ));
    }
    if let Some(name) = &plan.picture {
        let path = format!("{name}-{engine}.svg");
        let picture = picture(&samples);
        std::fs::write(Path::new(&path), picture).map_err(|error| format!("{path}: {error}"))?;
    }
    drop((honest, proxy));
    let report = server.stop()?;
    println!("the server took {} requests; {}\n", report.requests, told_of(&report.incidents));
    Ok(faults)
}

fn told_of(incidents: &std::collections::BTreeMap<String, u64>) -> String {
    let some = incidents.iter().filter(|(_, count)| **count > 0);
    some.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Calls a second with 64 in flight, of those of the mix that do not wait for a clock, over a round of the faults that the
/// run will have: what goes through a proxy that does nothing is far more than these let through, and seven tenths of it
/// more than the machine can do with them.
fn peak(honest: &Honest, proxy: &Proxy) -> f64 {
    const CALLERS: u64 = 64;
    let (began, time) = (Instant::now(), SPELL * SPELLS);
    let (answered, running) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(CALLERS)));
    let bodies = Rc::new(Bodies::new());
    for _ in 0..CALLERS {
        let (victim, answered) = (Rc::clone(honest.victim()), Rc::clone(&answered));
        let (running, bodies) = (Rc::clone(&running), Rc::clone(&bodies));
        honest.shard().spawn(async move {
            for number in 2.. {
                if began.elapsed() > time {
                    break;
                }
                let is_answered = work(&victim, &bodies, 2 + number % 18).await.is_ok_and(|is| is);
                answered.set(answered.get() + u64::from(is_answered));
                if !is_answered {
                    // It may have failed at once.
                    yield_now().await;
                }
            }
            running.set(running.get() - 1);
        });
    }
    let spells = Cell::new(0);
    honest.wait_while(time * 2, || {
        let spell = (began.elapsed().as_secs() / SPELL.as_secs()) as u32;
        if spells.replace(spell) != spell {
            begin_spell(proxy, spell);
        }
        running.get() > 0
    });
    answered.get() as f64 / began.elapsed().as_secs_f64()
}

/// Lets everybody else go on first.
async fn yield_now() {
    let mut has_waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn load<'a>(
    plan: &Plan,
    honest: &Honest,
    proxy: &'a Proxy,
    server: &'a mut Process,
    rate: u64,
) -> Result<(Tally, Watch<'a>), String> {
    let tally = Rc::new(Cell::new(Tally::default()));
    let bodies = Rc::new(Bodies::new());
    let seconds = (WARM_UP + plan.time).as_secs() as usize;
    let mut watch = Watch::new(proxy, server, plan.says_sizes, seconds);
    let progress = ProgressBar::new(seconds as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} s {msg}").expect("one"));
    let higher = (rate as f64 * WARM_UP_RATE) as u64;
    for (rate, time) in [(higher, WARM_UP), (rate, plan.time)] {
        watch.phase_from = watch.samples.len();
        let tick = || {
            progress.set_position(watch.began.elapsed().as_secs());
            progress.set_message(tally.get().to_string());
            progress.suspend(|| watch.tick())
        };
        honest.pace(rate, time, tick, |number| begin(honest, &bodies, &tally, number));
    }
    progress.finish_and_clear();
    honest.wait_while(PATIENCE, || tally.get().open() > 0);
    match watch.lost.take() {
        Some(error) => Err(error),
        None => Ok((tally.get(), watch)),
    }
}

/// Changes faults, and takes samples.
struct Watch<'a> {
    proxy: &'a Proxy,
    server: &'a mut Process,
    says_sizes: bool,
    began: Instant,
    spells: u32,
    next_spell: Instant,
    next_sample: Instant,
    next_sizes: Instant,
    samples: Vec<Sample>,
    /// The first of the run, when the warm-up is over.
    phase_from: usize,
    /// Why there are no more.
    lost: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(
        proxy: &'a Proxy,
        server: &'a mut Process,
        says_sizes: bool,
        seconds: usize,
    ) -> Watch<'a> {
        let began = Instant::now();
        // Touched now, so that this process does not grow by what it notes.
        let mut samples = vec![Sample::default(); seconds];
        samples.clear();
        Watch {
            proxy,
            server,
            says_sizes,
            began,
            spells: 0,
            next_spell: began,
            next_sample: began,
            next_sizes: began,
            samples,
            phase_from: 0,
            lost: None,
        }
    }

    /// Says whether to go on.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        if self.next_spell <= now {
            self.next_spell = now + SPELL;
            self.spells += 1;
            begin_spell(self.proxy, self.spells);
        }
        if self.next_sample <= now {
            self.next_sample = now + SAMPLE_EVERY;
            self.lost = self.sample(now).err();
        }
        self.lost.is_none()
    }

    fn sample(&mut self, now: Instant) -> Result<(), String> {
        let usage = [self.server.usage()?, Usage::of(std::process::id())?];
        let live = [self.server.live()?, Live::now()];
        let at_s = now.duration_since(self.began).as_secs_f64();
        let sample = Sample { at_s, usage, allocated: live.each_ref().map(|live| live.bytes) };
        if self.says_sizes && self.next_sizes <= now {
            self.next_sizes = now + SIZES_EVERY;
            print!("{}", sizes(&sample, &live));
        }
        self.samples.push(sample);
        Ok(())
    }
}

fn begin_spell(proxy: &Proxy, spell: u32) {
    proxy.set(faults_of(spell));
    // Connections keep what they began with.
    proxy.cut();
}

/// What the proxy does in a spell: half of the time nothing.
fn faults_of(spell: u32) -> Faults {
    let mut faults = Faults::default();
    match spell % SPELLS {
        1 => faults.delay = Some(Duration::from_millis(2)),
        3 => faults.chunk_bytes = Some(100),
        5 => faults.corrupt_one_in = Some(200_000),
        7 => faults.reset_within = Some(300_000),
        9 => faults.freeze = Some((100_000, Duration::from_secs(2))),
        11 => faults.bytes_per_s = Some(1),
        13 => {
            faults.delay = Some(Duration::from_micros(200));
            faults.chunk_bytes = Some(5000);
            faults.reset_within = Some(3_000_000);
        }
        _ => {}
    }
    faults
}

/// Begins one call of the mix, and counts its end.
fn begin(honest: &Honest, bodies: &Rc<Bodies>, tally: &Rc<Cell<Tally>>, number: u64) {
    let (victim, tally) = (Rc::clone(honest.victim()), Rc::clone(tally));
    let bodies = Rc::clone(bodies);
    let pause = honest.shard().sleep(Duration::from_millis(number % 20));
    honest.shard().spawn(async move {
        count(&tally, |tally| tally.begun += 1);
        match number % 20 {
            // Given up after some milliseconds, if there is no answer by then.
            0 => match unless(hold(&victim, 50, 1000), pause).await {
                Some(end) => count(&tally, |tally| tally.ended(&end)),
                None => count(&tally, |tally| tally.cancelled += 1),
            },
            // Too slow for their deadline.
            1 => {
                let end = hold(&victim, 100, 20).await;
                count(&tally, |tally| tally.ended(&end));
            }
            of_20 => match work(&victim, &bodies, of_20).await {
                Ok(false) => count(&tally, |tally| tally.error += 1),
                end => count(&tally, |tally| tally.ended(&end)),
            },
        }
    });
}

/// What is sent, made once: memory of whoever measures should not be what is measured.
struct Bodies([Bytes; 20]);

impl Bodies {
    fn new() -> Bodies {
        let body = |of_20| vec![of_20 as u8; if of_20 == 3 { 100_000 } else { 200 }].into();
        Bodies(std::array::from_fn(body))
    }
}

/// One of the calls that take as long as they take; whether the answer is what it should be.
async fn work(
    victim: &VictimClient<LocalClient>,
    bodies: &Bodies,
    of_20: u64,
) -> Result<bool, CallError> {
    if of_20 == 2 {
        return collect(victim).await.map(|()| true);
    }
    let body = &bodies.0[of_20 as usize];
    let answer = victim.echo(body).deadline(Duration::from_secs(1)).await?;
    Ok(answer[..] == body[..])
}

async fn hold(
    victim: &VictimClient<LocalClient>,
    hold_ms: u32,
    deadline_ms: u64,
) -> Result<(), CallError> {
    let body = Bytes::copy_from_slice(&hold_ms.to_le_bytes());
    victim.hold(&body).deadline(Duration::from_millis(deadline_ms)).await.map(drop)
}

/// A stream of ten items.
async fn collect(victim: &VictimClient<LocalClient>) -> Result<(), CallError> {
    let wanted = [10u32.to_le_bytes(), 1000u32.to_le_bytes()].concat();
    let mut items = victim.count(&wanted.into()).deadline(Duration::from_secs(1)).await?;
    while let Some(item) = items.next().await {
        item?;
    }
    Ok(())
}

/// What the first future gives, unless the second ends before.
async fn unless<T>(first: impl Future<Output = T>, second: impl Future) -> Option<T> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    std::future::poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => second.as_mut().poll(cx).map(|_| None),
    })
    .await
}

fn count(tally: &Cell<Tally>, change: impl FnOnce(&mut Tally)) {
    let mut counted = tally.get();
    change(&mut counted);
    tally.set(counted);
}

/// What the library itself says of its calls.
#[derive(Default)]
struct Told {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Observer for Told {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::CallBegun(..) => self.begun.fetch_add(1, Ordering::Relaxed),
            Event::CallEnded(..) => self.ended.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Prints how memory, descriptors and threads went, and says what is not flat.
fn trends(warm: &[Sample]) -> Vec<String> {
    let mut faults = Vec::new();
    println!(
        "| | resident MiB, at first … at last | MiB/h | allocated MiB | MiB/h | descriptors | threads |\n\
         |---|--:|--:|--:|--:|--:|--:|"
    );
    for (which, who) in WHO.into_iter().enumerate() {
        let memory = [
            ("resident", Trend::of(warm, |sample| sample.usage[which].resident)),
            ("allocated", Trend::of(warm, |sample| sample.allocated[which])),
        ];
        let counts = [
            ("descriptors", most(warm, |sample| sample.usage[which].descriptors)),
            ("threads", most(warm, |sample| sample.usage[which].threads)),
        ];
        let memory_cells = memory.each_ref().map(|(_, trend)| trend.to_string());
        let count_cells = counts.map(|(_, (first, last))| format!("{first} … {last}"));
        println!("| {who} | {} | {} |", memory_cells.join(" | "), count_cells.join(" | "));
        for (what, trend) in memory {
            if trend.mib_per_h > SLOPE_MAX_MIB_PER_H {
                let slope = trend.mib_per_h;
                faults.push(format!("{what} memory of the {who} grows by {slope:.2} MiB an hour"));
            }
        }
        for (what, (first, last)) in counts {
            // A connection that ends may overlap with the one that replaces it.
            if last > first + 2 {
                faults.push(format!("{what} of the {who} grow from {first} to {last}"));
            }
        }
    }
    faults
}

/// The most in the first quarter, and in the last.
fn most(samples: &[Sample], get: impl Fn(&Sample) -> u64) -> (u64, u64) {
    let quarter = samples.len().div_ceil(4);
    let most = |part: &[Sample]| part.iter().map(&get).max().unwrap_or(0);
    (most(&samples[..quarter]), most(&samples[samples.len() - quarter..]))
}

/// How memory goes.
struct Trend {
    mib: (f64, f64),
    mib_per_h: f64,
}

impl Trend {
    fn of(samples: &[Sample], get: impl Fn(&Sample) -> u64) -> Trend {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (first, last) = most(samples, &get);
        let points = samples.chunks_exact(ROUND_S).map(|round| {
            let least = round.iter().map(&get).min().unwrap_or(0);
            (round[0].at_s / 3600.0, mib(least))
        });
        let slope = slope(&points.collect::<Vec<_>>());
        Trend { mib: (mib(first), mib(last)), mib_per_h: slope }
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((first, last), slope) = (self.mib, self.mib_per_h);
        write!(f, "{first:.1} … {last:.1} | {slope:.2}")
    }
}

/// How much memory there is of which size.
fn sizes(sample: &Sample, live: &[Live; 2]) -> String {
    let mut text = String::new();
    for ((who, usage), live) in WHO.into_iter().zip(&sample.usage).zip(live) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = write!(
            text,
            "{:.0} s: {who}: {:.2} MiB resident, {:.2} allocated:",
            sample.at_s,
            mib(usage.resident),
            mib(live.bytes)
        );
        for (size, blocks, bytes) in &live.by_size {
            let _ = write!(text, " {size}: {blocks} ({} KiB),", bytes >> 10);
        }
        text.push('\n');
    }
    text
}

/// By least squares, of the least in each round of spells: what was lent for a moment does not count.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let above: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let below: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

/// Memory over time, as SVG.
fn picture(samples: &[Sample]) -> String {
    const WIDTH: f64 = 800.0;
    const HEIGHT: f64 = 240.0;
    let all = samples.iter().flat_map(|sample| sample.usage.iter().map(|usage| usage.resident));
    let most = all.max().unwrap_or(1) as f64 * 1.1;
    let last = samples.last().map_or(1.0, |sample| sample.at_s.max(1.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"4\" y=\"14\">{:.0} MiB</text><text x=\"{}\" y=\"{}\">{last:.0} s</text>\n",
        most / f64::from(1 << 20),
        WIDTH - 50.0,
        HEIGHT - 4.0
    );
    for (which, (who, colour)) in WHO.into_iter().zip(["#06c", "#c60"]).enumerate() {
        let points = samples.iter().map(|sample| {
            let (x, y) = (sample.at_s / last, sample.usage[which].resident as f64 / most);
            format!("{:.1},{:.1}", x * WIDTH, (1.0 - y) * HEIGHT)
        });
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"14\" fill=\"{colour}\">{who}</text>",
            100 + 80 * which
        );
    }
    svg + "</svg>\n"
}
