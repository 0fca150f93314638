//! A record of a connection, step by step: see `docs/REPLAY.md`.

mod frames;

use std::fs;

use ringcall_core::record::{Input, Output, Record, RecordedPayload, Replay, Snapshot, Step};

use frames::Frames;

/// More memory than this is not used for a connection.
const HELD_MAX: usize = 1 << 30;

/// Which steps are shown, and how.
struct Shown {
    from: u64,
    to: u64,
    /// Every frame, and how the connection stands behind every step.
    in_full: bool,
}

/// Does again what a file says, and shows it. What cannot be replayed is only shown.
pub(crate) fn replay(arguments: &[&str]) -> Result<(), String> {
    let (path, shown) = read_arguments(arguments)?;
    let bytes = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let record = Record::parse(&bytes).map_err(|error| format!("{path}: {error}"))?;
    println!("{:?}, recorded from step {}: {}", record.side, record.first, record.note);
    if record.hides_bodies {
        println!("bodies and values are hidden: they are zeros here");
    }
    let mut replay = match record.is_whole {
        true => Some(Replay::new(&record, HELD_MAX).map_err(|error| error.to_string())?),
        false => None,
    };
    let (mut inbound, mut outbound) = (Frames::new(record.inbound), Frames::new(record.outbound));
    let mut steps = 0;
    for step in record.steps() {
        let step = step.map_err(|error| format!("{path}: {error}"))?;
        let is_shown = (shown.from..=shown.to).contains(&step.number);
        let done = replay.as_mut().map(|replay| replay.step(&step)).transpose();
        let output = match &done {
            Ok(output) => output.as_ref(),
            Err(_) => replay.as_ref().and_then(Replay::departed),
        };
        let frames = [received(&step, &mut inbound), sent(&step, output, &mut outbound)].concat();
        if is_shown || done.is_err() {
            println!("{}", line(&record, &step, output));
            if shown.in_full || done.is_err() {
                frames.iter().for_each(|frame| println!("        {frame}"));
                let snapshot = replay.as_ref().map(Replay::snapshot);
                snapshot.iter().for_each(|snapshot| println!("        {}", standing(snapshot)));
            }
        }
        done.map_err(|error| format!("{path}: {error}"))?;
        steps += 1;
    }
    if record.is_full {
        println!("the connection went on when the bytes for its record were used up");
    }
    match replay {
        Some(replay) => println!("bit exact: {steps} steps, digest {:016x}", replay.digest()),
        None => {
            println!("{steps} steps; without the connection's beginning they cannot be replayed")
        }
    }
    Ok(())
}

fn read_arguments<'a>(arguments: &[&'a str]) -> Result<(&'a str, Shown), String> {
    let usage = || "write cargo xtask replay FILE [--from STEP] [--to STEP] [--frames]".to_owned();
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is not a step"));
    let (mut path, mut shown) = (None, Shown { from: 0, to: u64::MAX, in_full: false });
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--from" => shown.from = number(rest.next().ok_or_else(usage)?)?,
            "--to" => shown.to = number(rest.next().ok_or_else(usage)?)?,
            "--frames" => shown.in_full = true,
            file if path.is_none() && !file.starts_with('-') => path = Some(file),
            _ => return Err(usage()),
        }
    }
    Ok((path.ok_or_else(usage)?, shown))
}

// ---- in words ----

/// A step: its number, when it was, what was done, what came out.
fn line(record: &Record<'_>, step: &Step<'_>, output: Option<&Output>) -> String {
    let at = step.now.since(record.began).as_secs_f64();
    let input = input(&step.input);
    let output = output.map(result).filter(|output| !output.is_empty());
    let output = output.map_or(String::new(), |output| format!(" -> {output}"));
    let memory = step.memory.map_or(String::new(), |state| format!("  [{state:?}]"));
    format!("{:>6} {at:>13.6}s  {input}{output}{memory}", step.number)
}

fn input(input: &Input<'_>) -> String {
    match input {
        Input::Received { phase, bytes } => format!("received {} bytes at {phase}", bytes.len()),
        Input::Landed { capacity, filled, bytes } => {
            format!("landed {} bytes behind {filled} of {capacity}", bytes.len())
        }
        Input::PollTransmit { bytes, is_full, .. } => {
            format!("transmit: {bytes} bytes{}", if *is_full { ", no room for more" } else { "" })
        }
        Input::Call { call, payload } => {
            format!("call of {:016x}, flags {:#04x}, {}", call.method, call.flags, message(payload))
        }
        Input::Reply { request, header, payload } => {
            format!("reply to {request:?}: {}, {}", header.status, message(payload))
        }
        Input::SendItem { stream, payload, .. } => {
            format!("item of {stream:?}, {}", message(payload))
        }
        other => format!("{other:?}"),
    }
}

fn message(payload: &RecordedPayload<'_>) -> String {
    use ringcall_core::record::{RecordedBody, Rest};
    match payload.body {
        RecordedBody::Unused => "not encoded".to_owned(),
        RecordedBody::Failed(error) => error.to_string(),
        RecordedBody::Encoded { front, rest, .. } => {
            let rest = match rest {
                Rest::Nothing => String::new(),
                Rest::Memory(bytes) => format!(" and {} from where they are", bytes.len()),
                Rest::External(len) => format!(" and {len} of a file"),
            };
            let extensions = payload.extensions.len();
            format!("{} bytes{rest}, {extensions} bytes of extensions", front.len())
        }
    }
}

fn result(output: &Output) -> String {
    match output {
        Output::Nothing | Output::Sent(_) | Output::Event(None) | Output::Write(None) => {
            String::new()
        }
        Output::Event(Some(event)) => format!("{event:?}"),
        Output::Items(items) => format!("{} items", items.len()),
        Output::Called(Ok(call)) => format!("{call:?}"),
        Output::Called(Err(failure)) => format!("{failure}"),
        other => format!("{other:?}"),
    }
}

fn standing(snapshot: &Snapshot) -> String {
    let Snapshot { state, calls_in_flight, in_flight_limit, calls_served, .. } = snapshot;
    let (credit, held) = (snapshot.credit_available, snapshot.credit_held);
    format!(
        "= {state}: {calls_in_flight} of {in_flight_limit} calls, {calls_served} served, \
         credit {credit:?}, held {held:?} bytes and {:?} items, {} bytes queued, {:?}, timeout {:?}",
        snapshot.items_held, snapshot.bytes_queued, snapshot.hint, snapshot.timeout
    )
}

// ---- frames ----

fn received(step: &Step<'_>, frames: &mut Frames) -> Vec<String> {
    match step.input {
        Input::Received { bytes, .. } | Input::Landed { bytes, .. } => {
            frames.read(&bytes.to_vec(), "<")
        }
        _ => Vec::new(),
    }
}

fn sent(step: &Step<'_>, output: Option<&Output>, frames: &mut Frames) -> Vec<String> {
    match (step.input, output) {
        (_, Some(Output::Sent(bytes))) => frames.read(bytes, ">"),
        (Input::PollTransmit { sent: Some(sent), .. }, _) => frames.read(&sent.to_vec(), ">"),
        _ => Vec::new(),
    }
}
