//! Defences switched off one by one: whoever does not notice proves nothing.
//!
//! Those of core have switches in it, which the simulator needs; others are changes of a source, see [`changes`].

mod changes;

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::run::cargo;

/// What notices that a defence is off.
enum Noticed {
    /// The simulator, within its seeds.
    BySimulator,
    /// This test of core, as file and name; honest peers cannot.
    By(&'static str, &'static str),
}
use Noticed::{By, BySimulator};

/// The first seed of a mutant, how many it has, and how many events each: seeds that hold without any (see
/// `docs/SIMULATION.md`), and enough for every mark.
const FROM: &str = "0";
const SEEDS: &str = "2000";
const EVENTS: &str = "2000";
/// A switch that nothing looks at.
const NOTHING: &str = "none";

/// Name of the switch, what happens, what notices.
const MUTANTS: [(&str, &str, Noticed); 50] = [
    ("lost_completion", "calls do not end with their connection", BySimulator),
    ("later_first", "what arrives may be parsed before what came earlier", BySimulator),
    ("generation_kept", "a slot's next call has the same id", BySimulator),
    ("late_reply_to_new_owner", "a late reply goes to the slot's next owner", BySimulator),
    ("slots_off_by_one", "one more call in flight than allowed", BySimulator),
    ("no_queue_limit", "any number of calls waits for a peer that does not read", BySimulator),
    ("credit_leak_cancel", "a cancelled call keeps its credit", BySimulator),
    ("credit_leak_item", "an abandoned item keeps its credit", BySimulator),
    ("credit_leak_unsent", "an abandoned request keeps its credit", BySimulator),
    ("credit_lost", "each grant is a byte short", BySimulator),
    ("grant_forgotten", "credit is hardly ever given back", BySimulator),
    ("lost_writable", "a stream with new credit is not told", BySimulator),
    ("lost_wake_of_the_crowd", "streams that wait for the connection are not told", BySimulator),
    ("missed_end", "the end behind an item in parts is not sent", BySimulator),
    ("wakes_late", "a loop may wait 64 ticks longer than to the next deadline", BySimulator),
    ("deadline_not_armed", "a call has no timer", BySimulator),
    ("served_deadline_not_watched", "a handler is not told of its deadline", BySimulator),
    ("expired_in_queue_runs", "a call that expired in a queue runs", BySimulator),
    ("expired_on_arrival_runs", "a call that expired while its body came runs", BySimulator),
    ("go_away_off_by_one", "GOAWAY counts one call too many", BySimulator),
    ("runs_above_go_away", "calls that GOAWAY refuses run", BySimulator),
    (
        "no_fence",
        "a drain counts before it has asked",
        By("drain", "f07_what_a_caller_sent_before_it_knew_runs_once"),
    ),
    ("unknown_told_as_not_sent", "a call that may have run is said not to", BySimulator),
    ("sent_after_the_end", "calls that were said not to be sent are", BySimulator),
    ("landing_leak", "bodies that came keep their share of the budget", BySimulator),
    ("no_keepalive", "nobody asks for signs of life", BySimulator),
    ("late_items_accused", "items that crossed the end close the connection", BySimulator),
    (
        "paused_for_ever",
        "a connection that stopped reading does not go on",
        By("endpoint", "reading_goes_on_when_a_one_way_call_ends"),
    ),
    ("limits_confirmed_early", "lower limits are confirmed in front of longer bodies", BySimulator),
    ("stale_cancel_told", "a cancel is told after the answer", BySimulator),
    (
        "no_trickle_limit",
        "reading a byte a second is enough",
        By("liveness", "c09_a_trickle_is_no_reading"),
    ),
    ("a03", "frames of any length", By("hostile", "a03_length_limits")),
    ("a04", "bodies may stop arriving", By("hostile", "a04_a_body_must_go_on")),
    (
        "waits_for_ever",
        "nothing is read until the landing budget has room",
        By("hostile", "a04_who_waits_is_refused_in_time"),
    ),
    (
        "holds_back",
        "landing budget that others wait for is held in silence",
        By("memory", "a04_who_holds_the_budget_and_is_silent_goes_when_others_wait"),
    ),
    ("b06", "an id in use may be used again", By("hostile", "b06_ids_are_checked")),
    ("b10", "DATA in any order", By("hostile", "b10_data_continues_its_body")),
    ("c03", "any number of PINGs", By("liveness", "c03_a_flood_of_pings_closes")),
    ("c05", "any amount of credit", By("hostile", "c05_credit_is_checked")),
    ("floods", "any number of cancels", By("liveness", "c01_rapid_resets_close")),
    (
        "limits_at_once",
        "limits are told as often as they change",
        By("liveness", "c04_limits_that_change_all_the_time_are_no_flood"),
    ),
    (
        "cancels_at_once",
        "more CANCELs than the other side stands",
        By("liveness", "c01_this_implementation_never_cancels_too_much"),
    ),
    (
        "strikes",
        "any number of unknown replies",
        By("hostile", "b01_unknown_replies_have_a_budget"),
    ),
    (
        "c10",
        "a handshake of any length",
        By("hostile", "c10_a_handshake_has_five_seconds_and_four_kib"),
    ),
    (
        "c16",
        "streams at rest for ever",
        By("streams", "c16_a_stream_that_its_caller_does_not_end_is_ended"),
    ),
    (
        "credit_kept_back",
        "credit is kept back although somebody may wait for it",
        By("streams", "c17_nothing_waits_for_credit_that_is_only_kept_back"),
    ),
    (
        "streams_open_without_room",
        "arguments of calls with streams leave no room for items",
        By("streams", "c17_arguments_of_calls_with_streams_leave_room_for_items"),
    ),
    ("d01", "calls without time left run", By("hostile", "d01_core_refuses_what_it_cannot_run")),
    ("e03", "an end inside a frame is an end", By("hostile", "e03_input_may_end_after_every_byte")),
    (
        "e26",
        "short of memory, anybody's calls are taken",
        By("memory", "e26_who_holds_little_is_served_while_others_are_refused"),
    ),
];

/// Builds each mutant and sees whether it is noticed; only those named, if some are.
pub(crate) fn mutants(names: &[&str]) -> Result<(), String> {
    let changes = changes::all()?;
    let known = MUTANTS.iter().map(|it| it.0).chain(changes.iter().map(|it| it.name));
    let known: Vec<&str> = known.collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("no defence is called {name}"));
    }
    let is_chosen = |name: &str| names.is_empty() || names.contains(&name);
    let switches: Vec<_> = MUTANTS.iter().filter(|it| is_chosen(it.0)).collect();
    let changes: Vec<_> = changes.into_iter().filter(|it| is_chosen(it.name)).collect();
    all_holds_unchanged(&switches)?;
    changes::all_holds_unchanged(&changes)?;
    let mut missed = Vec::new();
    println!("| switched off | what happens | noticed by | in |\n|---|---|---|--:|");
    for (name, what, noticed) in switches {
        missed.extend(tell(name, what, || match noticed {
            BySimulator => by_simulator(name),
            By(file, test) => by_test(name, file, test),
        }));
    }
    for change in &changes {
        missed.extend(tell(change.name, change.what, || change.noticed()));
    }
    match missed[..] {
        [] => Ok(()),
        _ => Err(format!("nobody notices:\n{}", missed.join("\n"))),
    }
}

/// A row of the table; the name again if nobody noticed, with the reason if it could not be tried.
#[expect(clippy::disallowed_methods, reason = "it says how long each takes")]
fn tell(
    name: &str,
    what: &str,
    noticed: impl FnOnce() -> Result<Option<String>, String>,
) -> Option<String> {
    let began = Instant::now();
    let (by, missed) = match noticed() {
        Ok(Some(by)) => (by, None),
        Ok(None) => ("**nobody**".to_owned(), Some(name.to_owned())),
        Err(why) => ("**not tried**".to_owned(), Some(format!("{name}, not tried: {why}"))),
    };
    println!("| `{name}` | {what} | {by} | {} s |", began.elapsed().as_secs());
    missed
}

/// Whoever fails with every defence in place would seem to notice whatever is switched off.
fn all_holds_unchanged(chosen: &[&(&str, &str, Noticed)]) -> Result<(), String> {
    let fails = |who: String| Err(format!("with every defence in place there fails {who}"));
    if chosen.iter().any(|(.., noticed)| matches!(noticed, BySimulator))
        && let Some(who) = by_simulator(NOTHING)?
    {
        return fails(who);
    }
    for (.., noticed) in chosen {
        if let By(file, test) = noticed
            && let Some(who) = by_test(NOTHING, file, test)?
        {
            return fails(who);
        }
    }
    Ok(())
}

/// Cargo with one defence off.
fn with_bug(name: &str, arguments: &str) -> Command {
    let mut command = cargo(&arguments.split(' ').collect::<Vec<_>>());
    command.env("RUSTFLAGS", format!("--cfg bug=\"{name}\"")).env("CARGO_INCREMENTAL", "0");
    command
}

/// Apart from running: what does not compile is noticed by nobody.
fn build(name: &str, arguments: &str) -> Result<(), String> {
    let mut build = with_bug(name, arguments);
    let status = build.status().map_err(|error| format!("{build:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} does not build")) }
}

fn by_simulator(name: &str) -> Result<Option<String>, String> {
    build(name, "build --quiet --profile sim -p ringcall-sim --target-dir target/mutants")?;
    let mut sim = Command::new("target/mutants/sim/ringcall-sim");
    sim.args(["--from", FROM, "--seeds", SEEDS, "--events", EVENTS, "--as-is"]);
    let output = sim.output().map_err(|error| format!("{sim:?}: {error}"))?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.starts_with("seed ")).unwrap_or("a missing mark");
    Ok(Some(line.chars().take(90).collect::<String>().replace('|', "/")))
}

fn by_test(name: &str, file: &str, test: &str) -> Result<Option<String>, String> {
    let tests = format!("test --quiet -p ringcall-core --target-dir target/mutants --test {file}");
    build(name, &format!("{tests} --no-run"))?;
    let mut run = with_bug(name, &format!("{tests} {test} -- --exact"));
    run.stdout(Stdio::null()).stderr(Stdio::null());
    let status = run.status().map_err(|error| format!("{run:?}: {error}"))?;
    Ok((!status.success()).then(|| format!("`core/tests/{file}.rs::{test}`")))
}
