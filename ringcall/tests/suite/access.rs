//! What a server knows of where its callers are.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{PATIENT, Pair, Socket, over_every_pair};
use ringcall::filter::{FilterExt, ServerCall};
use ringcall::limits::Limits;
use ringcall::{
    Access, BlockOn, CallError, CallerKey, Cause, ConnectionInfo, Context, Credentials, Handlers,
    IntoOwned, Responder, RunningServer, SendContext, Status, Stream, StreamChannel,
    WithCredentials,
};

#[ringcall::service]
trait Where {
    async fn here(&self, cx: &Context) -> String;
    #[method(offload)]
    async fn there(&self, cx: &Context) -> String;
    async fn nap(&self, cx: &Context, time_ms: u64);
}

struct Mirror;

fn text(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
}

impl Where for Mirror {
    async fn here(&self, cx: &Context) -> String {
        text(cx.peer_address())
    }

    async fn there(&self, cx: &Context) -> String {
        text(cx.peer_address())
    }

    async fn nap(&self, cx: &Context, time_ms: u64) {
        cx.sleep(Duration::from_millis(time_ms)).await;
    }
}

#[ringcall::service(send)]
trait WhereElse {
    async fn there(&self, cx: &SendContext) -> String;
}

impl WhereElse for Mirror {
    async fn there(&self, cx: &SendContext) -> String {
        text(cx.peer_address())
    }
}

fn connect(pair: Pair, server: &RunningServer) -> WhereClient<ringcall::Client> {
    let client = pair.secured(WhereClient::connect(server.address())).wait();
    client.unwrap().with_options(PATIENT)
}

#[test]
fn hooks_and_handlers_know_where_a_caller_is() {
    over_every_pair(|pair| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let server = pair.bind().service(Mirror.into_where()).service(Mirror.into_where_else());
        let server = pair.start(server.authorize(move |connection| {
            seen.lock().unwrap().push(text(connection.peer_address()));
            Access::Allow
        }));
        let client = connect(pair, &server);
        let elsewhere = WhereElseClient::new(client.channel().clone()).with_options(PATIENT);
        let here = client.here().wait().unwrap().as_str().to_owned();
        assert_eq!(here == "nowhere", pair.socket == Socket::Unix);
        assert!(here == "nowhere" || here.starts_with("127.0.0.1:"), "{here}");
        assert_eq!(client.there().wait().unwrap().as_str(), here);
        assert_eq!(elsewhere.there().wait().unwrap().as_str(), here);
        assert_eq!(*asked.lock().unwrap(), [here]);
    });
}

#[test]
fn callers_of_one_address_are_one() {
    over_every_pair(|pair| {
        let limits = Limits::default().concurrency_of_each(CallerKey::Address, 1);
        let server = pair.bind().service(Mirror.into_where()).handlers(Handlers::Shard);
        let server = pair.start(server.limits(limits));
        let clients = [connect(pair, &server), connect(pair, &server)];
        clients[0].here().wait().unwrap();
        let (ended, ends) = std::sync::mpsc::channel();
        for client in &clients {
            let ended = ended.clone();
            client.nap(&200).callback(move |end| drop(ended.send(end.map(drop))));
        }
        let cause = |end: Result<(), CallError>| end.err().map(|it| it.failure().unwrap().cause);
        let mut causes: Vec<_> = ends.iter().take(2).map(cause).collect();
        causes.sort_by_key(Option::is_some);
        assert_eq!(causes, [None, Some(Cause::Status(Status::RATE_LIMITED))]);
    });
}

/// Whoever a token is of.
#[derive(Debug)]
struct User {
    name: String,
}

fn user_of(token: &[u8]) -> Access {
    match token.strip_prefix(b"token of ") {
        Some(name) => Access::allow_as(User { name: String::from_utf8_lossy(name).into_owned() }),
        None => Access::unauthenticated("no token"),
    }
}

fn name(user: Option<&User>) -> String {
    user.map_or_else(|| "nobody".to_owned(), |user| user.name.clone())
}

struct Once(Option<String>);

impl Stream for Once {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<String>> {
        Poll::Ready(self.0.take())
    }
}

#[ringcall::service]
trait Who {
    async fn here(&self, cx: &Context) -> String;
    #[method(offload)]
    async fn away(&self, cx: &Context) -> String;
    fn later(&self, cx: &Context, responder: Responder<String>);
    async fn items(&self, cx: &Context) -> impl Stream<Item = String>;
}

impl Who for Mirror {
    async fn here(&self, cx: &Context) -> String {
        cx.sleep(Duration::from_millis(1)).await;
        assert!(cx.principal::<String>().is_none(), "it is no String");
        name(cx.principal())
    }

    async fn away(&self, cx: &Context) -> String {
        name(cx.principal())
    }

    fn later(&self, cx: &Context, responder: Responder<String>) {
        responder.send(Ok(name(cx.principal())));
    }

    async fn items(&self, cx: &Context) -> impl Stream<Item = String> {
        Once(Some(name(cx.principal())))
    }
}

#[ringcall::service(send)]
trait WhoElse {
    async fn here(&self, cx: &SendContext) -> String;
    #[method(offload)]
    async fn away(&self, cx: &SendContext) -> String;
}

impl WhoElse for Mirror {
    async fn here(&self, cx: &SendContext) -> String {
        name(cx.clone().principal())
    }

    async fn away(&self, cx: &SendContext) -> String {
        name(cx.principal())
    }
}

/// As whom handlers see who calls over this channel, each kind of them.
fn seen_as<C>(channel: C) -> String
where
    C: StreamChannel<Body: IntoOwned> + BlockOn + Clone + 'static,
{
    let (who, other) = (WhoClient::new(channel.clone()), WhoElseClient::new(channel));
    let (who, other) = (who.with_options(PATIENT), other.with_options(PATIENT));
    let mut items = who.items().wait().unwrap();
    let item = who.channel().block_on(items.next()).unwrap().unwrap();
    let mut names: Vec<String> = vec![
        who.here().wait().unwrap().to_owned(),
        who.away().wait().unwrap().to_owned(),
        who.later().wait().unwrap().to_owned(),
        other.here().wait().unwrap().to_owned(),
        other.away().wait().unwrap().to_owned(),
        item.to_owned(),
    ];
    names.dedup();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

fn shown(token: &str) -> Credentials {
    Credentials::new(token).unwrap()
}

fn of_connection(connection: &ConnectionInfo) -> Access {
    assert!(connection.principal::<User>().is_none(), "nobody has found it yet");
    user_of(connection.credentials().map_or(b"", Credentials::expose))
}

#[test]
fn handlers_know_as_whom_a_connection_was_let_in() {
    over_every_pair(|pair| {
        let server = pair.bind().service(Mirror.into_who()).service(Mirror.into_who_else());
        let server = pair.start(server.authorize(of_connection));
        for name in ["ann", "bob"] {
            let client = pair.secured(ringcall::Client::connect(server.address()));
            let client = client.credentials(shown(&format!("token of {name}"))).wait().unwrap();
            assert_eq!(seen_as(client), name);
        }
    });
}

#[test]
fn a_call_may_be_made_by_somebody_of_its_own() {
    over_every_pair(|pair| {
        let server = pair.bind().service(Mirror.into_who()).service(Mirror.into_who_else());
        let server = server.authorize(of_connection).authorize_calls(|call| {
            let user: &User = call.principal().expect("the connection has one");
            assert_eq!(call.connection().principal::<User>().unwrap().name, user.name);
            match (call.credentials(), call.metadata().text("as")) {
                (Some(token), _) => user_of(token),
                (None, Some("nobody")) => Access::forbidden("who is that"),
                (None, _) => Access::Allow,
            }
        });
        let server = pair.start(server);
        let client = pair.secured(ringcall::Client::connect(server.address()));
        let client = client.credentials(shown("token of ann")).wait().unwrap();
        let bob = WithCredentials::new(client.clone(), &shown("token of bob"));
        assert_eq!(seen_as(bob.clone()), "bob");
        assert_eq!(seen_as(client.clone()), "ann", "the next call is the connection's");
        let error =
            seen_error(WhoClient::new(client.clone()).here().metadata("as", "nobody").wait());
        assert_eq!(error, Some(Status::FORBIDDEN));
        let wrong = WithCredentials::new(client, &shown("wrong"));
        assert_eq!(seen_error(WhoClient::new(wrong).here().wait()), Some(Status::UNAUTHENTICATED));
        assert_eq!(seen_as(bob), "bob");
    });
}

fn seen_error<T>(result: Result<T, CallError>) -> Option<Status> {
    result.err().and_then(|error| error.failure().and_then(ringcall::Failure::status))
}

#[test]
fn filters_know_who_calls_and_may_find_it_out_themselves() {
    over_every_pair(|pair| {
        let server = pair.bind().service(Mirror.into_who()).service(Mirror.into_who_else());
        let asks = |mut call: ServerCall| async move {
            let before = name(call.principal());
            if let Some(token) = call.metadata().text("token").map(str::to_owned) {
                call.set_principal(User { name: format!("{token} for {before}") });
            }
            Ok(call)
        };
        let looks = |call: ServerCall| async move {
            let user: Option<&User> = call.principal();
            match user.is_some_and(|user| user.name == "eve for ann") {
                true => Err(Status::FORBIDDEN),
                false => Ok(call),
            }
        };
        let server = server.authorize(of_connection).filter(asks.then(looks));
        let server = pair.start(server);
        let client = pair.secured(ringcall::Client::connect(server.address()));
        let client = client.credentials(shown("token of ann")).wait().unwrap();
        assert_eq!(seen_as(client.clone()), "ann");
        let who = WhoClient::new(client.clone()).with_options(PATIENT);
        assert_eq!(who.here().metadata("token", "bob").wait().unwrap().as_str(), "bob for ann");
        assert_eq!(who.away().metadata("token", "bob").wait().unwrap().as_str(), "bob for ann");
        let error = seen_error(who.here().metadata("token", "eve").wait());
        assert_eq!(error, Some(Status::FORBIDDEN));
        let other = WhoElseClient::new(client).with_options(PATIENT);
        assert_eq!(other.here().metadata("token", "cy").wait().unwrap().as_str(), "cy for ann");
        assert_eq!(who.here().wait().unwrap().as_str(), "ann");
    });
}

#[test]
fn priorities_go_by_whom_a_call_was_let_in_as() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = ringcall::Server::bind("127.0.0.1:0").service(Mirror.into_who());
    let server = server
        .authorize(of_connection)
        .authorize_calls(|call| call.credentials().map_or(Access::Allow, user_of));
    let server = server.priority_max(move |call| {
        noted.lock().unwrap().push(name(call.principal()));
        1
    });
    let server = server.start().unwrap();
    let client = ringcall::Client::connect(server.address());
    let client = client.credentials(shown("token of ann")).wait().unwrap();
    let bob = WithCredentials::new(client.clone(), &shown("token of bob"));
    WhoClient::new(client).here().priority(7).wait().unwrap();
    WhoClient::new(bob).here().priority(7).wait().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["ann", "bob"]);
}
