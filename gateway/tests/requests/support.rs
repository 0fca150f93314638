//! A server, a gateway in front of it, and whoever asks it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{
    Answer, AnyChannel, Body, Bytes, Channel, Client, Context, Failure, HandlerError, Items,
    Outgoing, Refusal, RemoteStream, RunningServer, Server, SharedBody, Status, Stream,
    StreamChannel,
};
use ringcall_core::{OwnedChannel, OwnedStreamChannel, Payload};
use ringcall_gateway::{Gateway, GatewayConfig, Stopped};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
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
    /// Numbers from 0.
    async fn count(&self, to: u64) -> impl Stream<Item = u64>;
    /// What the test says.
    #[method(deadline = "30s")]
    async fn feed(&self, cx: &Context) -> impl Stream<Item = Result<u64, Flaw>>;
    #[method(deadline = "30s")]
    async fn flawed(&self) -> Result<impl Stream<Item = u64>, Flaw>;
    /// Never begins.
    #[method(deadline = "30s")]
    async fn late(&self) -> impl Stream<Item = u64>;
    /// Texts of so many bytes, without end.
    #[method(deadline = "30s")]
    async fn texts(&self, bytes: u64) -> impl Stream<Item = String>;
    /// Sums what comes, up to a part of 0. 13 is none.
    async fn sum(&self, cx: &Context, from: u64, parts: Items<Part>) -> Result<u64, Flaw>;
    /// How many there are, which it looks at when the test says so.
    async fn later(&self, parts: Items<String>) -> u64;
    /// Each again, with so much more, up to a part of 0.
    #[method(deadline = "30s")]
    async fn echo(&self, more: u64, parts: Items<Part>) -> impl Stream<Item = Part>;
    async fn blobs(&self, blobs: Items<Bytes>) -> impl Stream<Item = Bytes>;
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
    /// What `feed` is to give.
    pub(crate) feed: Tape<Fed>,
    /// Which parts have come.
    pub(crate) parts: Tape<u64>,
    /// How many handlers have heard that there are no further ones.
    pub(crate) ended: AtomicUsize,
    /// How many texts were made.
    pub(crate) made: AtomicUsize,
}

#[derive(Debug)]
pub(crate) enum Fed {
    Item(u64),
    Flaw,
    Panic,
    End,
}

/// Values from one side to the other.
pub(crate) struct Tape<T> {
    sender: mpsc::UnboundedSender<T>,
    receiver: Mutex<mpsc::UnboundedReceiver<T>>,
}

impl<T> Default for Tape<T> {
    fn default() -> Tape<T> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Tape { sender, receiver: Mutex::new(receiver) }
    }
}

impl<T> Tape<T> {
    pub(crate) fn put(&self, value: T) {
        assert!(self.sender.send(value).is_ok(), "the other end is here");
    }

    pub(crate) async fn next(&self) -> T {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut TaskContext<'_>) -> Poll<T> {
        let next = self.receiver.lock().unwrap().poll_recv(cx);
        next.map(|value| value.expect("the other end is here"))
    }
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

/// Says that it was dropped.
struct Dropped(Arc<Shelf>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.dropped.give();
    }
}

struct Polled<F>(F);

impl<T, F: FnMut(&mut TaskContext<'_>) -> Poll<Option<T>> + Unpin> Stream for Polled<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
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

    async fn count(&self, to: u64) -> impl Stream<Item = u64> {
        let mut numbers = 0..to;
        Polled(move |_: &mut TaskContext<'_>| Poll::Ready(numbers.next()))
    }

    async fn feed(&self, cx: &Context) -> impl Stream<Item = Result<u64, Flaw>> {
        cx.reply_metadata("feed", "begins");
        let dropped = Dropped(Arc::clone(self));
        Polled(move |cx: &mut TaskContext<'_>| {
            dropped.0.feed.poll(cx).map(|fed| match fed {
                Fed::Item(number) => Some(Ok(number)),
                Fed::Flaw => Some(Err(Flaw::TooLarge { most: 7 })),
                Fed::Panic => panic!("as the test wants it"),
                Fed::End => None,
            })
        })
    }

    async fn flawed(&self) -> Result<impl Stream<Item = u64>, Flaw> {
        Err::<Polled<fn(&mut TaskContext<'_>) -> Poll<Option<u64>>>, _>(Flaw::TooLarge { most: 7 })
    }

    async fn late(&self) -> impl Stream<Item = u64> {
        let _dropped = OnDrop(&self.dropped);
        self.hangs.give();
        std::future::pending::<Polled<fn(&mut TaskContext<'_>) -> Poll<Option<u64>>>>().await
    }

    async fn texts(&self, bytes: u64) -> impl Stream<Item = String> {
        let dropped = Dropped(Arc::clone(self));
        Polled(move |_: &mut TaskContext<'_>| {
            dropped.0.made.fetch_add(1, SeqCst);
            Poll::Ready(Some("a".repeat(bytes as usize)))
        })
    }

    async fn sum(&self, cx: &Context, from: u64, mut parts: Items<Part>) -> Result<u64, Flaw> {
        let _dropped = OnDrop(&self.dropped);
        cx.reply_metadata("sum", "yes");
        cx.reply_metadata("remaining-ms", cx.remaining().as_millis().to_string());
        self.entered.give();
        let mut sum = from;
        while let Some(part) = parts.next().await {
            self.parts.put(part.number);
            match part.number {
                0 => return Ok(sum),
                13 => return Err(Flaw::TooLarge { most: 7 }),
                number => sum += number,
            }
        }
        self.ended.fetch_add(1, SeqCst);
        Ok(sum)
    }

    async fn later(&self, mut parts: Items<String>) -> u64 {
        self.entered.give();
        self.release.wait().await;
        let mut count = 0;
        while parts.next().await.is_some() {
            count += 1;
        }
        count
    }

    async fn echo(&self, more: u64, mut parts: Items<Part>) -> impl Stream<Item = Part> {
        let dropped = Dropped(Arc::clone(self));
        Polled(move |cx: &mut TaskContext<'_>| {
            let part = std::task::ready!(Pin::new(&mut parts).poll_next(cx));
            if part.is_none() {
                dropped.0.ended.fetch_add(1, SeqCst);
            }
            let part = part.filter(|part| part.number != 0);
            Poll::Ready(part.map(|part| Part { number: part.number + more }))
        })
    }

    async fn blobs(&self, blobs: Items<Bytes>) -> impl Stream<Item = Bytes> {
        blobs
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
    let (status, headers) = read_head(stream, &mut bytes).await?;
    let mut body = bytes;
    let len = headers.get("content-length").and_then(|it| it.to_str().ok()?.parse().ok());
    let len = if is_head { 0 } else { len.unwrap_or(0) };
    while body.len() < len {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Got { status, headers, body })
}

/// Leaves what comes after it.
async fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(StatusCode, HeaderMap)> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head: Vec<u8> = bytes.drain(..end + 4).collect();
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status = lines.next()?.split(|byte| *byte == b' ').nth(1)?;
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((StatusCode::from_bytes(status).ok()?, headers))
}

// ---- streams over HTTP/1.1 ----

/// A request whose body is sent in pieces, and whose answer is read in lines.
pub(crate) struct Exchange {
    pub(crate) stream: TcpStream,
    /// Of the connection.
    bytes: Vec<u8>,
    /// Of the body, without its encoding.
    text: Vec<u8>,
    /// Whether the body has ended as it is to.
    pub(crate) has_ended: bool,
}

impl Exchange {
    /// Of a whole request.
    pub(crate) async fn ask(site: &Site, request: impl AsRef<[u8]>) -> Exchange {
        let mut stream = TcpStream::connect(site.address).await.expect("it listens");
        stream.write_all(request.as_ref()).await.expect("it is read");
        Exchange { stream, bytes: Vec::new(), text: Vec::new(), has_ended: false }
    }

    /// Of one whose body comes in chunks.
    pub(crate) async fn begin(site: &Site, method: &str) -> Exchange {
        let head = format!(
            "POST /{method} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        Exchange::ask(site, head).await
    }

    pub(crate) async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).await.expect("it is read");
    }

    pub(crate) async fn end(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").await.expect("it is read");
    }

    /// The answer, if it is an ordinary one.
    pub(crate) async fn whole(&mut self) -> Got {
        let got = read(&mut self.stream, false).await.expect("an answer");
        assert!(!got.headers.contains_key("transfer-encoding"), "it is a stream");
        got
    }

    /// The headers of an answer that is a stream.
    pub(crate) async fn head(&mut self) -> HeaderMap {
        let head = read_head(&mut self.stream, &mut self.bytes).await;
        let (status, headers) = head.expect("an answer");
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        assert_eq!(headers["transfer-encoding"], "chunked");
        headers
    }

    /// The next line, which may be empty; none at the end, however it comes.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line = self.text.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("text").trim_end().to_owned());
            }
            if self.has_ended || !self.take_chunk().await {
                assert!(self.text.is_empty(), "half a line");
                return None;
            }
        }
    }

    /// The next line that is not empty, as a value.
    pub(crate) async fn value(&mut self) -> Option<Value> {
        loop {
            match self.line().await?.as_str() {
                "" => {}
                line => return Some(serde_json::from_str(line).expect("JSON")),
            }
        }
    }

    async fn take_chunk(&mut self) -> bool {
        loop {
            if let Some((len, begin)) = chunk(&self.bytes)
                && self.bytes.len() >= begin + len + 2
            {
                self.text.extend_from_slice(&self.bytes[begin..begin + len]);
                self.bytes.drain(..begin + len + 2);
                self.has_ended = len == 0;
                return true;
            }
            if self.stream.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
    }
}

/// How long a chunk is, and where it begins.
fn chunk(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(2).position(|at| at == b"\r\n")?;
    let len = std::str::from_utf8(&bytes[..end]).expect("a length");
    Some((usize::from_str_radix(len, 16).expect("a length"), end + 2))
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
