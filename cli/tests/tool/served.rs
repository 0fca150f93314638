//! What is called, and how the tool is run.

use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Body, Bytes, Context, HandlerError, Refusal, RunningServer, Server, Stream};
use ringcall_cli::{Exit, Io, run};
use serde_json::Value;

#[ringcall::message]
pub(crate) struct Symbol {
    pub(crate) code: String,
}

#[ringcall::message]
pub(crate) struct Quote {
    pub(crate) price: f64,
}

#[ringcall::message]
pub(crate) enum NoSuch {
    Symbol { code: String },
}

/// Prices as they are traded.
#[ringcall::service(name = "test.Market")]
pub(crate) trait Market {
    /// The last quote of a symbol.
    ///
    /// It may be old.
    #[method(idempotent, deadline = "30s")]
    async fn last(&self, symbol: Symbol) -> Result<Quote, NoSuch>;
    #[method(one_way)]
    async fn note(&self, text: String);
    #[method(deadline = "30s")]
    async fn nothing(&self);
    #[method(deadline = "30s")]
    async fn reverse(&self, body: Body) -> Bytes;
    async fn ticks(&self, to: u64) -> impl Stream<Item = u64>;
    /// Has no answer.
    async fn hang(&self);
    #[method(deadline = "30s")]
    async fn refuse(&self) -> Result<(), HandlerError<NoSuch>>;
    /// What comes beside the call.
    #[method(deadline = "30s")]
    async fn beside(&self, cx: &Context) -> Vec<String>;
}

pub(crate) struct Floor;

impl Market for Floor {
    async fn last(&self, symbol: Symbol) -> Result<Quote, NoSuch> {
        match symbol.code.as_str() {
            "ABC" => Ok(Quote { price: 42.0 }),
            code => Err(NoSuch::Symbol { code: code.to_owned() }),
        }
    }

    async fn note(&self, _: String) {}

    async fn nothing(&self) {}

    async fn reverse(&self, body: Body) -> Bytes {
        body.iter().rev().copied().collect::<Vec<_>>().into()
    }

    async fn ticks(&self, _: u64) -> impl Stream<Item = u64> {
        Empty
    }

    async fn hang(&self) {
        std::future::pending().await
    }

    async fn refuse(&self) -> Result<(), HandlerError<NoSuch>> {
        Err(Refusal::overloaded())?
    }

    async fn beside(&self, cx: &Context) -> Vec<String> {
        cx.reply_metadata("answer", "\u{1b}[31mred");
        let metadata = cx.metadata();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut beside: Vec<_> =
            metadata.iter().map(|(key, value)| format!("{key}={}", text(value))).collect();
        beside.extend(metadata.group().map(str::to_owned));
        beside.extend(metadata.idempotency_key().map(text));
        beside
    }
}

struct Empty;

impl Stream for Empty {
    type Item = u64;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<u64>> {
        std::task::Poll::Ready(None)
    }
}

/// A server with reflection, and its address.
pub(crate) fn serve() -> (RunningServer, String) {
    started(Server::bind("127.0.0.1:0").service(Interface.into_reflection()))
}

/// The same without.
pub(crate) fn serve_silently() -> (RunningServer, String) {
    started(Server::bind("127.0.0.1:0"))
}

fn started(server: Server) -> (RunningServer, String) {
    let server = server.service(Floor.into_market()).start().expect("it starts");
    let address = server.address().to_string();
    (server, address)
}

/// What the tool came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it ended so, and what it said then.
    pub(crate) fn says(&self, exit: Exit) -> &str {
        assert_eq!(self.exit, exit, "{self:?}");
        &self.stderr
    }
}

pub(crate) fn ringcall(args: &[&str]) -> Ran {
    ringcall_with(args, b"")
}

pub(crate) fn ringcall_with(args: &[&str], mut stdin: &[u8]) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let args = ["ringcall"].iter().chain(args).copied();
    let exit = run(args, Io::of(&mut stdin, &mut stdout, &mut stderr));
    Ran { exit, stdout, stderr: String::from_utf8(stderr).expect("text") }
}
