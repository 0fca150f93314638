//! What is called, and how the tool is run.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Body, Bytes, Context, HandlerError, Items, Refusal, RunningServer, Server, Stream};
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
    /// The prices of what is asked for, until there is none of that name.
    async fn prices(
        &self,
        cx: &Context,
        symbols: Items<Symbol>,
    ) -> Result<impl Stream<Item = Result<Quote, NoSuch>>, NoSuch>;
    /// Adds them up.
    async fn total(&self, from: u64, numbers: Items<u64>) -> Result<u64, NoSuch>;
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

    async fn ticks(&self, to: u64) -> impl Stream<Item = u64> {
        Ticks(0, to)
    }

    async fn prices(
        &self,
        cx: &Context,
        symbols: Items<Symbol>,
    ) -> Result<impl Stream<Item = Result<Quote, NoSuch>>, NoSuch> {
        cx.reply_metadata("floor", "open");
        Ok(Prices(symbols))
    }

    async fn total(&self, from: u64, mut numbers: Items<u64>) -> Result<u64, NoSuch> {
        let mut total = from;
        while let Some(number) = numbers.next().await {
            if number == 13 {
                return Err(NoSuch::Symbol { code: "13".to_owned() });
            }
            total += number;
        }
        Ok(total)
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

struct Ticks(u64, u64);

impl Stream for Ticks {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        self.0 += 1;
        Poll::Ready((self.0 <= self.1).then_some(self.0))
    }
}

struct Prices(Items<Symbol>);

impl Stream for Prices {
    type Item = Result<Quote, NoSuch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let quote = |symbol: Symbol| match symbol.code.as_str() {
            "ABC" => Ok(Quote { price: 42.0 }),
            code => Err(NoSuch::Symbol { code: code.to_owned() }),
        };
        Pin::new(&mut self.0).poll_next(cx).map(|symbol| symbol.map(quote))
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

pub(crate) fn ringcall_with(args: &[&str], stdin: &[u8]) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let args = ["ringcall"].iter().chain(args).copied();
    let stdin = std::io::Cursor::new(stdin.to_vec());
    let exit = run(args, Io::of(stdin, &mut stdout, &mut stderr));
    Ran { exit, stdout, stderr: String::from_utf8(stderr).expect("text") }
}
