//! A server, a gateway in front of it, and whoever asks it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{
    Answer, AnyChannel, Body, Bytes, Channel, Client, Context, Failure, HandlerError, Outgoing,
    Refusal, RemoteStream, RunningServer, Server, SharedBody, Status, Stream, StreamChannel,
};
use ringcall_core::{OwnedChannel, OwnedStreamChannel, Payload};
use ringcall_gateway::{Gateway, GatewayConfig, Stopped};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

// ---- the service ----

#[ringcall::message]
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    pub(crate) name: String,
    pub(crate) size: u8,
    pub(crate) parts: Vec<Part>,
}

#[ringcall::message]
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) number: u64,
}

#[ringcall::message]
#[derive(Clone, Debug)]
pub(crate) enum Flaw {
    TooLarge { most: u8 },
}

/// What a handler knows of its call.
#[ringcall::message]
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) remaining_ms: u64,
    pub(crate) trace: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) metadata: Vec<(String, String)>,
}

/// Does <script>alert("things")</script>.
#[ringcall::service(name = "test.Things")]
pub(crate) trait Things {
    /// The same again, unless it is <b>too large</b>.
    ///
    /// A second paragraph.
    #[method(idempotent, deadline = "30s")]
    async fn same(&self, thing: Thing) -> Result<Thing, Flaw>;
    #[method(deadline = "30s")]
    async fn reverse(&self, body: Body) -> Bytes;
    /// So many bytes.
    #[method(deadline = "30s")]
    async fn zeros(&self, count: u64) -> Bytes;
    #[method(one_way)]
    async fn toss(&self, number: u64);
    async fn count(&self, to: u64) -> impl Stream<Item = u64>;
    #[method(deadline = "30s")]
    async fn seen(&self, cx: &Context) -> Seen;
    /// Refuses with that status.
    #[method(deadline = "30s")]
    async fn refuse(&self, status: u16) -> Result<u64, HandlerError<Flaw>>;
    #[method(deadline = "30s")]
    async fn panics(&self) -> u64;
    /// Waits until it is dropped.
    #[method(deadline = "3600s")]
    async fn hang(&self) -> u64;
    /// Waits until the test says so.
    #[method(deadline = "3600s")]
    async fn held(&self) -> u64;
}

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) tossed: Signal,
    pub(crate) hangs: Signal,
    pub(crate) dropped: Signal,
    pub(crate) entered: Signal,
    pub(crate) release: Signal,
}

/// Something that happens in a handler and is waited for in a test, or the other way round.
#[derive(Default)]
pub(crate) struct Signal(Notify);

impl Signal {
    pub(crate) fn give(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn wait(&self) {
        self.0.notified().await;
    }
}

struct OnDrop<'a>(&'a Signal);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.give();
    }
}

impl Things for Arc<Shelf> {
    async fn same(&self, thing: Thing) -> Result<Thing, Flaw> {
        if thing.size > 100 { Err(Flaw::TooLarge { most: 100 }) } else { Ok(thing) }
    }

    async fn reverse(&self, body: Body) -> Bytes {
        body.iter().rev().copied().collect::<Vec<_>>().into()
    }

    async fn zeros(&self, count: u64) -> Bytes {
        vec![0; count as usize].into()
    }

    async fn toss(&self, _: u64) {
        self.tossed.give();
    }

    async fn count(&self, _: u64) -> impl Stream<Item = u64> {
        Empty
    }

    async fn seen(&self, cx: &Context) -> Seen {
        cx.reply_metadata("answer", "yes");
        cx.reply_metadata("answer", "grün");
        cx.reply_metadata("two-lines", "a\nb");
        let metadata = cx.metadata();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Seen {
            remaining_ms: cx.remaining().as_millis() as u64,
            trace: metadata.trace().map(|trace| trace.to_string()),
            group: metadata.group().map(str::to_owned),
            key: metadata.idempotency_key().map(text),
            metadata: metadata.iter().map(|(key, value)| (key.to_owned(), text(value))).collect(),
        }
    }

    async fn refuse(&self, status: u16) -> Result<u64, HandlerError<Flaw>> {
        let refusal = Refusal::new(Status::from_wire(status)).expect("a status of refusals");
        Err(refusal.retry_after(Duration::from_millis(1500)))?
    }

    async fn panics(&self) -> u64 {
        panic!("as the test wants it")
    }

    async fn hang(&self) -> u64 {
        let _dropped = OnDrop(&self.dropped);
        self.hangs.give();
        std::future::pending().await
    }

    async fn held(&self) -> u64 {
        self.entered.give();
        self.release.wait().await;
        7
    }
}

struct Empty;

impl Stream for Empty {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        Poll::Ready(None)
    }
}

/// A second one, with a type of the same name.
pub(crate) mod other {
    #[ringcall::message]
    pub(crate) struct Thing {
        pub(crate) other: bool,
    }

    #[ringcall::service(name = "test.Others")]
    pub(crate) trait Others {
        #[method(deadline = "30s")]
        async fn truth(&self, thing: Thing) -> bool;
    }

    pub(crate) struct Truth;

    impl Others for Truth {
        async fn truth(&self, thing: Thing) -> bool {
            thing.other
        }
    }
}

// ---- the gateway ----

/// A server with a gateway in front of it.
pub(crate) struct Site {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) server: RunningServer,
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Stopped>,
}

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig::default()
}

pub(crate) fn things() -> (RunningServer, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let server = Server::bind("127.0.0.1:0").service(Arc::clone(&shelf).into_things());
    let server = server.service(Interface.into_reflection()).start().expect("it starts");
    (server, shelf)
}

pub(crate) fn others() -> RunningServer {
    use other::Others as _;
    let server = Server::bind("127.0.0.1:0").service(other::Truth.into_others());
    server.service(Interface.into_reflection()).start().expect("it starts")
}

pub(crate) async fn client(server: &RunningServer) -> Client {
    // For answers that are larger than sockets hold.
    let config = ringcall::Config::new().message_bytes_max(32 << 20);
    Client::connect(server.address()).config(config).await.expect("it is there")
}

impl Site {
    pub(crate) async fn start(config: GatewayConfig) -> Site {
        Site::start_with(config, |gateway| gateway).await
    }

    pub(crate) async fn start_with(
        config: GatewayConfig,
        change: impl FnOnce(Gateway) -> Gateway,
    ) -> Site {
        let (server, shelf) = things();
        let channel = AnyChannel::new(client(&server).await);
        let gateway = change(Gateway::new(channel, config).expect("settings that make sense"));
        let (address, stop, serving) = serve(&gateway).await;
        Site { shelf, server, gateway, address, stop: Some(stop), serving }
    }

    pub(crate) async fn call(&self, method: &str, body: &str) -> Got {
        ask(self.address, &post(method, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        ask(self.address, &format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address)).await
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.stop.take();
    }

    pub(crate) async fn stopped(self) -> Stopped {
        self.serving.await.expect("it does not panic")
    }
}

pub(crate) async fn serve(
    gateway: &Gateway,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Stopped>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it has one");
    let (stop, stopping) = oneshot::channel::<()>();
    let gateway = gateway.clone();
    let serving =
        tokio::spawn(async move { gateway.serve(listener, async { drop(stopping.await) }).await });
    (address, stop, serving)
}

// ---- requests ----

pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
        value.to_str().expect("ASCII")
    }

    /// Its status and the word for what went wrong.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String) {
        let body = self.json();
        assert!(body["message"].is_string() && body["may_have_run"].is_boolean(), "{body}");
        (self.status.as_u16(), body["code"].as_str().expect("a code").to_owned())
    }
}

pub(crate) fn post(method: &str, body: &str) -> String {
    post_with(method, "content-type: application/json\r\n", body)
}

/// With these headers, each of which ends its line.
pub(crate) fn post_with(method: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST /{method} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len}\r\n\r\n{body}"
    )
}

/// On a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Got {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // It may be refused before all of it is there.
    let _ = stream.write_all(request.as_ref()).await;
    let is_head = request.as_ref().starts_with(b"HEAD");
    read(&mut stream, is_head).await.expect("an answer")
}

pub(crate) async fn read(stream: &mut TcpStream, is_head: bool) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = bytes[..end].to_vec();
    let mut body = bytes.split_off(end + 4);
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status = lines.next()?.split(|byte| *byte == b' ').nth(1)?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    let len = headers.get("content-length").and_then(|it| it.to_str().ok()?.parse().ok());
    let len = if is_head { 0 } else { len.unwrap_or(0) };
    while body.len() < len {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Got { status: StatusCode::from_bytes(status).ok()?, headers, body })
}

// ---- a channel that does what a test wants ----

/// To one server or another, or to none.
#[derive(Clone)]
pub(crate) struct Switch(Arc<SwitchState>);

struct SwitchState {
    client: Mutex<Client>,
    /// What calls fail with, but those of reflection if only others are to.
    failure: Mutex<Option<(Failure, bool)>>,
    asked: AtomicUsize,
}

impl Switch {
    pub(crate) fn to(client: Client) -> Switch {
        let (client, failure) = (Mutex::new(client), Mutex::default());
        Switch(Arc::new(SwitchState { client, failure, asked: AtomicUsize::new(0) }))
    }

    pub(crate) fn turn(&self, client: Client) {
        *self.0.client.lock().unwrap() = client;
    }

    /// All calls fail so.
    pub(crate) fn break_off(&self, failure: Failure) {
        *self.0.failure.lock().unwrap() = Some((failure, true));
    }

    /// All calls but those of reflection fail so.
    pub(crate) fn fail(&self, failure: Failure) {
        *self.0.failure.lock().unwrap() = Some((failure, false));
    }

    pub(crate) fn mend(&self) {
        *self.0.failure.lock().unwrap() = None;
    }

    /// How often it was asked which services there are.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(SeqCst)
    }
}

pub(crate) enum Switched<P: Payload + Clone> {
    Failed(Failure),
    Called(<Client as OwnedChannel>::Owned<P>),
}

impl<P: Payload + Clone> Future for Switched<P> {
    type Output = Result<Answer<SharedBody>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Switched::Failed(failure) => Poll::Ready(Err(*failure)),
            Switched::Called(call) => Pin::new(call).poll(cx),
        }
    }
}

impl Channel for Switch {
    type Body = SharedBody;
    type Pending<'a, P>
        = Switched<P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(&'a self, call: Outgoing, payload: P) -> Switched<P> {
        let is_reflection = call.name.starts_with("ringcall.Reflection/");
        if call.name == "ringcall.Reflection/services" {
            self.0.asked.fetch_add(1, SeqCst);
        }
        match *self.0.failure.lock().unwrap() {
            Some((failure, is_for_all)) if is_for_all || !is_reflection => {
                Switched::Failed(failure)
            }
            _ => {
                let client = self.0.client.lock().unwrap().clone();
                Switched::Called(client.call_owned(call, payload))
            }
        }
    }
}

pub(crate) enum SwitchedOpening<'a> {
    Failed(Failure),
    Opened(Pin<Box<dyn Future<Output = Result<RemoteStream, Failure>> + Send + 'a>>),
}

impl Future for SwitchedOpening<'_> {
    type Output = Result<RemoteStream, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut *self {
            SwitchedOpening::Failed(failure) => Poll::Ready(Err(*failure)),
            SwitchedOpening::Opened(opening) => opening.as_mut().poll(cx),
        }
    }
}

impl StreamChannel for Switch {
    type Call = RemoteStream;
    type Opening<'a, P>
        = SwitchedOpening<'a>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> SwitchedOpening<'a> {
        if let Some((failure, _)) = *self.0.failure.lock().unwrap() {
            return SwitchedOpening::Failed(failure);
        }
        let client = self.0.client.lock().unwrap().clone();
        SwitchedOpening::Opened(client.open_owned(call, payload))
    }
}

pub(crate) async fn serve_switched(
    config: GatewayConfig,
) -> (Switch, RunningServer, SocketAddr, oneshot::Sender<()>, Gateway) {
    let (server, _) = things();
    let switch = Switch::to(client(&server).await);
    let gateway = Gateway::new(AnyChannel::new(switch.clone()), config).expect("they make sense");
    let (address, stop, _) = serve(&gateway).await;
    (switch, server, address, stop, gateway)
}
