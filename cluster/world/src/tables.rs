//! What is printed.

use ringcall_worlds::herd::Herd;
use ringcall_worlds::scenarios::Scenario;
use ringcall_worlds::what_if::Outcome;
use ringcall_worlds::{Figure, Recorded, Seconds, World};

/// What a run came to.
pub(crate) struct Row {
    name: &'static str,
    calls: u64,
    failed: u64,
    attempts_per_call: f64,
    p99_ms: f64,
    max_over_mean: f64,
    figures: Vec<Figure>,
}

impl Row {
    pub(crate) fn of(scenario: &Scenario, world: &World) -> Row {
        let (calls, attempts) = world.seconds.calls_and_attempts();
        Row {
            name: scenario.name,
            calls,
            failed: world.seconds.bad(),
            attempts_per_call: attempts as f64 / calls as f64,
            p99_ms: world.seconds.latency_ms(990),
            max_over_mean: world.seconds.unevenness(),
            figures: scenario.figures(world),
        }
    }
}

/// Prints all, and gives back how many figures do not hold.
pub(crate) fn worlds(rows: &[Row]) -> usize {
    if !rows.is_empty() {
        println!(
            "{:<18}{:>10}{:>8}{:>16}{:>9}{:>19}",
            "world", "calls", "failed", "attempts/calls", "p99 ms", "windows max/mean"
        );
    }
    for row in rows {
        println!(
            "{:<18}{:>10}{:>8}{:>16.3}{:>9.1}{:>19.2}",
            row.name, row.calls, row.failed, row.attempts_per_call, row.p99_ms, row.max_over_mean
        );
        figures(&row.figures);
    }
    missed(rows.iter().flat_map(|row| &row.figures))
}

/// The same of clients that connect again.
pub(crate) fn herds(herds: &[Herd]) -> usize {
    println!(
        "\n{:<18}{:>10}{:>20}{:>16}",
        "server away for", "attempts", "worst 100 ms", "uniform"
    );
    let mut all = Vec::new();
    for herd in herds {
        let away = format!("{} s", herd.away.as_secs());
        println!("{away:<18}{:>10}{:>20}{:>16}", herd.attempts, herd.worst(), herd.uniform());
        figures(&herd.figures());
        all.extend(herd.figures());
    }
    missed(all.iter())
}

fn figures(figures: &[Figure]) {
    for figure in figures {
        println!("    {}  {figure}", if figure.holds() { "holds" } else { "MISSED" });
    }
}

fn missed<'a>(figures: impl Iterator<Item = &'a Figure>) -> usize {
    figures.filter(|figure| !figure.holds()).count()
}

/// Prints what variants of clients come to.
pub(crate) fn what_if(recorded: &Recorded, names: &[&str], outcomes: &[Outcome]) {
    let ((name, about), calls) = (recorded.name(), recorded.trace.len());
    println!("{name}: {about}\n{calls} calls, the same for all\n");
    println!(
        "{:<26}{:>9}{:>9}{:>10}{:>18}{:>9}",
        "clients", "p50 ms", "p99 ms", "p99.9 ms", "extra attempts %", "failed"
    );
    for (name, it) in names.iter().zip(outcomes) {
        println!(
            "{name:<26}{:>9.1}{:>9.1}{:>10.1}{:>18.2}{:>9}",
            it.p50_ms, it.p99_ms, it.p999_ms, it.extra_percent, it.failed
        );
    }
}
