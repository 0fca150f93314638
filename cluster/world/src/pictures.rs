//! Pictures of worlds.

use std::path::Path;
use std::time::Duration;

use plot::{Axis, Heading, Line, Panel, color, thousands};
use ringcall_worlds::herd::{Herd, WINDOW};
use ringcall_worlds::scenarios::Scenario;
use ringcall_worlds::{Second, Seconds, World};

/// Draws what became of a world's calls, second by second.
pub(crate) fn world(folder: &Path, scenario: &Scenario, world: &World) -> Result<(), String> {
    let line = |name, index, value: &dyn Fn(&Second) -> f64| {
        let points = (1u32..).zip(&world.seconds).map(|(at, it)| (f64::from(at), value(it)));
        Line { name, points: points.collect(), color: color(index) }
    };
    let percentile = |per_mille| move |it: &Second| std::slice::from_ref(it).latency_ms(per_mille);
    let number = |value: &f64| thousands(value);
    let percent = |value: &f64| format!("{:.0} %", value * 100.0);
    let axis = |name, label| Axis { name, label };
    let mut panels = vec![
        Panel {
            axis: axis("calls a second", &number),
            lines: vec![
                line("end well", 3, &|second| second.good as f64),
                line("fail", 1, &|second| second.bad as f64),
            ],
        },
        Panel {
            axis: axis("busy", &percent),
            lines: vec![
                line("the busiest of the servers that are well, if any is", 2, &|it| {
                    it.busiest_and_mean().0
                }),
                line("their mean", 0, &|it| it.busiest_and_mean().1),
            ],
        },
        Panel {
            axis: axis("latency, ms", &number),
            lines: vec![
                line("99 of 100 calls", 2, &percentile(990)),
                line("half of them", 0, &percentile(500)),
            ],
        },
    ];
    if let Some((name, servers)) = scenario.shown {
        let share = |second: &Second| {
            let all: u64 = second.arrived.iter().sum();
            let some: u64 = second.arrived[servers.0..servers.1].iter().sum();
            some as f64 / all.max(1) as f64
        };
        panels.push(Panel { axis: axis("attempts", &percent), lines: vec![line(name, 1, &share)] });
    }
    let heading = Heading { title: scenario.name, note: scenario.about };
    let path = folder.join(format!("{}.svg", scenario.name));
    plot::panels(&path, heading, "seconds", &panels).map_err(|error| format!("{path:?}: {error}"))
}

/// Draws when clients are connected again.
pub(crate) fn herd(path: &Path, herd: &Herd) -> Result<(), String> {
    let points = |connected: &[Duration]| {
        let last = connected.last().copied().unwrap_or_default();
        let window = |n: u32| {
            let until = |at: Duration| connected.partition_point(|it| *it < at);
            let count = until(WINDOW * (n + 1)) - until(WINDOW * n);
            ((WINDOW * n).as_secs_f64(), count as f64)
        };
        (0..(last.as_millis() / WINDOW.as_millis()) as u32).map(window).collect::<Vec<_>>()
    };
    let line = |name, index, points| Line { name, points, color: color(index) };
    let panel = Panel {
        axis: Axis { name: "connects in 100 ms", label: &thousands },
        lines: vec![
            line("each client anywhere in its wait", 0, points(&herd.spread())),
            line("100 ms × 1.6ⁿ, give or take a half", 2, points(&herd.connected)),
        ],
    };
    let note = format!(
        "{} clients that lost their server at the same time, which is there again after {} s",
        herd.connected.len(),
        herd.away.as_secs()
    );
    let heading = Heading { title: "reconnect", note: &note };
    plot::panels(path, heading, "seconds since it is there again", &[panel])
        .map_err(|error| format!("{path:?}: {error}"))
}
