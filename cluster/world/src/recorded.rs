//! The calls of a world, kept in a file: those that a world here was offered, or those of a service somewhere.
//!
//! ```text
//! ringcall trace 1
//! # Three servers that work on 4, 4 and 2 calls at a time. A call of cost 1 takes 1 ms there.
//! servers 4 4 2
//! service_ms 1
//! time_s,cost
//! 1732845259.123456,0.8
//! 1732845259.125,3.25
//! ```
//!
//! `docs/CLUSTER.md` says what else there may be. A text, so that anything that has a log can write one.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use crate::scenarios::{ALL, Scenario};
use crate::trace::{Offered, Trace};
use crate::world::{BEGIN, DEADLINE};
use crate::{Plan, World};

/// The first line, with the version of what follows.
const FIRST: &str = "ringcall trace 1";
const COLUMNS: [&str; 6] = ["time_s", "client", "cost", "key", "once", "large"];
/// The longest line, in bytes; for a list of servers it is the longest of all.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// What is read is kept, forty bytes a call.
const CALLS_MAX: usize = 5_000_000;
const SECONDS_MAX: u64 = 3600;
const SERVERS_MAX: usize = 1000;
/// Each client knows each server.
const PAIRS_MAX: usize = 200_000;

/// Calls, and where they are made.
#[derive(Clone, Debug)]
pub struct Recorded {
    stage: Stage,
    /// The calls.
    pub trace: Trace,
}

/// Where calls are made.
#[derive(Clone, Debug)]
enum Stage {
    /// In a world to which something happens; by clients with this seed.
    Scripted(Scenario, u64),
    /// Where nothing happens but the calls.
    Plain(Box<Plan>),
}

impl Stage {
    fn plan(&self) -> Plan {
        match self {
            Stage::Scripted(scenario, seed) => Plan { seed: *seed, ..scenario.plan() },
            Stage::Plain(plan) => Plan::clone(plan),
        }
    }
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTrace {
    /// In which line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl fmt::Display for BadTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for BadTrace {}

impl Recorded {
    /// Runs a world, by chance of its own or of another seed.
    #[must_use]
    pub fn of(scenario: &Scenario, seed: Option<u64>) -> Recorded {
        let plan = scenario.plan();
        let seed = seed.unwrap_or(plan.seed);
        let trace = scenario.run_as(&Plan { seed, ..plan }).into_trace();
        Recorded { stage: Stage::Scripted(*scenario, seed), trace }
    }

    /// What it is called, and what happens.
    #[must_use]
    pub fn name(&self) -> (&'static str, &'static str) {
        match &self.stage {
            Stage::Scripted(scenario, _) => (scenario.name, scenario.about),
            Stage::Plain(_) => ("trace", "nothing happens but the calls"),
        }
    }

    /// How large its world is, and how its clients decide.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.stage.plan()
    }

    /// The calls, offered to clients of this plan.
    #[must_use]
    pub fn replay(&self, plan: &Plan) -> World {
        let trace = Arc::clone(&self.trace);
        match &self.stage {
            Stage::Scripted(scenario, _) => scenario.replay(plan, trace),
            Stage::Plain(_) => {
                let last = trace.last().map_or(BEGIN, |offered| offered.at);
                let mut world = World::replayed(plan, trace);
                world.run((last.since(BEGIN) + DEADLINE).as_secs() + 1);
                world
            }
        }
    }

    /// Writes it as [`read`](Recorded::read) reads it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        writeln!(out, "{FIRST}")?;
        match &self.stage {
            Stage::Scripted(scenario, seed) => {
                writeln!(out, "world {}\nseed {seed}", scenario.name)?;
            }
            Stage::Plain(plan) => {
                let workers: Vec<String> = plan.workers.iter().map(u32::to_string).collect();
                let service_ms = plan.service.as_secs_f64() * 1000.0;
                writeln!(out, "servers {}\nservice_ms {service_ms}", workers.join(" "))?;
                writeln!(out, "clients {}\nseed {}", plan.clients, plan.seed)?;
            }
        }
        writeln!(out, "{}", COLUMNS.join(","))?;
        for Offered { at, client, cost, key, runs_once, is_large } in self.trace.iter() {
            let ns = at.since(BEGIN).as_nanos();
            let (seconds, ns) = (ns / 1_000_000_000, ns % 1_000_000_000);
            let (once, large) = (u8::from(*runs_once), u8::from(*is_large));
            writeln!(out, "{seconds}.{ns:09},{client},{cost},{key},{once},{large}")?;
        }
        out.flush()
    }

    /// Reads a trace: 5 000 000 calls in an hour at most, by up to 1000 servers, with clients times servers up to 200 000.
    ///
    /// # Errors
    /// The first line that makes no sense, or cannot be read.
    pub fn read(mut input: impl BufRead) -> Result<Recorded, BadTrace> {
        let mut reading = Reading::default();
        let mut line = Vec::new();
        for number in 1.. {
            let bad = |what: String| BadTrace { line: number, what };
            line.clear();
            let mut limited = (&mut input).take(LINE_BYTES_MAX);
            limited.read_until(b'\n', &mut line).map_err(|error| bad(error.to_string()))?;
            if line.is_empty() {
                return reading.end().map_err(bad);
            }
            if line.len() as u64 == LINE_BYTES_MAX {
                return Err(bad("it is longer than 16 KiB".to_owned()));
            }
            let text = str::from_utf8(&line).map_err(|_| bad("it is no UTF-8".to_owned()))?;
            reading.line(text.trim(), number == 1).map_err(bad)?;
        }
        unreachable!("numbers of lines do not end")
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    world: Option<Scenario>,
    seed: Option<u64>,
    clients: Option<usize>,
    servers: Vec<u32>,
    service: Option<Duration>,
    /// Once it is known which columns there are, in which order: where calls are made.
    stage: Option<(Vec<usize>, Stage)>,
    /// Of that stage.
    stage_clients: usize,
    calls: Vec<Offered>,
    /// The first call's time, if times are counted from it.
    origin_ns: u64,
}

impl Reading {
    fn line(&mut self, line: &str, is_first: bool) -> Result<(), String> {
        match is_first {
            true if line == FIRST => Ok(()),
            true => Err(format!("a trace begins with a line that says {FIRST:?}")),
            false if line.is_empty() || line.starts_with('#') => Ok(()),
            false if self.stage.is_some() => self.call(line),
            false if line.split(',').any(|name| name.trim() == COLUMNS[0]) => self.columns(line),
            false => self.head(line),
        }
    }

    /// A line before those of calls.
    fn head(&mut self, line: &str) -> Result<(), String> {
        let (word, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim();
        match word {
            "world" => {
                let found = ALL.into_iter().find(|scenario| scenario.name == value);
                self.world = Some(found.ok_or_else(|| {
                    let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
                    format!("there is no world {value:?}; there are {}", names.join(", "))
                })?);
            }
            "seed" => self.seed = Some(number(word, value, 0, u64::MAX)?),
            "clients" => self.clients = Some(number(word, value, 1, PAIRS_MAX as u64)? as usize),
            "servers" => {
                let workers = value.split_whitespace().map(|it| number(word, it, 1, 10_000));
                let workers = workers.map(|it| it.map(|workers| workers as u32));
                self.servers = workers.collect::<Result<_, _>>()?;
            }
            "service_ms" => {
                let ms: f64 = value.parse().unwrap_or(f64::NAN);
                if !(0.001..=10_000.0).contains(&ms) {
                    return Err(format!("service_ms is {value:?}, and must be 0.001 to 10000"));
                }
                self.service = Some(Duration::from_secs_f64(ms / 1000.0));
            }
            _ => {
                return Err(format!(
                    "{word:?} is not known: before the line with the columns there are world, seed, clients, servers, service_ms"
                ));
            }
        }
        Ok(())
    }

    /// The line that says which columns there are: all has been said of where calls are made.
    fn columns(&mut self, line: &str) -> Result<(), String> {
        let mut columns = Vec::new();
        for name in line.split(',').map(str::trim) {
            let column = COLUMNS.iter().position(|column| *column == name);
            let column = column.filter(|column| !columns.contains(column));
            columns.push(column.ok_or_else(|| {
                format!("the columns are {}, each once; {name:?} is another", COLUMNS.join(", "))
            })?);
        }
        let is_sized = self.clients.is_some() || self.service.is_some() || !self.servers.is_empty();
        let stage = match self.world {
            Some(_) if is_sized => {
                return Err("a world has clients, servers and a service_ms of its own".to_owned());
            }
            Some(world) => Stage::Scripted(world, self.seed.unwrap_or(world.plan().seed)),
            None => Stage::Plain(Box::new(self.plain()?)),
        };
        self.stage_clients = stage.plan().clients;
        self.stage = Some((columns, stage));
        Ok(())
    }

    /// A world of this size.
    fn plain(&self) -> Result<Plan, String> {
        let clients = self.clients.unwrap_or(1);
        let servers = &self.servers;
        if servers.is_empty() || servers.len() > SERVERS_MAX {
            return Err(format!(
                "say on how many calls each server works at a time, of 1 to {SERVERS_MAX} servers: \
                 servers 4 4 2; or which world it is: world even"
            ));
        }
        if clients * servers.len() > PAIRS_MAX {
            return Err(format!("clients times servers must be {PAIRS_MAX} at most"));
        }
        let plan = Plan::of(clients, servers.iter().copied(), 0.5);
        let service = self.service.unwrap_or(Duration::from_millis(1));
        Ok(Plan { service, seed: self.seed.unwrap_or(plan.seed), ..plan })
    }

    fn call(&mut self, line: &str) -> Result<(), String> {
        let Some((columns, stage)) = &self.stage else { return Ok(()) };
        let (index, clients) = (self.calls.len(), self.stage_clients);
        if index == CALLS_MAX {
            return Err(format!("there are more than {CALLS_MAX} calls: take a part of them"));
        }
        // What is not said.
        let (mut ns, mut client, mut cost) = (0, (index % clients) as u64, 1.0);
        let (mut key, mut once, mut large) = (index as u64, 0, 0);
        let mut values = line.split(',');
        for column in columns {
            let value = values.next().ok_or("it has fewer values than there are columns")?.trim();
            let name = COLUMNS[*column];
            match name {
                "time_s" => ns = nanos(value)?,
                "client" => client = number(name, value, 0, clients as u64 - 1)?,
                "cost" => cost = self::cost(value)?,
                "key" => key = number(name, value, 0, u64::MAX)?,
                "once" => once = number(name, value, 0, 1)?,
                _ => large = number(name, value, 0, 1)?,
            }
        }
        if values.next().is_some() {
            return Err("it has more values than there are columns".to_owned());
        }
        if index == 0 && matches!(stage, Stage::Plain(_)) {
            self.origin_ns = ns;
        }
        let since = ns.checked_sub(self.origin_ns).map(|ns| BEGIN + Duration::from_nanos(ns));
        let before = self.calls.last().map_or(BEGIN, |before| before.at);
        let at = since.filter(|at| *at >= before);
        let at: Instant = at.ok_or("it is earlier than the one before: sort them by time")?;
        if at.since(BEGIN).as_secs() >= SECONDS_MAX {
            return Err(format!("it is later than {SECONDS_MAX} s: take a part of the calls"));
        }
        let (runs_once, is_large) = (once == 1, large == 1);
        self.calls.push(Offered { at, client: client as u32, cost, key, runs_once, is_large });
        Ok(())
    }

    fn end(self) -> Result<Recorded, String> {
        let Some((_, stage)) = self.stage else {
            return Err(
                "there are no calls: a line says which columns there are, such as time_s,cost, \
                        and each call is a line behind it"
                    .to_owned(),
            );
        };
        if self.calls.is_empty() {
            return Err("there are no calls".to_owned());
        }
        Ok(Recorded { stage, trace: Arc::new(self.calls) })
    }
}

fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{name} is {text:?}, and must be a number from {least} to {most}"))
}

fn cost(text: &str) -> Result<f32, String> {
    let cost = text.parse().ok().filter(|cost| (0.0..=1e6).contains(cost));
    cost.ok_or_else(|| format!("cost is {text:?}, and must be 0 to 1000000"))
}

/// A time in seconds, with up to nine digits behind the point, in nanoseconds: exactly, since a trace is to be the same
/// when it is read.
fn nanos(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_part = part.len() <= 9 && part.bytes().all(|digit| digit.is_ascii_digit());
    let whole = whole.parse::<u64>().ok().filter(|_| is_part);
    let part = format!("{part:0<9}").parse::<u64>().ok();
    let ns = whole
        .zip(part)
        .and_then(|(whole, part)| whole.checked_mul(1_000_000_000)?.checked_add(part));
    ns.ok_or_else(|| {
        format!("time_s is {text:?}, and must be seconds with up to nine digits behind the point")
    })
}
