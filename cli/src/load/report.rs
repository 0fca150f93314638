//! What is said of a load.

use std::fmt::Write as _;
use std::time::Duration;

use ringcall::TransportInfo;
use serde_json::{Map, Value, json};

use super::meter::Meter;
use crate::args::Load;
use crate::exit::{Exit, Problem};
use crate::screen::Screen;
use crate::text::{one_line, time};

/// What was found out, and about what.
pub(crate) struct Report<'a> {
    pub(crate) args: &'a Load,
    pub(crate) meter: &'a Meter,
    /// Until the last call ended.
    pub(crate) time: Duration,
    /// How many calls were due, in an open loop.
    pub(crate) due: Option<u64>,
    pub(crate) transport: &'a TransportInfo,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

impl Report<'_> {
    pub(crate) fn show(&self, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
        match self.args.server.json {
            true => screen.json(&self.as_json())?,
            false => screen.line(self.table().trim_end())?,
        }
        Ok(self.exit())
    }

    /// A load is not for calls that all come to nothing.
    fn exit(&self) -> Exit {
        match (self.meter.replies(), self.meter.handler_errors()) {
            (1.., _) => Exit::Done,
            (0, 1..) => Exit::HandlerError,
            (0, 0) => Exit::Failed,
        }
    }

    fn calls_per_s(&self) -> f64 {
        match self.time.is_zero() {
            true => 0.0,
            false => self.meter.ended() as f64 / self.time.as_secs_f64(),
        }
    }

    /// Those that nobody waited for to the end.
    fn unfinished(&self) -> u64 {
        self.meter.begun() - self.meter.ended()
    }

    /// Of an open loop: those that were due and found no caller.
    fn not_begun(&self) -> Option<u64> {
        self.due.map(|due| due.saturating_sub(self.meter.begun()))
    }

    fn table(&self) -> String {
        let Load { call, server, in_flight, connections, rate, .. } = self.args;
        let mut table = format!("{} at {}\n", one_line(&call.method), one_line(&server.address));
        let paced = match rate {
            Some(rate) => format!("open loop, {rate} calls/s,"),
            None => "closed loop,".to_owned(),
        };
        let at_most = if rate.is_some() { "at most " } else { "" };
        let plural = if *connections == 1 { "" } else { "s" };
        let _ = writeln!(
            table,
            "{paced} {at_most}{in_flight} in flight over {connections} connection{plural}, {}\n",
            self.transport.name
        );
        self.write_counts(&mut table);
        self.write_latencies(&mut table);
        table
    }

    fn write_counts(&self, table: &mut String) {
        let meter = self.meter;
        let (ended, seconds) = (meter.ended(), self.time.as_secs_f64());
        let rate = self.calls_per_s();
        let _ = writeln!(table, "calls      {ended:>12}  in {seconds:.2} s, {rate:.0} calls/s");
        let mut count = |name: &str, count: u64, text: &str| {
            let _ = writeln!(table, "{}", format!("{name:<11}{count:>12}  {text}").trim_end());
        };
        count("replies", meter.replies(), "");
        count("errors", ended - meter.replies(), "");
        if meter.handler_errors() > 0 {
            count("", meter.handler_errors(), "answered by the handler");
        }
        for (cause, failures) in meter.failures() {
            count("", failures.count, &format!("{cause}: {}", failures.text));
        }
        if self.unfinished() > 0 {
            count("unfinished", self.unfinished(), "interrupted");
        }
        if let Some(late @ 1..) = self.not_begun() {
            count("not begun", late, "were due, and no caller was free before the end");
        }
    }

    fn write_latencies(&self, table: &mut String) {
        let latencies = self.meter.latencies();
        if latencies.is_empty() {
            return;
        }
        table.push_str("\nlatency\n");
        let mut line = |name: &str, ns: u64| {
            let _ = writeln!(table, "  {name:<9}{:>12}", time(Duration::from_nanos(ns)));
        };
        for (name, quantile) in QUANTILES {
            line(name, latencies.value_at_quantile(quantile));
        }
        line("max", latencies.max());
    }

    fn as_json(&self) -> Value {
        let meter = self.meter;
        let mut errors = Map::new();
        if meter.handler_errors() > 0 {
            errors.insert("handler".to_owned(), meter.handler_errors().into());
        }
        for (cause, failures) in meter.failures() {
            errors.insert(cause.to_owned(), failures.count.into());
        }
        json!({
            "method": self.args.call.method,
            "address": self.args.server.address,
            "transport": self.transport.name,
            "in_flight": self.args.in_flight,
            "connections": self.args.connections,
            "rate": self.args.rate,
            "seconds": self.time.as_secs_f64(),
            "calls": meter.ended(),
            "calls_per_s": self.calls_per_s(),
            "replies": meter.replies(),
            "errors": errors,
            "unfinished": self.unfinished(),
            "not_begun": self.not_begun(),
            "latency_us": self.latencies_as_json(),
        })
    }

    fn latencies_as_json(&self) -> Value {
        let latencies = self.meter.latencies();
        if latencies.is_empty() {
            return Value::Null;
        }
        let us = |ns: u64| Value::from(ns as f64 / 1e3);
        let mut all = Map::new();
        all.insert("min".to_owned(), us(latencies.min()));
        all.insert("mean".to_owned(), us(latencies.mean() as u64));
        for (name, quantile) in QUANTILES {
            all.insert(name.to_owned(), us(latencies.value_at_quantile(quantile)));
        }
        all.insert("max".to_owned(), us(latencies.max()));
        all.into()
    }
}
