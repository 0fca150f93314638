//! `ringcall health`.

use std::time::Duration;

use ringcall::health::{HealthClient, Status};
use ringcall::reflection::NoSuchService;
use ringcall::{CallError, Failure, Shard, Status as CallStatus};
use serde_json::json;

use crate::args::Health;
use crate::connect::{now, reach, shard, since};
use crate::exit::{Exit, Problem};
use crate::screen::Screen;
use crate::text::one_line;

const METHOD: &str = "ringcall.Health/check";

/// How long after an answer that was not wanted it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Health, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let shard = shard(&args.server)?;
    let start = now();
    loop {
        let asked = ask(args, &shard);
        let is_final =
            matches!(asked, Ok(Told::Status(Status::Serving)) | Err(Problem::Misused(_)));
        // The last time to ask is at the end, not before it.
        let left = args.wait.and_then(|wait| wait.checked_sub(since(start)));
        match left.filter(|_| !is_final) {
            Some(left) => shard.block_on(shard.sleep(left.min(AGAIN))),
            None => return show(args, &asked?, screen),
        }
    }
}

/// What a server says of a service.
#[derive(Clone, Copy)]
enum Told {
    Status(Status),
    Unknown,
}

/// Connects anew each time: whoever was there may be gone, and somebody else in its place.
fn ask(args: &Health, shard: &Shard) -> Result<Told, Problem> {
    let health = HealthClient::new(reach(shard, &args.server)?);
    let checked = shard.block_on(async { health.check(&args.of).deadline(args.deadline).await });
    match checked {
        Ok(status) => Ok(Told::Status(status.to_native())),
        Err(CallError::App(NoSuchService)) => Ok(Told::Unknown),
        Err(CallError::Failed(failure)) => Err(failed(failure)),
    }
}

fn failed(failure: Failure) -> Problem {
    if failure.status() != Some(CallStatus::UNKNOWN_METHOD) {
        return Problem::call(METHOD, failure);
    }
    let text = "the server does not say whether it is ready: add \
                `.service(ringcall::health::Readiness::new().into_health())` to it";
    Problem::Failed { text: text.to_owned(), failure: Some(failure) }
}

fn show(args: &Health, told: &Told, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let status = match told {
        Told::Status(status) => status.to_string(),
        Told::Unknown => "unknown".to_owned(),
    };
    match args.server.json {
        true => screen.json(&json!({ "service": args.of, "status": status }))?,
        false => screen.line(&status)?,
    }
    let of = one_line(&args.of);
    let why = match told {
        Told::Status(Status::Serving) => return Ok(Exit::Done),
        Told::Status(Status::NotServing) if of.is_empty() => "the server is not ready".to_owned(),
        Told::Status(Status::NotServing) => format!("{of} is not ready"),
        Told::Unknown => format!("the server has no service {of}"),
    };
    screen.note(&format!("ringcall: {why}"))?;
    Ok(Exit::NotReady)
}
