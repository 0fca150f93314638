//! What a server knows of where its callers are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{PATIENT, Pair, Socket, over_every_pair};
use ringcall::limits::Limits;
use ringcall::{
    Access, CallError, CallerKey, Cause, Context, Handlers, RunningServer, SendContext, Status,
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
