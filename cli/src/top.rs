//! `ringcall top`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringcall::{CallError, Failure, LocalClient, Shard, Status};
use ringcall_metrics::{CallsLook, ConnectionCounts, Count, InspectionClient, Look, quantile};
use serde_json::{Value, json};

use crate::args::Top;
use crate::connect::{connect_on, now, shard, since};
use crate::exit::{Exit, Problem};
use crate::reach::in_registry;
use crate::screen::Screen;
use crate::text::{one_line, time};

const METHOD: &str = "ringcall-metrics.Inspection/look";

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How soon an interruption is heard.
const LISTENS: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Top, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    if in_registry(&args.server.address).is_some() {
        return Err(Problem::misused("`top` is for one server, not for a service of a registry"));
    }
    let shard = shard(&args.server)?;
    let server = InspectionClient::new(connect_on(&shard, &args.server)?);
    let mut before = look(&shard, &server)?;
    if args.total {
        show(args, &before, &Done::of(&before, args.peers), before.counted_us, screen)?;
        return Ok(Exit::Done);
    }
    let interrupted = screen.on_interrupt()?;
    for _ in 0..args.times.unwrap_or(u32::MAX) {
        let start = now();
        while since(start) < args.every {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(Exit::Done);
            }
            let left = args.every.saturating_sub(since(start));
            shard.block_on(shard.sleep(left.min(LISTENS)));
        }
        let after = look(&shard, &server)?;
        let mut done = Done::of(&after, args.peers);
        let interval = match after.counted_us.checked_sub(before.counted_us) {
            Some(interval) => {
                done.take_off(&Done::of(&before, args.peers));
                interval
            }
            // It was started again, and counts anew.
            None => after.counted_us,
        };
        show(args, &after, &done, interval, screen)?;
        before = after;
    }
    Ok(Exit::Done)
}

fn look(shard: &Shard, server: &InspectionClient<LocalClient>) -> Result<Look, Problem> {
    let looked = shard.block_on(async { server.look().deadline(DEADLINE).await });
    looked.map(|look| look.to_owned()).map_err(|error| match error {
        CallError::Failed(failure) => failed(failure),
        CallError::App(never) => match never {},
    })
}

fn failed(failure: Failure) -> Problem {
    if failure.status() != Some(Status::UNKNOWN_METHOD) {
        return Problem::call(METHOD, failure);
    }
    let text = "the server does not say what it does: have it counted by `ringcall_metrics::Metrics`, and add \
                `.observer(metrics.observer()).service(metrics.inspector().into_inspection())` to it";
    Problem::Failed { text: text.to_owned(), failure: Some(failure) }
}

// ---- what was done ----

/// Of methods, or of methods and peers.
#[derive(Default)]
struct Done(BTreeMap<Of, Counted>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    method: String,
    is_served: bool,
    /// Empty if all of them are one.
    peer: String,
}

#[derive(Clone, Default)]
struct Counted {
    begun: u64,
    ok: u64,
    application: u64,
    failed: u64,
    request_bytes: u64,
    reply_bytes: u64,
    /// How many have begun and not ended, which is no count of a time.
    under_way: u64,
    /// How many took less than so many microseconds, and not less than the one before.
    latency: BTreeMap<u64, u64>,
}

impl Done {
    fn of(look: &Look, peers: bool) -> Done {
        let mut done = Done::default();
        for calls in &look.calls {
            let peer = if peers { calls.peer.clone() } else { String::new() };
            let of = Of { method: calls.method.clone(), is_served: calls.is_served, peer };
            done.0.entry(of).or_default().add(calls);
        }
        done
    }

    /// What of it was done before.
    fn take_off(&mut self, before: &Done) {
        for (of, counted) in &mut self.0 {
            if let Some(before) = before.0.get(of) {
                counted.take_off(before);
            }
        }
    }

    /// Those that have done most first; of those that have done nothing, those that something is under way of.
    fn sorted(&self) -> Vec<(&Of, &Counted)> {
        let is_of_interest = |(_, counted): &(&Of, &Counted)| {
            counted.begun + counted.ended() + counted.under_way > 0
        };
        let mut all: Vec<_> = self.0.iter().filter(is_of_interest).collect();
        all.sort_by_key(|(_, counted)| std::cmp::Reverse((counted.ended(), counted.under_way)));
        all
    }
}

impl Counted {
    fn add(&mut self, calls: &CallsLook) {
        let failed = calls.not_sent + calls.refused + calls.unknown;
        self.begun += calls.begun;
        self.ok += calls.ok;
        self.application += calls.application;
        self.failed += failed;
        self.request_bytes += calls.request_bytes;
        self.reply_bytes += calls.reply_bytes;
        self.under_way += calls.begun.saturating_sub(calls.ok + calls.application + failed);
        for bucket in &calls.latency.buckets {
            *self.latency.entry(bucket.below_us).or_default() += bucket.count;
        }
    }

    fn take_off(&mut self, before: &Counted) {
        let counts = [
            (&mut self.begun, before.begun),
            (&mut self.ok, before.ok),
            (&mut self.application, before.application),
            (&mut self.failed, before.failed),
            (&mut self.request_bytes, before.request_bytes),
            (&mut self.reply_bytes, before.reply_bytes),
        ];
        for (count, before) in counts {
            *count = count.saturating_sub(before);
        }
        for (below_us, count) in &mut self.latency {
            *count = count.saturating_sub(before.latency.get(below_us).copied().unwrap_or(0));
        }
    }

    fn ended(&self) -> u64 {
        self.ok + self.application + self.failed
    }

    /// What so many of those that have ended did not exceed; nothing of none.
    fn quantile(&self, part: f64) -> Option<Duration> {
        quantile(self.latency.iter().map(|(below_us, count)| (*below_us, *count)), part)
    }
}

// ---- how it is shown ----

fn show(
    args: &Top,
    look: &Look,
    done: &Done,
    interval_us: u64,
    screen: &mut Screen<'_>,
) -> Result<(), Problem> {
    if args.server.json {
        screen.json_line(&as_json(look, done, interval_us))?;
        return Ok(screen.flush()?);
    }
    if !args.total {
        screen.clear()?;
    }
    let counted = Duration::from_secs(look.counted_us / 1_000_000);
    let mut title = format!(
        "{}  counted for {}  {}",
        one_line(&args.server.address),
        humantime::format_duration(counted),
        connections(look)
    );
    if look.turned_away > 0 {
        title += &format!("  {} turned away", look.turned_away);
    }
    screen.line(&title)?;
    for line in table(args, done, interval_us) {
        screen.line(&line)?;
    }
    if look.left_out > 0 {
        screen
            .line(&format!("and {} methods and peers that the server leaves out", look.left_out))?;
    }
    Ok(screen.flush()?)
}

fn connections(look: &Look) -> String {
    let of = |connections: &ConnectionCounts, what: &str| match connections.open {
        1 => format!("1 connection {what}"),
        open => format!("{open} connections {what}"),
    };
    match look.opened.total {
        0 => of(&look.accepted, "accepted"),
        _ => format!("{}, {}", of(&look.accepted, "accepted"), of(&look.opened, "opened")),
    }
}

/// Lines of columns, all of which but the last are as wide as they have to be.
fn table(args: &Top, done: &Done, interval_us: u64) -> Vec<String> {
    let rate = if args.total { ["calls", "in", "out"] } else { ["calls/s", "in/s", "out/s"] };
    let [calls, bytes_in, bytes_out] = rate.map(str::to_owned);
    let head = ["under way", "errors", "failed", "p50", "p99", "p99.9"].map(str::to_owned);
    let mut rows =
        vec![[&[calls][..], &head, &[bytes_in, bytes_out, "method".to_owned()]].concat()];
    let seconds = if args.total { 1.0 } else { (interval_us as f64 / 1e6).max(1e-6) };
    let all = done.sorted();
    rows.extend(all.iter().take(args.rows).map(|(of, counted)| row(of, counted, seconds)));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let (last, columns) = row.split_last().expect("a row has columns");
        let padded = columns.iter().zip(&widths).map(|(text, width)| format!("{text:>width$}  "));
        padded.collect::<String>() + last
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    match all.len().saturating_sub(args.rows) {
        0 if all.is_empty() => lines.push("nothing was called".to_owned()),
        0 => {}
        more => lines.push(format!("and {more} more: `--rows`")),
    }
    lines
}

fn row(of: &Of, counted: &Counted, seconds: f64) -> Vec<String> {
    let ended = counted.ended();
    let share = |count: u64| match ended {
        0 => "-".to_owned(),
        ended => format!("{:.1} %", count as f64 * 100.0 / ended as f64),
    };
    let quantile = |part| counted.quantile(part).map_or("-".to_owned(), time);
    let who = match (of.is_served, &*of.peer) {
        (true, "") => String::new(),
        (true, peer) => format!("  from {}", one_line(peer)),
        (false, "") => "  called".to_owned(),
        (false, peer) => format!("  called at {}", one_line(peer)),
    };
    vec![
        number(ended as f64 / seconds),
        counted.under_way.to_string(),
        share(counted.application),
        share(counted.failed),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        bytes(counted.request_bytes as f64 / seconds),
        bytes(counted.reply_bytes as f64 / seconds),
        format!("{}{who}", one_line(&of.method)),
    ]
}

/// With a digit behind the point if it is small.
fn number(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

fn as_json(look: &Look, done: &Done, interval_us: u64) -> Value {
    let seconds = (interval_us as f64 / 1e6).max(1e-6);
    let us = |time: Option<Duration>| time.map(|time| time.as_micros() as u64);
    let methods = done.sorted().into_iter().map(|(of, counted)| {
        json!({
            "method": of.method, "served": of.is_served, "peer": of.peer,
            "calls": counted.ended(), "calls_per_s": counted.ended() as f64 / seconds,
            "under_way": counted.under_way,
            "application": counted.application, "failed": counted.failed,
            "p50_us": us(counted.quantile(0.5)), "p99_us": us(counted.quantile(0.99)),
            "p999_us": us(counted.quantile(0.999)),
            "request_bytes": counted.request_bytes, "reply_bytes": counted.reply_bytes,
        })
    });
    let counts = |counts: &[Count]| -> Value {
        counts
            .iter()
            .map(|count| (count.name.clone(), count.count.into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let sources = look.sources.iter().map(|source| (source.name.clone(), counts(&source.counts)));
    json!({
        "counted_us": look.counted_us, "interval_us": interval_us,
        "accepted": look.accepted.open, "opened": look.opened.open, "turned_away": look.turned_away,
        "methods": methods.collect::<Vec<_>>(),
        "counters": counts(&look.counters),
        "sources": sources.collect::<serde_json::Map<_, _>>(),
    })
}
