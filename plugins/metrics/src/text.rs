//! Prometheus' text.

use std::fmt;

use ringcall::observe::{Class, Role};

use crate::{Calls, ConnectionCounts, Histogram, Snapshot};

/// The bounds of the buckets that are shown: powers of two of microseconds, 16 µs to 16.8 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 4..=24;

/// The name of a metric, what it is, and its value.
type Row<Of, Value> = (&'static str, &'static str, fn(&Of) -> Value);

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        begin(f, "calls_begun_total", "counter", "Calls that have begun.")?;
        self.each(f, "calls_begun_total", |calls| calls.begun)?;
        begin(f, "calls_in_flight", "gauge", "Calls that have begun and not ended.")?;
        self.each(f, "calls_in_flight", Calls::in_flight)?;
        begin(f, "calls_total", "counter", "Calls that have ended, by class.")?;
        for calls in &self.series {
            for class in Class::ALL {
                write!(f, "ringcall_calls_total{{{},class=\"{}\"}}", Labels(calls), class.name())?;
                writeln!(f, " {}", calls.ended_as(class))?;
            }
        }
        let counters: [Row<Calls, u64>; 6] = [
            ("calls_expired_total", "Calls whose time was over.", |calls| calls.expired),
            ("calls_shed_total", "Calls refused because too much was going on.", |calls| {
                calls.shed
            }),
            ("calls_fallback_total", "Calls in a fallback codec.", |calls| calls.fallback),
            ("calls_repeated_total", "Calls made again on another connection.", |calls| {
                calls.repeated
            }),
            ("request_bytes_total", "Bytes of arguments.", |calls| calls.request_bytes),
            ("reply_bytes_total", "Bytes of answers.", |calls| calls.reply_bytes),
        ];
        for (name, help, value) in counters {
            begin(f, name, "counter", help)?;
            self.each(f, name, value)?;
        }
        begin(f, "call_seconds", "histogram", "How long calls took.")?;
        for calls in &self.series {
            histogram(f, "call_seconds", calls, &calls.latency)?;
        }
        begin(f, "handler_seconds", "histogram", "How long handlers had calls.")?;
        for calls in &self.series {
            histogram(f, "handler_seconds", calls, &calls.handled)?;
        }
        self.others(f)
    }
}

impl Snapshot {
    fn each(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        value: impl Fn(&Calls) -> u64,
    ) -> fmt::Result {
        let mut series = self.series.iter();
        series.try_for_each(|calls| {
            writeln!(f, "ringcall_{name}{{{}}} {}", Labels(calls), value(calls))
        })
    }

    fn others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides = [("opened", &self.opened), ("accepted", &self.accepted)];
        let counts: [(&str, Row<ConnectionCounts, i64>); 3] = [
            ("gauge", ("connections_open", "Connections that are open.", |it| it.open)),
            (
                "counter",
                ("connections_total", "Connections that there were.", |it| it.total as i64),
            ),
            (
                "counter",
                ("connections_established_total", "Connections with a handshake.", |it| {
                    it.established as i64
                }),
            ),
        ];
        for (kind, (name, help, value)) in counts {
            begin(f, name, kind, help)?;
            for (side, count) in sides {
                writeln!(f, "ringcall_{name}{{side=\"{side}\"}} {}", value(count))?;
            }
        }
        let singles = [
            ("connections_turned_away_total", "Connections that were too many.", self.turned_away),
            ("items_missed_total", "Items that slow subscribers have missed.", self.items_missed),
            (
                "subscribers_closed_total",
                "Subscribers that were too slow.",
                self.subscribers_closed,
            ),
        ];
        for (name, help, value) in singles {
            begin(f, name, "counter", help)?;
            writeln!(f, "ringcall_{name} {value}")?;
        }
        begin(f, "copied_bytes_total", "counter", "Body bytes copied on their way in, by reason.")?;
        for (name, value) in &self.counters {
            if let Some(reason) = name.strip_prefix("copied_") {
                let reason = Escaped(reason);
                writeln!(f, "ringcall_copied_bytes_total{{reason=\"{reason}\"}} {value}")?;
            }
        }
        begin(f, "counter_total", "counter", "What connections count themselves.")?;
        let mut counters = self.counters.iter();
        counters.try_for_each(|(name, value)| {
            writeln!(f, "ringcall_counter_total{{name=\"{}\"}} {value}", Escaped(name))
        })?;
        begin(f, "source_total", "counter", "What sources have counted.")?;
        for (source, counts) in &self.sources {
            let source = Escaped(source);
            for (name, value) in counts {
                let name = Escaped(name);
                writeln!(
                    f,
                    "ringcall_source_total{{source=\"{source}\",name=\"{name}\"}} {value}"
                )?;
            }
        }
        Ok(())
    }
}

fn begin(f: &mut fmt::Formatter<'_>, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP ringcall_{name} {help}\n# TYPE ringcall_{name} {kind}")
}

fn histogram(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    calls: &Calls,
    histogram: &Histogram,
) -> fmt::Result {
    let labels = Labels(calls);
    for power in BOUNDS {
        let us = 1u64 << power;
        let (bound, below) = (us as f64 / 1e6, histogram.count_below(us));
        writeln!(f, "ringcall_{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
    }
    let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
    writeln!(f, "ringcall_{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(f, "ringcall_{name}_sum{{{labels}}} {sum}\nringcall_{name}_count{{{labels}}} {count}")
}

struct Labels<'a>(&'a Calls);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Calls { role, method, peer, .. } = self.0;
        let role = if *role == Role::Server { "server" } else { "caller" };
        let (method, peer) = (Escaped(method), Escaped(peer));
        write!(f, "role=\"{role}\",method=\"{method}\",peer=\"{peer}\"")
    }
}

/// A label's value: the path of a unix socket may be anything, and so may the name of a service or a count.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), "a\\\"b\\\\c\\nd");
        let snapshot = Snapshot {
            counters: vec![("copied_\"x", 1), ("a\nb", 2)],
            sources: vec![("s".into(), vec![("c\"d", 3)])],
            ..Snapshot::default()
        };
        let text = snapshot.to_string();
        for line in [
            "ringcall_copied_bytes_total{reason=\"\\\"x\"} 1",
            "ringcall_counter_total{name=\"a\\nb\"} 2",
            "ringcall_source_total{source=\"s\",name=\"c\\\"d\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        }
    }
}
