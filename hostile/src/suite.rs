//! Every attack against every engine, and what an honest client notices of it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ringcall::TransportChoice;
use ringcall_hostile::attackers::{Attack, Attackers, Manner, Seen};
use ringcall_hostile::honest::{Honest, Measured, Tally};
use ringcall_hostile::process::Process;
use ringcall_hostile::victim::{Setting, pin};

use crate::group::Group;

/// The attack whose connections do nothing, beside which the baseline is measured.
const AT_REST: &str = "silent_after_hello";
const EVERYTHING: &str = "everything";
/// How much slower an honest call may be.
const SLOWER_MAX: f64 = 5.0;
const SERVER_CORE: usize = 0;
const OTHER_CORE: usize = 1;
/// Attackers have connected by then.
const WARM_UP: Duration = Duration::from_secs(1);
/// Descriptors are back by then.
const SETTLED: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Of each attack alone.
    pub(crate) seconds: u64,
    /// Of all of them at once.
    pub(crate) seconds_everything: u64,
    pub(crate) connections: u64,
    /// Of the server.
    pub(crate) memory_max: u64,
    /// Of the honest client, calls a second.
    pub(crate) rate: u64,
    pub(crate) engines: Vec<TransportChoice>,
    /// All, if none is named.
    pub(crate) only: Vec<String>,
    /// Whether being slow is a failure.
    pub(crate) is_strict: bool,
    /// Whether time is looked at.
    pub(crate) is_timed: bool,
    pub(crate) seed: u64,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            // Some are closed after ten seconds in which nothing comes of them, and must be.
            seconds: 15,
            seconds_everything: 60,
            connections: 1000,
            memory_max: 256 << 20,
            rate: 1000,
            engines: vec![TransportChoice::Epoll, TransportChoice::Uring],
            only: Vec::new(),
            is_strict: false,
            is_timed: true,
            seed: 1,
        }
    }
}

/// What became of one attack on one engine.
struct Row {
    attack: String,
    engine: String,
    /// What must not happen, and did.
    faults: Vec<String>,
    peak: u64,
    measured: Option<Measured>,
    seen: Option<Seen>,
    /// p99 over that of the baseline.
    slower: Option<f64>,
}

impl Row {
    fn is_slow(&self) -> bool {
        self.slower.is_some_and(|slower| slower > SLOWER_MAX)
            || self.measured.as_ref().is_some_and(|measured| measured.tally.timeout > 0)
    }
}

/// Runs the plan and prints its table.
pub(crate) fn run(plan: &Plan) -> Result<(), String> {
    pin(OTHER_CORE).map_err(|error| error.to_string())?;
    println!("{}", confinement(plan.memory_max));
    let all = Attack::all()?;
    let unknown = plan.only.iter().find(|name| all.iter().all(|attack| attack.name != **name));
    if let Some(name) = unknown {
        return Err(format!("no attack is called {name}"));
    }
    let is_chosen = |attack: &&Attack| plan.only.is_empty() || plan.only.contains(&attack.name);
    let attacks: Vec<&Attack> = all.iter().filter(is_chosen).collect();
    let progress = ProgressBar::new((attacks.len() * plan.engines.len()) as u64);
    let style = "{bar:30} {pos}/{len} {elapsed} {msg}";
    progress.set_style(ProgressStyle::with_template(style).expect("a template"));
    let mut rows = Vec::new();
    for &engine in &plan.engines {
        let mut baseline = None;
        if plan.is_timed {
            progress.set_message(format!("{engine}, at rest"));
            let row = attempt(plan, engine, AT_REST, plan.seconds.min(12));
            baseline = row.measured.as_ref().map(|measured| measured.micros(0.99));
            rows.push(Row { attack: "(at rest)".to_owned(), ..row });
        }
        for attack in &attacks {
            progress.set_message(format!("{engine}, {}", attack.name));
            rows.push(judged(plan, engine, attack, baseline));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    println!("{}", table(&rows));
    verdict(plan, &rows)
}

fn confinement(memory_max: u64) -> String {
    let mib = memory_max >> 20;
    match Group::new(memory_max) {
        Some((_, kind)) => format!("server in a control group ({kind}) of {mib} MiB"),
        None => format!("no control group can be made: resident memory is held to {mib} MiB"),
    }
}

fn judged(plan: &Plan, engine: TransportChoice, attack: &Attack, baseline: Option<f64>) -> Row {
    let is_everything = attack.name == EVERYTHING;
    let seconds = if is_everything { plan.seconds_everything } else { plan.seconds };
    let mut row = attempt(plan, engine, &attack.name, seconds);
    if let Some(seen) = &row.seen {
        let missing = attack.codes_missing(seen, seconds);
        if !missing.is_empty() {
            row.faults.push(format!("never closed with {missing:?}"));
        }
    }
    let p99 = row.measured.as_ref().map(|measured| measured.micros(0.99));
    row.slower = p99.zip(baseline).map(|(p99, baseline)| p99 / baseline);
    row
}

/// One attack on a server of its own.
fn attempt(plan: &Plan, engine: TransportChoice, attack: &str, seconds: u64) -> Row {
    let mut row = Row {
        attack: attack.to_owned(),
        engine: engine.to_string(),
        faults: Vec::new(),
        peak: 0,
        measured: None,
        seen: None,
        slower: None,
    };
    if let Err(fault) = attempt_into(&mut row, plan, engine, attack, seconds) {
        row.faults.push(fault);
    }
    row
}

fn attempt_into(
    row: &mut Row,
    plan: &Plan,
    engine: TransportChoice,
    attack: &str,
    seconds: u64,
) -> Result<(), String> {
    let group = Group::new(plan.memory_max).map(|(group, _)| group);
    let mut setting = Setting::default();
    setting.core = Some(SERVER_CORE);
    setting.group = group.as_ref().map(Group::entrance);
    let mut server = Process::start(&program()?, engine, &setting)?;
    let honest = Honest::connect(server.address(), engine)?;
    honest.run(plan.rate, WARM_UP / 4, || true);
    let before = server.usage()?;

    let manner = Manner {
        connections: plan.connections,
        seconds: seconds + WARM_UP.as_secs(),
        seed: plan.seed,
        is_idle: plan.is_timed,
    };
    let mut attackers = Attackers::start(attack, server.address(), manner)?;
    honest.run(plan.rate, WARM_UP, || true);
    let time = Duration::from_secs(seconds + 20);
    let measured = honest.run(plan.rate, time, || server.is_alive() && !attackers.is_over());
    // That a deadline of seconds passes is hardly a matter of how fast the machine is.
    let Tally { begun, error, timeout, .. } = measured.tally;
    if error > 0 || timeout * 100 > begun || measured.tally.open() != 0 {
        row.faults.push(format!("honest calls: {}", measured.tally));
    }
    row.measured = Some(measured);
    let seen = attackers.seen()?;
    row.faults.extend(seen.violations.iter().map(|(what, count)| format!("{count} × {what}")));
    row.seen = Some(seen);

    row.peak = server.usage()?.resident_max;
    match group.as_ref().and_then(Group::peak) {
        // Beyond its limit it would not be alive.
        Some(peak) => row.peak = row.peak.max(peak),
        None if row.peak > plan.memory_max => {
            row.faults.push(format!("{} MiB resident", row.peak >> 20));
        }
        None => {}
    }
    row.faults.extend(aftermath(plan, &mut server, &honest, before.descriptors));
    drop(honest);
    let panics = server.stop()?.incidents.get("panics").copied().unwrap_or(0);
    if panics > 0 {
        row.faults.push(format!("{panics} panics"));
    }
    Ok(())
}

/// What is not as it was before, when the attackers are gone.
fn aftermath(plan: &Plan, server: &mut Process, honest: &Honest, before: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let mut after = u64::MAX;
    // Calls go on while the rest of the connections ends.
    honest.run(plan.rate, SETTLED, || {
        after = server.usage().map_or(after, |usage| usage.descriptors);
        after > before
    });
    if after > before {
        faults.push(format!("{after} descriptors are left, {before} were there"));
    }
    let last = honest.run(plan.rate, WARM_UP / 4, || true).tally;
    if last.ok != last.begun {
        faults.push(format!("honest calls afterwards: {last}"));
    }
    faults
}

fn program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| attack | engine | holds | peak MiB | connections | MB sent | honest calls | p50 µs | p99 µs | × at rest |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let holds = if row.faults.is_empty() { "yes" } else { "**no**" };
        let _ =
            write!(table, "| `{}` | {} | {holds} | {} |", row.attack, row.engine, row.peak >> 20);
        let (opened, mb) =
            row.seen.as_ref().map_or((0, 0), |it| (it.opened, it.bytes_sent / 1_000_000));
        let _ = write!(table, " {opened} | {mb} |");
        match &row.measured {
            Some(it) => {
                let (p50, p99) = (it.micros(0.5), it.micros(0.99));
                let slower = row.slower.map_or(String::new(), |slower| format!("{slower:.1}"));
                let late = if row.is_slow() { " **late**" } else { "" };
                let _ =
                    writeln!(table, " {} | {p50:.0} | {p99:.0} | {slower}{late} |", it.tally.ok);
            }
            None => table.push_str(" | | | |\n"),
        }
    }
    table
}

fn verdict(plan: &Plan, rows: &[Row]) -> Result<(), String> {
    for row in rows.iter().filter(|row| !row.faults.is_empty()) {
        eprintln!("{}, {}: {}", row.engine, row.attack, row.faults.join("; "));
    }
    let failed = rows.iter().filter(|row| !row.faults.is_empty()).count();
    let late = rows.iter().filter(|row| plan.is_timed && row.is_slow()).count();
    if late > 0 {
        println!(
            "{late} attacks make honest calls more than {SLOWER_MAX} times as slow, or let some expire"
        );
    }
    match (failed, late) {
        (0, 0) => Ok(()),
        (0, _) if !plan.is_strict => Ok(()),
        _ => Err(format!("{failed} attacks have not been withstood, {late} were felt")),
    }
}
