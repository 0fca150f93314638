//! Calls with streams: lines of JSON in, and out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Body;
use ringcall::{
    AnyChannel, AnyStream, CallError, Cause, Failure, SharedBody, StreamCall, Streams, UntypedCall,
    UntypedEnds, UntypedItems, UntypedReply, UntypedSender,
};
use ringcall_generic::Method;
use serde_json::{Value, json};

use crate::lines::BodyLines;
use crate::problem::Problem;

/// A call that is under way, with what is still to come of its request. Whoever polls it moves both. Dropping it gives it up.
pub(crate) struct StreamingCall {
    items: UntypedItems<AnyStream>,
    /// None if there is nothing to send, or nothing any more.
    upload: Option<Upload>,
    method: Arc<Method>,
}

type Upload = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;

/// Why there are no further items, or none at all.
pub(crate) enum Ended {
    App(UntypedReply<SharedBody>),
    Failed(Failure),
    /// It was given up here.
    GivenUp(Problem),
}

impl From<CallError<UntypedReply<SharedBody>>> for Ended {
    fn from(error: CallError<UntypedReply<SharedBody>>) -> Ended {
        match error {
            CallError::App(error) => Ended::App(error),
            CallError::Failed(failure) => Ended::Failed(failure),
        }
    }
}

/// A line of an answer, with its end.
pub(crate) enum Line {
    Item(Bytes),
    Last(Bytes),
}

impl StreamingCall {
    /// A call whose ends these are, of which the rest of a body is sent.
    pub(crate) fn new<B>(
        (sender, items): UntypedEnds<AnyStream>,
        lines: Option<BodyLines<B>>,
        method: Arc<Method>,
    ) -> StreamingCall
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let upload = lines.map(|lines| -> Upload {
            Box::pin(upload(lines, Unfinished(Some(sender)), Arc::clone(&method)))
        });
        StreamingCall { items, upload, method }
    }

    /// Waits until the server's stream has begun, or its one reply is here; sends meanwhile.
    pub(crate) async fn begin(&mut self) -> Result<(), Ended> {
        poll_fn(|cx| {
            // What the server says comes first: it knows more of the call.
            if let Poll::Ready(begun) = self.items.poll_begin(cx) {
                return Poll::Ready(begun.map_err(Ended::from));
            }
            match self.poll_upload(cx) {
                Ok(()) => Poll::Pending,
                Err(problem) => Poll::Ready(Err(Ended::GivenUp(problem))),
            }
        })
        .await
    }

    pub(crate) fn items(&mut self) -> &mut UntypedItems<AnyStream> {
        &mut self.items
    }

    /// The next line of the answer; sends meanwhile.
    pub(crate) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Line> {
        // First, so that it goes on also if there is always an item.
        if let Err(problem) = self.poll_upload(cx) {
            return Poll::Ready(failure(&problem));
        }
        let next = ready!(self.items.poll_next(cx));
        Poll::Ready(match next.transpose() {
            Ok(Some(item)) => match self.method.decode_item(item.body.as_ref()) {
                Some(item) => Line::Item(line(&json!({ "item": item }))),
                None => failure(&bad_reply()),
            },
            Ok(None) => Line::Last(line(&json!({ "end": null }))),
            Err(CallError::App(error)) => match self.method.decode_error(error.body.as_ref()) {
                Some(error) => Line::Last(line(&json!({ "error": error }))),
                None => failure(&bad_reply()),
            },
            Err(CallError::Failed(failed)) => failure(&Problem::failed(&failed)),
        })
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Problem> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let Poll::Ready(sent) = upload.as_mut().poll(cx) else { return Ok(()) };
        self.upload = None;
        sent
    }
}

fn line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    text.into()
}

fn failure(problem: &Problem) -> Line {
    Line::Last(line(&json!({ "failure": problem.to_json() })))
}

pub(crate) fn bad_reply() -> Problem {
    Problem::failed(&Failure::unknown(Cause::BadReply))
}

/// Makes a call. Boxed, since the compiler does not see elsewhere that it may go to other threads.
pub(crate) fn open<'a>(
    call: UntypedCall<'a, AnyChannel>,
    streams: Streams,
) -> Pin<Box<dyn Future<Output = Result<UntypedEnds<AnyStream>, Failure>> + Send + 'a>> {
    Box::pin(call.open(streams))
}

/// A sender whose items are not all that was to be sent: if it is dropped so, the call is given up, and not merely ended, or the
/// server would take them for all there is.
struct Unfinished(Option<UntypedSender<AnyStream>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            sender.call().cancel();
        }
    }
}

/// Sends an item for each line that is left.
async fn upload<B>(
    mut lines: BodyLines<B>,
    mut sender: Unfinished,
    method: Arc<Method>,
) -> Result<(), Problem>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    while let Some(line) = lines.next().await.map_err(Problem::after_call)? {
        let item = item(&method, &line).map_err(|bad| bad.at(lines.number()))?;
        drop(line);
        let Some(sender) = &mut sender.0 else { break };
        match sender.send_as(method.item_codec(), item).await {
            Ok(()) => {}
            // The other half says how.
            Err(Failure { cause: Cause::StreamEnded, .. }) => break,
            Err(failure) => {
                return Err(Problem::failed(&failure).line(lines.number()).after_call());
            }
        }
    }
    if let Some(sender) = sender.0.take() {
        sender.end();
    }
    Ok(())
}

/// What is wrong with a line.
struct BadItem {
    reason: String,
    field: Option<String>,
}

impl BadItem {
    fn at(self, number: u64) -> Problem {
        let message = format!("line {number} of the body: {}", self.reason);
        let problem = Problem::bad_request("bad_item", message).line(number).after_call();
        match self.field {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

fn item(method: &Method, line: &[u8]) -> Result<Vec<u8>, BadItem> {
    let value = serde_json::from_slice::<Value>(line)
        .map_err(|error| BadItem { reason: not_json(&error), field: None })?;
    let encoded = method.encode_item(&value);
    encoded.map_err(|bad| BadItem { reason: bad.to_string(), field: Some(bad.path) })
}

/// What is wrong with a line that is not JSON. Its one line has another number where it comes from.
pub(crate) fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("it is not JSON: {what} at its column {}", error.column())
}
