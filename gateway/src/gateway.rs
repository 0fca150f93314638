//! From a request to its answer.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, header};
use hyper::body::Body;
use ringcall::{
    AnyChannel, AnyStream, CallError, Failure, Reply, SharedBody, Status, Streams, UntypedCall,
    UntypedEnds, UntypedReply, UntypedResult,
};
use ringcall_generic::{GenericCall, GenericError, GenericStreams, Method};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{
    Answer, BYTES, JSON, JSONL, LINES, add_metadata, json_response, response as respond_with,
};
use crate::body::Lines;
use crate::known::{Known, Snapshot};
use crate::lines::BodyLines;
use crate::problem::Problem;
use crate::request::{self, CallHeaders};
use crate::streams::{self, Ended, StreamingCall, bad_reply};
use crate::{BadGatewayConfig, GatewayBody, GatewayConfig, console, listing, openapi, origin};

type Authorize = Arc<dyn Fn(&Parts) -> Result<(), StatusCode> + Send + Sync>;

/// Makes calls of requests. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
    authorize: Option<Authorize>,
}

struct Inner {
    channel: AnyChannel,
    config: GatewayConfig,
    known: Known,
    room: Arc<Semaphore>,
    /// For calls with streams, which may take as long as they like: others do not wait for them.
    stream_room: Arc<Semaphore>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway to whatever is behind this channel: a [`Client`](ringcall::Client), a balanced channel, a test's. The server has
    /// to offer [`ringcall::reflection`]. Nothing is asked yet.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn new(channel: AnyChannel, config: GatewayConfig) -> Result<Gateway, BadGatewayConfig> {
        config.validate()?;
        let room = Arc::new(Semaphore::new(config.in_flight_max));
        let stream_room = Arc::new(Semaphore::new(config.streams_max));
        let inner = Inner { channel, config, known: Known::new(), room, stream_room };
        Ok(Gateway { inner: Arc::new(inner), authorize: None })
    }

    /// Asks this about every request but those for `/healthz`, before anything of it is looked at; what it refuses is answered
    /// with the status that it gives. It runs in the task of the connection: it must not block. A gateway without lets everybody
    /// call everything.
    ///
    /// ```
    /// # use ringcall_gateway::Gateway;
    /// # fn only_known(gateway: Gateway) -> Gateway {
    /// use http::{StatusCode, header};
    ///
    /// gateway.authorize(|request| match request.headers.get(header::AUTHORIZATION) {
    ///     Some(given) if ringcall::same_secret(given.as_bytes(), b"Bearer of good news") => Ok(()),
    ///     _ => Err(StatusCode::UNAUTHORIZED),
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn authorize(
        mut self,
        hook: impl Fn(&Parts) -> Result<(), StatusCode> + Send + Sync + 'static,
    ) -> Gateway {
        self.authorize = Some(Arc::new(hook));
        self
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &GatewayConfig {
        &self.inner.config
    }

    /// Asks the server what it serves, every so often and for ever. [`serve`](Gateway::serve) does it by itself; whoever calls
    /// [`handle`](Gateway::handle) spawns it. Without, the server is asked when a method is not known.
    pub async fn keep_fresh(&self) {
        let Inner { channel, config, known, .. } = &*self.inner;
        known.keep_fresh(channel, config.refresh, config.refresh_pause).await;
    }

    /// Answers a request, within a service of HTTP of one's own, on tokio. Dropping the future gives the call up, and so does
    /// dropping the body of the answer, which has what is still to come of the request. Limits of connections, of headers and of answers that nobody reads are up to whoever serves them.
    ///
    /// Paths are taken as they are: under a prefix of one's own, that is to be cut off before.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<GatewayBody>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.answer(request).await.into_response(None)
    }

    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Verb::HEAD;
        let mut answer = match self.route(&parts, body).await {
            Ok(answer) => answer,
            Err(problem) => problem.into_response().into(),
        };
        if is_head {
            let length = answer.response.body().len();
            answer.response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            *answer.response.body_mut() = Bytes::new();
        }
        answer
    }

    async fn route<B>(&self, parts: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let config = &self.inner.config;
        let path = parts.uri.path();
        // Whoever looks after it has neither its name nor a password.
        if path == "/healthz" {
            expect_get(parts)?;
            return Ok(self.health().await.into());
        }
        self.expect_authorized(parts)?;
        origin::expect_host(parts, config)?;
        match path {
            "/" | "/services.json" if config.console => expect_get(parts)?,
            "/openapi.json" if config.openapi => expect_get(parts)?,
            _ => return self.call(parts, body).await,
        }
        Ok(match path {
            "/" => console::page().into(),
            "/services.json" => self.listing().await?.into(),
            _ => self.openapi().await?.into(),
        })
    }

    fn expect_authorized(&self, parts: &Parts) -> Result<(), Problem> {
        let Some(authorize) = &self.authorize else { return Ok(()) };
        authorize(parts).map_err(|status| {
            let code = match status {
                StatusCode::UNAUTHORIZED => "unauthenticated",
                _ => "forbidden",
            };
            Problem::new(
                status,
                code,
                "this gateway does not take the request: its hook refuses it",
            )
        })
    }

    // ---- pages ----

    async fn health(&self) -> Response<Bytes> {
        // For whoever does not keep it fresh.
        let _ = self.snapshot().await;
        match self.inner.known.failure() {
            None => json_response(StatusCode::OK, &json!({ "status": "ok" })),
            Some(reason) => {
                let body = json!({ "status": "unavailable", "reason": reason });
                json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        }
    }

    async fn listing(&self) -> Result<Response<Bytes>, Problem> {
        let snapshot = self.snapshot().await?;
        let text = || listing::listing(&snapshot.catalog, &self.inner.config).to_string().into();
        let text = snapshot.listing.get_or_init(text).clone();
        Ok(respond_with(StatusCode::OK, JSON, text))
    }

    async fn openapi(&self) -> Result<Response<Bytes>, Problem> {
        let snapshot = self.snapshot().await?;
        let text = || openapi::document(&snapshot.catalog, &self.inner.config).to_string().into();
        let text = snapshot.openapi.get_or_init(text).clone();
        Ok(respond_with(StatusCode::OK, JSON, text))
    }

    // ---- what is known ----

    async fn refresh(&self) {
        let Inner { channel, config, known, .. } = &*self.inner;
        known.refresh(channel, config.refresh_pause).await;
    }

    /// What is known, which is asked for if that was not done yet.
    async fn snapshot(&self) -> Result<Arc<Snapshot>, Problem> {
        if let Some(snapshot) = self.inner.known.snapshot() {
            return Ok(snapshot);
        }
        self.refresh().await;
        self.inner.known.snapshot().ok_or_else(|| {
            let reason = self.inner.known.failure().unwrap_or_default();
            let message = format!("it is not known yet what the server serves: {reason}");
            let pause = self.inner.config.refresh_pause;
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_known", message).retry_after(pause)
        })
    }

    /// What is known, with that method, which may have been added lately.
    async fn knowing(&self, name: &str) -> Result<Arc<Snapshot>, Problem> {
        let snapshot = self.snapshot().await?;
        if snapshot.catalog.method(name).is_some() {
            return Ok(snapshot);
        }
        self.refresh().await;
        let snapshot = self.snapshot().await?;
        match snapshot.catalog.method(name) {
            Some(_) => Ok(snapshot),
            None => Err(self.no_method(name)),
        }
    }

    fn no_method(&self, name: &str) -> Problem {
        let mut message = format!("the server has no method {name}");
        if self.inner.config.console {
            message.push_str("; / shows those that it has");
        }
        Problem::new(StatusCode::NOT_FOUND, "unknown_method", message)
    }

    // ---- calls ----

    async fn call<B>(&self, parts: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let config = &self.inner.config;
        let Some(name) = request::method_name(parts.uri.path()) else {
            let message =
                "there is nothing here: methods are called by POST /package.Service/method";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message));
        };
        if parts.method != Verb::POST {
            return Err(Problem::not_allowed("POST"));
        }
        origin::expect_same_site(parts, config)?;
        // It has a place also while the server is asked for a method that is not known yet.
        let was_stream = self.is_known_stream(&name);
        let mut permit = self.enter(was_stream)?;
        let snapshot = self.knowing(&name).await?;
        let method = snapshot.catalog.method(&name).ok_or_else(|| self.no_method(&name))?;
        if method.has_streams() != was_stream {
            permit = self.enter(!was_stream)?;
        }
        let headers = CallHeaders::read(&parts.headers, config)?;
        if let Some(streams) = method.streams() {
            return self.stream(parts, body, method, streams, headers, permit).await;
        }
        let kind = if method.argument().is_leaf("raw") { &BYTES } else { &JSON };
        let body = request::body(parts, body, kind, config).await?;
        let response = self.make(method, headers, body).await?;
        Ok(Answer { response, lines: None, permit: Some(permit) })
    }

    fn is_known_stream(&self, name: &str) -> bool {
        let snapshot = self.inner.known.snapshot();
        snapshot.is_some_and(|known| known.catalog.method(name).is_some_and(Method::has_streams))
    }

    /// A place among the calls that are under way.
    fn enter(&self, is_stream: bool) -> Result<OwnedSemaphorePermit, Problem> {
        let (room, of_what) = match is_stream {
            true => (
                &self.inner.stream_room,
                "streams under way as it may (`GatewayConfig::streams_max`)",
            ),
            false => {
                (&self.inner.room, "calls under way as it may (`GatewayConfig::in_flight_max`)")
            }
        };
        Arc::clone(room).try_acquire_owned().map_err(|_| {
            let message = format!("the gateway has as many {of_what}");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_busy", message);
            problem.retry_after(std::time::Duration::from_secs(1))
        })
    }

    // ---- calls with streams ----

    async fn stream<B>(
        &self,
        parts: &Parts,
        body: B,
        method: &Method,
        streams: Streams,
        headers: CallHeaders,
        permit: OwnedSemaphorePermit,
    ) -> Result<Answer, Problem>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let config = &self.inner.config;
        let (argument, lines) = match streams.has_in() {
            true => {
                request::expect_type(parts, &body, &[LINES, JSONL])?;
                let mut lines = BodyLines::new(body, config);
                (first_line(method, &mut lines, config).await?, Some(lines))
            }
            false => {
                let kind = if method.argument().is_leaf("raw") { &BYTES } else { &JSON };
                let body = request::body(parts, body, kind, config).await?;
                (argument(method, &body)?, None)
            }
        };
        let ends = self.open(method, streams, headers, argument).await?;
        let mut call = StreamingCall::new(ends, lines, Arc::new(method.clone()));
        let begun = call.begin().await;
        let is_stream = begun.is_ok() && streams.has_out();
        let mut response = match begun {
            Ok(()) if is_stream => begin_lines(),
            Ok(()) => match call.items().next().await {
                Some(Ok(reply)) => replied(method, reply)?,
                _ => return Err(bad_reply()),
            },
            Err(Ended::App(error)) => app_error(method, &error, config.error_status)?,
            Err(Ended::Failed(failure)) => return Err(self.failed(&failure)),
            Err(Ended::GivenUp(problem)) => return Err(problem),
        };
        let items = call.items();
        for metadata in [items.metadata(), items.end_metadata()].into_iter().flatten() {
            add_metadata(&mut response, &config.metadata_prefix, metadata);
        }
        let lines = is_stream.then(|| Lines::new(call, config));
        Ok(Answer { response, lines, permit: Some(permit) })
    }

    async fn open(
        &self,
        method: &Method,
        streams: Streams,
        headers: CallHeaders,
        argument: Vec<u8>,
    ) -> Result<UntypedEnds<AnyStream>, Problem> {
        let Inner { channel, config, .. } = &*self.inner;
        // Whoever sends takes its time, unless something is said of that.
        let unsaid = if streams.has_in() { None } else { Some(config.deadline) };
        let deadline = headers.deadline.or(method.deadline()).or(unsaid);
        let call = GenericStreams::with_encoded(channel, method, argument);
        let mut call = call.map_err(not_callable)?;
        if let Some(deadline) = deadline {
            call = call.deadline(deadline.min(config.deadline_max));
        }
        let call = headers.apply(call.into_untyped().0)?;
        streams::open(call, streams).await.map_err(|failure| self.failed(&failure))
    }

    /// What is answered in place of a reply, and perhaps what is known is old.
    fn failed(&self, failure: &Failure) -> Problem {
        if let Some(Status::UNKNOWN_METHOD | Status::BAD_BODY | Status::BAD_ITEM) = failure.status()
        {
            self.inner.known.doubt();
        }
        Problem::failed(failure)
    }

    // ---- calls without ----

    async fn make(
        &self,
        method: &Method,
        headers: CallHeaders,
        body: Bytes,
    ) -> Result<Response<Bytes>, Problem> {
        let Inner { channel, config, .. } = &*self.inner;
        let deadline = headers.deadline.or(method.deadline()).unwrap_or(config.deadline);
        let call = GenericCall::with_encoded(channel, method, argument(method, &body)?);
        // The value is gone, and so is its text.
        drop(body);
        let call = call.map_err(not_callable)?.deadline(deadline.min(config.deadline_max));
        let reply = boxed(headers.apply(call.into_untyped())?).await;
        let mut response = match reply.result {
            Ok(_) if method.is_one_way() => {
                respond_with(StatusCode::ACCEPTED, JSON, Bytes::from_static(b"null"))
            }
            Ok(reply) => replied(method, reply)?,
            Err(CallError::App(error)) => app_error(method, &error, config.error_status)?,
            Err(CallError::Failed(failure)) => return Err(self.failed(&failure)),
        };
        add_metadata(&mut response, &config.metadata_prefix, &reply.metadata);
        Ok(response)
    }
}

/// What comes before the lines of a stream.
fn begin_lines() -> Response<Bytes> {
    let mut response = respond_with(StatusCode::OK, LINES, Bytes::new());
    // For nginx, which gives nothing on before it has much, unless it is told.
    let buffering = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    response
}

/// For pages of the gateway's own.
fn expect_get(parts: &Parts) -> Result<(), Problem> {
    match parts.method {
        Verb::GET | Verb::HEAD => Ok(()),
        _ => Err(Problem::not_allowed("GET, HEAD")),
    }
}

fn not_callable(error: GenericError) -> Problem {
    Problem::new(StatusCode::NOT_IMPLEMENTED, "not_callable", error.to_string())
}

/// What goes to the server.
fn argument(method: &Method, body: &[u8]) -> Result<Vec<u8>, Problem> {
    if method.argument().is_leaf("raw") {
        return Ok(body.to_vec());
    }
    let value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(body).map_err(|error| {
            Problem::bad_request("bad_json", format!("the body is not JSON: {error}"))
        })?,
    };
    encoded(method, &value)
}

fn encoded(method: &Method, argument: &Value) -> Result<Vec<u8>, Problem> {
    method.encode_argument(argument).map_err(|mismatch| {
        let message = format!("{}: {mismatch}", method.full_name());
        Problem::bad_request("bad_argument", message).field(mismatch.path)
    })
}

/// The argument of a call whose body has items after it.
async fn first_line<B>(
    method: &Method,
    lines: &mut BodyLines<B>,
    config: &GatewayConfig,
) -> Result<Vec<u8>, Problem>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let line = tokio::time::timeout(config.read_timeout, lines.next()).await.map_err(|_| {
        let message = "the first line of the body, which is the argument, took longer than `GatewayConfig::read_timeout`";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    })?;
    let Some(line) = line? else { return encoded(method, &Value::Null) };
    let number = lines.number();
    let value = serde_json::from_slice(&line).map_err(|error| {
        let message = format!("line {number} of the body: {}", streams::not_json(&error));
        Problem::bad_request("bad_json", message).line(number)
    })?;
    encoded(method, &value).map_err(|problem| problem.line(number))
}

fn replied(method: &Method, reply: UntypedReply<SharedBody>) -> Result<Response<Bytes>, Problem> {
    if method.reply().is_leaf("raw") {
        return Ok(respond_with(StatusCode::OK, BYTES, Bytes::from_owner(reply.body)));
    }
    let value = method.decode_reply(reply.body.as_ref()).ok_or_else(bad_reply)?;
    Ok(json_response(StatusCode::OK, &value))
}

fn app_error(
    method: &Method,
    error: &UntypedReply<SharedBody>,
    status: StatusCode,
) -> Result<Response<Bytes>, Problem> {
    let value = method.decode_error(error.body.as_ref()).ok_or_else(bad_reply)?;
    Ok(json_response(status, &json!({ "error": value })))
}

/// The compiler does not see through the future of any channel that it may go to other threads, but where it begins.
fn boxed<'a>(call: UntypedCall<'a, AnyChannel>) -> Pin<Box<dyn Future<Output = Told> + Send + 'a>> {
    Box::pin(call.into_future())
}

type Told = Reply<UntypedResult<SharedBody>, SharedBody>;

/// For `HeaderValue`s that are made here.
pub(crate) fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("it is ASCII")
}
