//! `ringcall call`.

use std::time::Duration;

use ringcall::{Body, CallError, Codec, Failure, Metadata, Reply, UntypedReply, UntypedResult};
use ringcall_generic::{Catalog, GenericCall};
use serde_json::{Value, json};

use crate::args::Call;
use crate::argument::{self, Beside, Prepared};
use crate::connect::{Connected, connect};
use crate::exit::{Exit, Problem};
use crate::screen::Screen;
use crate::stream;
use crate::text::{one_line, time};

pub(crate) fn run(args: &Call, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let mut beside = Beside::new(&args.call)?;
    beside.idempotency_key = args.idempotency_key.clone();
    if args.call.raw {
        return run_raw(args, beside, screen);
    }
    if args.items.as_deref() == Some("-") && args.call.argument.as_deref() == Some("-") {
        return Err(Problem::misused("argument and items cannot both be standard input"));
    }
    let bytes = argument::bytes(&args.call, screen)?;
    let client = connect(&args.server)?;
    let catalog = Catalog::wait_for(&client)?;
    let method = catalog.find(&args.call.method)?;
    let argument = argument::value(method, bytes.as_deref())?;
    if method.has_streams() {
        return stream::run(args, &client, method, &argument, &beside, screen);
    }
    if args.items.is_some() {
        let name = method.full_name();
        return Err(Problem::misused(format_args!("{name} takes no stream: leave out `--items`")));
    }
    let call = match args.unchecked {
        true => GenericCall::unchecked(&client, method, &argument)?,
        false => GenericCall::new(&client, method, &argument)?,
    };
    let reply = call.with(|call| beside.put_on(call)).wait_with_metadata();
    show_beside(args, &client, &reply, screen)?;
    if args.server.json {
        return show_json(args, reply, screen);
    }
    match reply.result {
        Ok(value) => screen.json(&value)?,
        Err(CallError::App(error)) => {
            screen.json(&error)?;
            return handler_error(args, screen);
        }
        Err(CallError::Failed(failure)) => return Err(failed(args, failure)),
    }
    Ok(Exit::Done)
}

fn run_raw(args: &Call, beside: Beside, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    if args.server.json {
        return Err(Problem::misused(
            "`--raw` gives bytes as they are, which `--json` cannot have",
        ));
    }
    // What is neither a message of somebody's nor checked by anybody may be anything.
    if screen.stdout_is_terminal() {
        return Err(Problem::misused(
            "`--raw` gives bytes as they are, which are not for a terminal: redirect the output",
        ));
    }
    let bytes = argument::bytes(&args.call, screen)?;
    let client = connect(&args.server)?;
    let reply = Prepared::raw(&args.call, beside, bytes).call(&client)?.wait();
    show_beside(args, &client, &reply, screen)?;
    show_bytes(args, reply.result, screen)
}

fn show_bytes(
    args: &Call,
    result: UntypedResult<Body>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Problem> {
    match result {
        Ok(reply) => {
            show_codec(args, &reply, screen)?;
            screen.bytes(&reply.body)?;
            Ok(Exit::Done)
        }
        Err(CallError::App(error)) => {
            show_codec(args, &error, screen)?;
            screen.bytes(&error.body)?;
            handler_error(args, screen)
        }
        Err(CallError::Failed(failure)) => Err(failed(args, failure)),
    }
}

fn failed(args: &Call, failure: Failure) -> Problem {
    Problem::call(&args.call.method, failure)
}

pub(crate) fn handler_error(args: &Call, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let method = one_line(&args.call.method);
    screen.note(&format!("ringcall: {method}: the handler answered with this error"))?;
    Ok(Exit::HandlerError)
}

/// An object that has one of `reply`, `error` and `failure`, and what came beside it.
fn show_json(
    args: &Call,
    reply: Reply<Result<Value, CallError<Value>>, Body>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Problem> {
    let mut shown = json!({
        "metadata": entries(&reply.metadata).collect::<Vec<_>>(),
        "queued_us": reply.queued.as_micros() as u64,
        "handled_us": reply.handled.as_micros() as u64,
        "load": f64::from(reply.load) / 1000.0,
    });
    let exit = match reply.result {
        Ok(value) => {
            shown["reply"] = value;
            Exit::Done
        }
        Err(CallError::App(error)) => {
            shown["error"] = error;
            Exit::HandlerError
        }
        Err(CallError::Failed(failure)) => return Err(failed(args, failure)),
    };
    screen.json(&shown)?;
    Ok(exit)
}

/// Values are any bytes; what of them is no text is replaced.
pub(crate) fn entries<B: AsRef<[u8]>>(metadata: &Metadata<B>) -> impl Iterator<Item = Value> {
    metadata
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": String::from_utf8_lossy(value) }))
}

/// With `--verbose`: what came beside the answer.
fn show_beside<T>(
    args: &Call,
    client: &Connected,
    reply: &Reply<T, Body>,
    screen: &mut Screen<'_>,
) -> Result<(), Problem> {
    if !args.verbose {
        return Ok(());
    }
    screen.note(&format!("transport  {}", client.transport()))?;
    for (key, value) in reply.metadata.iter() {
        let value = one_line(&String::from_utf8_lossy(value));
        screen.note(&format!("metadata   {}: {value}", one_line(key)))?;
    }
    screen.note(&format!("queued     {}", spent(reply.queued)))?;
    screen.note(&format!("handled    {}", spent(reply.handled)))?;
    screen.note(&format!("load       {}", busy(reply.load)))?;
    Ok(())
}

/// As servers say it: in whole microseconds, or not at all.
fn spent(there: Duration) -> String {
    match there.is_zero() {
        true => "under 1 µs, or not said".to_owned(),
        false => time(there),
    }
}

/// With `--verbose`: what the bytes are.
fn show_codec(
    args: &Call,
    reply: &UntypedReply<Body>,
    screen: &mut Screen<'_>,
) -> Result<(), Problem> {
    if args.verbose {
        let codec = match reply.codec {
            Codec::RAW => "bytes as they are".to_owned(),
            Codec::MESSAGEPACK => "MessagePack".to_owned(),
            Codec::JSON => "JSON".to_owned(),
            other => format!("{other:?}"),
        };
        screen.note(&format!("reply      {} bytes, {codec}", reply.body.len()))?;
    }
    Ok(())
}

/// How busy a server says it is, in thousandths of what it can do.
pub(crate) fn busy(load: u16) -> String {
    match load {
        0 => "not said by the server".to_owned(),
        load => format!("{:.1} % of what the server can do", f64::from(load) / 10.0),
    }
}
