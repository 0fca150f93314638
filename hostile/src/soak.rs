//! A long run through the proxy: every call ends, and nothing grows.
#![expect(clippy::disallowed_methods, reason = "says when things were as they were")]

use std::cell::Cell;
use std::fmt::Write as _;
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
use ringcall_hostile::process::{Process, Usage};
use ringcall_hostile::proxy::{Faults, Proxy};
use ringcall_hostile::victim::{Setting, VictimClient};

/// How long the proxy does the same.
const SPELL: Duration = Duration::from_secs(4);
const SPELLS: u32 = 14;
const ROUND_S: usize = SPELLS as usize * SPELL.as_secs() as usize;
/// This part of the run is not looked at.
const WARM_UP: f64 = 0.2;
const SLOPE_MAX_MIB_PER_H: f64 = 1.0;
/// Nobody waits longer for the last calls.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// On each engine.
    pub(crate) time: Duration,
    /// Of the most that goes through the proxy without faults,
    pub(crate) share: f64,
    /// unless it is said how many calls a second.
    pub(crate) calls_per_s: Option<u64>,
    pub(crate) engines: Vec<TransportChoice>,
    pub(crate) seed: u64,
    /// Where a picture of memory goes, `NAME-engine.svg`.
    pub(crate) picture: Option<String>,
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
        }
    }
}

/// What was seen in a second.
struct Sample {
    at_s: f64,
    /// Of the server, and of this process: the client and the proxy.
    usage: [Usage; 2],
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
    let rate = plan.calls_per_s.unwrap_or_else(|| (peak(&honest) * plan.share) as u64).max(1);
    let (tally, samples) = load(plan, &honest, &proxy, &mut server, rate)?;

    println!(
        "{engine}: {rate} calls/s for {} s; {} connections",
        plan.time.as_secs(),
        proxy.made()
    );
    println!("{tally}");
    let mut faults = trends(&samples);
    if tally.open() != 0 {
        faults.push(format!("{} calls have not ended", tally.open()));
    }
    let (begun, ended) = (told.begun.load(Ordering::Relaxed), told.ended.load(Ordering::Relaxed));
    if begun != ended {
        faults.push(format!("observers are told of {begun} calls, and of {ended} ends"));
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

/// Calls a second with 64 in flight and no faults, of those of the mix that do not wait for a clock.
fn peak(honest: &Honest) -> f64 {
    const CALLERS: u64 = 64;
    let (began, time) = (Instant::now(), Duration::from_secs(3));
    let (answered, running) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(CALLERS)));
    for _ in 0..CALLERS {
        let (victim, answered) = (Rc::clone(honest.victim()), Rc::clone(&answered));
        let running = Rc::clone(&running);
        honest.shard().spawn(async move {
            for number in 2.. {
                if began.elapsed() > time
                    || !work(&victim, 2 + number % 18).await.is_ok_and(|is| is)
                {
                    break;
                }
                answered.set(answered.get() + 1);
            }
            running.set(running.get() - 1);
        });
    }
    honest.wait_while(time * 2, || running.get() > 0);
    answered.get() as f64 / began.elapsed().as_secs_f64()
}

fn load(
    plan: &Plan,
    honest: &Honest,
    proxy: &Proxy,
    server: &mut Process,
    rate: u64,
) -> Result<(Tally, Vec<Sample>), String> {
    let progress = ProgressBar::new(plan.time.as_secs());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} s {msg}").expect("one"));
    let tally = Rc::new(Cell::new(Tally::default()));
    let (began, mut samples, mut spells) = (Instant::now(), Vec::new(), 0);
    let mut lost = None;
    let tick = || {
        let passed = began.elapsed();
        if passed >= SPELL * spells {
            spells += 1;
            proxy.set(faults_of(spells));
            // Connections keep what they began with.
            proxy.cut();
        }
        if passed.as_secs() as usize >= samples.len() {
            progress.set_position(passed.as_secs());
            progress.set_message(tally.get().to_string());
            match (server.usage(), Usage::of(std::process::id())) {
                (Ok(of_server), Ok(own)) => {
                    let usage = [of_server, own];
                    samples.push(Sample { at_s: passed.as_secs_f64(), usage });
                }
                (Err(error), _) | (_, Err(error)) => lost = Some(error),
            }
        }
        lost.is_none()
    };
    honest.pace(rate, plan.time, tick, |number| {
        begin(honest, &tally, number);
    });
    progress.finish_and_clear();
    if let Some(error) = lost {
        return Err(error);
    }
    honest.wait_while(PATIENCE, || tally.get().open() > 0);
    Ok((tally.get(), samples))
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
fn begin(honest: &Honest, tally: &Rc<Cell<Tally>>, number: u64) {
    let (victim, tally) = (Rc::clone(honest.victim()), Rc::clone(tally));
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
            of_20 => match work(&victim, of_20).await {
                Ok(false) => count(&tally, |tally| tally.error += 1),
                end => count(&tally, |tally| tally.ended(&end)),
            },
        }
    });
}

/// One of the calls that take as long as they take; whether the answer is what it should be.
async fn work(victim: &VictimClient<LocalClient>, of_20: u64) -> Result<bool, CallError> {
    if of_20 == 2 {
        return collect(victim).await.map(|()| true);
    }
    let body = Bytes::from(vec![of_20 as u8; if of_20 == 3 { 100_000 } else { 200 }]);
    let answer = victim.echo(&body).deadline(Duration::from_secs(1)).await?;
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
fn trends(samples: &[Sample]) -> Vec<String> {
    let warm = &samples[(samples.len() as f64 * WARM_UP) as usize..];
    let mut faults = Vec::new();
    println!(
        "| | memory MiB, at first … at last | MiB/h | descriptors | threads |\n|---|--:|--:|--:|--:|"
    );
    for (which, who) in WHO.into_iter().enumerate() {
        let of = |get: fn(&Usage) -> u64| {
            let quarter = warm.len().div_ceil(4);
            let most = |part: &[Sample]| part.iter().map(|it| get(&it.usage[which])).max();
            let (first, last) = (&warm[..quarter.min(warm.len())], &warm[warm.len() - quarter..]);
            (most(first).unwrap_or(0), most(last).unwrap_or(0))
        };
        let memory = of(|usage| usage.resident);
        let (files, threads) = (of(|usage| usage.descriptors), of(|usage| usage.threads));
        let slope = slope_mib_per_h(warm, which);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "| {who} | {:.1} … {:.1} | {slope:.2} | {} … {} | {} … {} |",
            mib(memory.0),
            mib(memory.1),
            files.0,
            files.1,
            threads.0,
            threads.1
        );
        if slope > SLOPE_MAX_MIB_PER_H {
            faults.push(format!("memory of the {who} grows by {slope:.2} MiB an hour"));
        }
        for (what, (first, last)) in [("descriptors", files), ("threads", threads)] {
            // A connection that ends may overlap with the one that replaces it.
            if last > first + 2 {
                faults.push(format!("{what} of the {who} grow from {first} to {last}"));
            }
        }
    }
    faults
}

/// By least squares, of the least in each round of spells: what was lent for a moment does not count.
fn slope_mib_per_h(samples: &[Sample], which: usize) -> f64 {
    let least = |part: &[Sample]| {
        let resident = part.iter().map(|it| it.usage[which].resident).min().unwrap_or(0);
        (part[0].at_s / 3600.0, resident as f64 / f64::from(1 << 20))
    };
    let points: Vec<(f64, f64)> = samples.chunks(ROUND_S).map(least).collect();
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
