//! What a server says of whether it is ready.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::mpsc;

use crate::common::{Cook, Kitchen as _, PATIENT, Pair, eventually, over_every_pair};
use ringcall::health::{Health as _, HealthClient, Readiness, Status};
use ringcall::reflection::NoSuchService;
use ringcall::{CallError, Client, Context, Handlers, RunningServer, Shard, Stream};

const KITCHEN: &str = "test.Kitchen";

fn serve(pair: Pair, readiness: &Readiness, handlers: Handlers) -> RunningServer {
    let server = pair.bind().service(Cook::default().into_kitchen()).handlers(handlers);
    pair.start(server.service(readiness.clone().into_health()))
}

fn connect(pair: Pair, server: &RunningServer) -> HealthClient<Client> {
    let client = pair.secured(HealthClient::connect(server.address())).wait().unwrap();
    client.with_options(PATIENT)
}

#[test]
fn a_service_is_ready_unless_its_program_says_otherwise() {
    over_every_pair(|pair| {
        for handlers in [Handlers::Shard, Handlers::Offload] {
            let readiness = Readiness::new();
            let server = serve(pair, &readiness, handlers);
            let health = connect(pair, &server);
            let check = |service: &str| {
                health.check(&service.to_owned()).wait().map(|status| status.to_native())
            };
            assert_eq!(check(KITCHEN), Ok(Status::Serving));
            assert_eq!(check(""), Ok(Status::Serving));
            assert_eq!(check("test.Cellar"), Err(CallError::App(NoSuchService)));
            readiness.set(KITCHEN, Status::NotServing);
            assert_eq!(check(KITCHEN), Ok(Status::NotServing));
            assert_eq!(check(""), Ok(Status::Serving));
            readiness.set(KITCHEN, Status::Serving);
            readiness.set("", Status::NotServing);
            assert_eq!(check(KITCHEN), Ok(Status::NotServing));
        }
    });
}

#[test]
fn who_watches_is_told_of_changes_and_of_the_end() {
    over_every_pair(|pair| {
        let readiness = Readiness::new();
        let server = serve(pair, &readiness, Handlers::Shard);
        let shard: Shard = pair.shard();
        let told = shard.block_on(async {
            let health = HealthClient::new(shard.connect(server.address()).await.unwrap());
            let mut watch = health.watch(&KITCHEN.to_owned()).await.unwrap();
            let mut told = Vec::new();
            told.push(watch.next().await.unwrap().unwrap().to_native());
            readiness.set(KITCHEN, Status::NotServing);
            told.push(watch.next().await.unwrap().unwrap().to_native());
            // What is said again, or of others, is no news.
            readiness.set(KITCHEN, Status::NotServing);
            readiness.set("test.Cellar", Status::NotServing);
            readiness.set(KITCHEN, Status::Serving);
            told.push(watch.next().await.unwrap().unwrap().to_native());
            let draining = std::thread::spawn(move || server.drain());
            while let Some(status) = watch.next().await {
                told.push(status.unwrap().to_native());
            }
            eventually("the drain ends", || draining.is_finished());
            told
        });
        let (ready, not_ready) = (Status::Serving, Status::NotServing);
        assert_eq!(told, [ready, not_ready, ready, not_ready]);
    });
}

#[ringcall::service(name = "test.Late")]
trait Late {
    /// What is said to whoever begins to watch when the server drains already.
    #[method(deadline = "30s")]
    async fn watched(&self, cx: &Context) -> Vec<Status>;
}

struct Watcher {
    readiness: Readiness,
    begun: mpsc::Sender<()>,
}

impl Late for Watcher {
    async fn watched(&self, cx: &Context) -> Vec<Status> {
        self.begun.send(()).unwrap();
        cx.draining().await;
        let Ok(watch) = self.readiness.watch(cx, String::new()).await else {
            panic!("it is there")
        };
        let mut watch = pin!(watch);
        let mut told = Vec::new();
        while let Some(status) = poll_fn(|cx| watch.as_mut().poll_next(cx)).await {
            told.push(status);
        }
        told
    }
}

#[test]
fn who_begins_to_watch_during_a_drain_is_told_of_that_alone() {
    over_every_pair(|pair| {
        let (begun, begins) = mpsc::channel();
        let watcher = Watcher { readiness: Readiness::new(), begun };
        let server = pair.start(pair.bind().service(watcher.into_late()));
        let late = pair.secured(LateClient::connect(server.address())).wait().unwrap();
        let draining = std::thread::spawn(move || {
            begins.recv().unwrap();
            server.drain()
        });
        let told = late.watched().wait().unwrap();
        assert!(told.iter().map(|status| status.to_native()).eq([Status::NotServing]));
        draining.join().unwrap();
    });
}
