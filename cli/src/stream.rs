//! `ringcall call` of methods with streams.

use std::fs::File;
use std::future::Future;
use std::io::{BufReader, Cursor, Read};
use std::pin::pin;
use std::task::Poll;
use std::{future, thread};

use async_channel::Receiver;
use ringcall::{BlockOn as _, CallError, Cause, IntoOwned, StreamCall, StreamChannel};
use ringcall_generic::{GenericItems, GenericSender, GenericStreams, Method, SendError};
use serde_json::{Value, json};

use crate::args::Call;
use crate::argument::Beside;
use crate::call::{entries, handler_error};
use crate::connect::Connected;
use crate::exit::{Exit, Problem};
use crate::reach::Reached;
use crate::screen::Screen;
use crate::text::one_line;

/// How many items are read before the server takes them.
const READ_AHEAD: usize = 16;

/// Sends the items that are given, and prints those that come, each as it comes.
pub(crate) fn run(
    args: &Call,
    client: &Connected,
    method: &Method,
    argument: &Value,
    beside: &Beside,
    screen: &mut Screen<'_>,
) -> Result<Exit, Problem> {
    let given = given(args, method, screen)?;
    match client.to() {
        Reached::One(channel) => {
            client.block_on(exchange(args, channel, method, argument, beside, given, screen))
        }
        Reached::Fleet(channel) => {
            client.block_on(exchange(args, channel, method, argument, beside, given, screen))
        }
    }
}

async fn exchange<C: StreamChannel<Body: IntoOwned>>(
    args: &Call,
    channel: &C,
    method: &Method,
    argument: &Value,
    beside: &Beside,
    given: Option<Receiver<Result<Value, Problem>>>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Problem> {
    let failed = |failure| Problem::call(&args.call.method, failure);
    let call = GenericStreams::new(channel, method, argument)?.with(|call| beside.put_on(call));
    let (sender, mut items) = call.open().await.map_err(failed)?;
    let mut sending = pin!(send(args, sender, given));
    let mut is_sending = true;
    loop {
        let came = {
            let mut next = pin!(items.next());
            future::poll_fn(|cx| {
                if is_sending && let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                    is_sending = false;
                    if let Err(problem) = sent {
                        return Poll::Ready(Err(problem));
                    }
                }
                next.as_mut().poll(cx).map(Ok)
            })
            .await?
        };
        match came {
            Some(Ok(value)) if method.items_out().is_some() => show_item(args, value, screen)?,
            Some(Ok(value)) => return show_end(args, "reply", Some(value), &items, screen),
            Some(Err(CallError::App(error))) => {
                show_end(args, "error", Some(error), &items, screen)?;
                return handler_error(args, screen);
            }
            Some(Err(CallError::Failed(failure))) => return Err(failed(failure)),
            None => return show_end(args, "end", None, &items, screen),
        }
    }
}

/// Sends what is given, until that ends, or the call has.
async fn send<S: StreamCall>(
    args: &Call,
    mut sender: GenericSender<'_, S>,
    given: Option<Receiver<Result<Value, Problem>>>,
) -> Result<(), Problem> {
    let Some(given) = given else { return Ok(()) };
    let sent = send_all(args, &mut sender, &given).await;
    if sent.is_err() {
        // The server is not to take those that were sent for all of them.
        sender.call().cancel();
    }
    sent
}

async fn send_all<S: StreamCall>(
    args: &Call,
    sender: &mut GenericSender<'_, S>,
    given: &Receiver<Result<Value, Problem>>,
) -> Result<(), Problem> {
    let mut number = 0;
    while let Ok(item) = given.recv().await {
        number += 1;
        match sender.send(&item?).await {
            Ok(()) => {}
            // What comes says how it has ended.
            Err(SendError::Failed(failure)) if failure.cause == Cause::StreamEnded => return Ok(()),
            Err(SendError::Failed(failure)) => {
                return Err(Problem::call(&args.call.method, failure));
            }
            Err(error) => {
                let method = one_line(&args.call.method);
                return Err(Problem::misused(format_args!("{method}: item {number}: {error}")));
            }
        }
    }
    Ok(())
}

/// As a line.
fn show_item(args: &Call, value: Value, screen: &mut Screen<'_>) -> Result<(), Problem> {
    let shown = if args.server.json { json!({ "item": value }) } else { value };
    screen.json_line(&shown)?;
    // Whoever reads it may wait for it.
    screen.flush()?;
    Ok(())
}

/// What ends the stream: one reply, the handler's error, or nothing.
fn show_end<S: StreamCall<Body: IntoOwned>>(
    args: &Call,
    what: &str,
    value: Option<Value>,
    items: &GenericItems<'_, S>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Problem> {
    let told = [items.metadata(), items.end_metadata()];
    let metadata = || told.into_iter().flatten().flat_map(entries);
    if args.verbose {
        for entry in metadata() {
            let text = |name: &str| one_line(entry[name].as_str().unwrap_or_default());
            screen.note(&format!("metadata   {}: {}", text("key"), text("value")))?;
        }
    }
    match (args.server.json, value) {
        (true, value) => {
            let metadata: Vec<_> = metadata().collect();
            let mut shown = json!({ "metadata": metadata });
            shown[what] = value.unwrap_or_default();
            screen.json_line(&shown)?;
        }
        (false, Some(value)) => screen.json(&value)?,
        (false, None) => {}
    }
    Ok(Exit::Done)
}

// ---- what is sent ----

/// The items that are given, which a thread of its own reads: what comes is not to wait for somebody who types.
fn given(
    args: &Call,
    method: &Method,
    screen: &mut Screen<'_>,
) -> Result<Option<Receiver<Result<Value, Problem>>>, Problem> {
    let name = method.full_name();
    let from: Box<dyn Read + Send> = match (args.items.as_deref(), method.items_in()) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            let example = crate::text::quoted(&method.example_item().to_string());
            return Err(Problem::misused(format_args!(
                "{name} takes a stream: `--items` says what is sent, such as {example}; `--items -` reads standard input"
            )));
        }
        (Some(_), None) => {
            return Err(Problem::misused(format_args!(
                "{name} takes no stream: leave out `--items`"
            )));
        }
        (Some("-"), Some(_)) => screen.take_stdin(),
        (Some(items), Some(_)) => {
            match items.strip_prefix('@') {
                Some(path) => Box::new(File::open(path).map_err(|error| {
                    Problem::misused(format_args!("cannot read {path}: {error}"))
                })?),
                None => Box::new(Cursor::new(items.to_owned())),
            }
        }
    };
    let (to, given) = async_channel::bounded(READ_AHEAD);
    // It ends with what it reads, or with the program.
    thread::spawn(move || {
        let values = serde_json::Deserializer::from_reader(BufReader::new(from));
        for value in values.into_iter::<Value>() {
            let value = value.map_err(|error| {
                Problem::misused(format_args!(
                    "the items are no JSON, one value after another: {error}"
                ))
            });
            let is_last = value.is_err();
            if to.send_blocking(value).is_err() || is_last {
                return;
            }
        }
    });
    Ok(Some(given))
}
