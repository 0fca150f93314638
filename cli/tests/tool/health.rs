//! Whether a server is ready, as a probe asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ringcall::health::{Health, Readiness, Status};
use ringcall::reflection::NoSuchService;
use ringcall::{Context, RunningServer, Server, Stream};
use ringcall_cli::Exit;
use serde_json::json;

use crate::served::{Floor, Market as _, ringcall, serve};

const MARKET: &str = "test.Market";

fn serve_with<S>(health: S) -> (RunningServer, String)
where
    S: ringcall::Service + Clone + Send + Sync + 'static,
{
    let server = Server::bind("127.0.0.1:0").service(Floor.into_market()).service(health);
    let server = server.start().expect("it starts");
    let address = server.address().to_string();
    (server, address)
}

#[test]
fn a_probe_ends_with_what_the_service_says() {
    let readiness = Readiness::new();
    let (_server, at) = serve_with(readiness.clone().into_health());
    let probe = |more: &[&str]| ringcall(&[&["health", &at], more].concat());

    for of in [&[][..], &[MARKET]] {
        let probed = probe(of);
        assert_eq!((probed.exit, probed.text(), &*probed.stderr), (Exit::Done, "serving\n", ""));
    }
    readiness.set(MARKET, Status::NotServing);
    assert_eq!(probe(&[]).exit, Exit::Done);
    let probed = probe(&[MARKET]);
    assert_eq!(probed.says(Exit::NotReady), "ringcall: test.Market is not ready\n");
    assert_eq!((probed.text(), Exit::NotReady.code()), ("not serving\n", 5));
    readiness.set("", Status::NotServing);
    assert_eq!(probe(&[]).says(Exit::NotReady), "ringcall: the server is not ready\n");

    let probed = probe(&["test.Cellar"]);
    assert_eq!(probed.says(Exit::NotReady), "ringcall: the server has no service test.Cellar\n");
    assert_eq!(probed.text(), "unknown\n");
}

#[test]
fn a_probe_is_json_for_scripts() {
    let readiness = Readiness::new();
    let (_server, at) = serve_with(readiness.clone().into_health());
    let probe = |of: &str| ringcall(&["health", &at, of, "--json"]);
    assert_eq!(probe(MARKET).json(), json!({ "service": MARKET, "status": "serving" }));
    readiness.set(MARKET, Status::NotServing);
    let probed = probe(MARKET);
    assert_eq!(probed.json(), json!({ "service": MARKET, "status": "not serving" }));
    assert_eq!(probed.exit, Exit::NotReady);
    assert_eq!(probe("test.Cellar").json()["status"], "unknown");
}

#[test]
fn a_probe_that_has_no_answer_ends_as_other_commands_do() {
    let (_server, at) = serve();
    let probed = ringcall(&["health", &at]);
    assert!(probed.says(Exit::Failed).contains("Readiness::new().into_health()"), "{probed:?}");
    let probed = ringcall(&["health", "unix:/no/such/socket", "--wait", "1ms"]);
    assert!(probed.says(Exit::NotConnected).contains("cannot connect"), "{probed:?}");
    assert_eq!(ringcall(&["health", "nowhere"]).exit, Exit::Misused);

    let (_server, at) = serve_with(Arc::new(Hangs).into_health());
    let probed = ringcall(&["health", &at, "--deadline", "20ms"]);
    assert!(probed.says(Exit::Failed).contains("--deadline"), "{probed:?}");
}

#[test]
fn a_probe_that_waits_asks_until_it_is_ready() {
    let (_server, at) = serve_with(Arc::new(Later(AtomicU32::new(2))).into_health());
    assert_eq!(ringcall(&["health", &at]).exit, Exit::NotReady);
    let probed = ringcall(&["health", &at, "--wait", "60s"]);
    assert_eq!((probed.exit, probed.text(), &*probed.stderr), (Exit::Done, "serving\n", ""));

    let (_server, at) = serve_with(Arc::new(Later(AtomicU32::new(u32::MAX))).into_health());
    assert_eq!(ringcall(&["health", &at, "--wait", "1ms"]).exit, Exit::NotReady);
}

/// Is not ready for so many questions.
struct Later(AtomicU32);

impl Health for Later {
    async fn check(&self, _: &Context, _: String) -> Result<Status, NoSuchService> {
        let left =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        Ok(if left.is_ok() { Status::NotServing } else { Status::Serving })
    }

    async fn watch(
        &self,
        _: &Context,
        _: String,
    ) -> Result<impl Stream<Item = Status>, NoSuchService> {
        Err::<Never, _>(NoSuchService)
    }
}

struct Hangs;

impl Health for Hangs {
    async fn check(&self, _: &Context, _: String) -> Result<Status, NoSuchService> {
        std::future::pending().await
    }

    async fn watch(
        &self,
        _: &Context,
        _: String,
    ) -> Result<impl Stream<Item = Status>, NoSuchService> {
        Err::<Never, _>(NoSuchService)
    }
}

/// The stream that nobody gets.
enum Never {}

impl Stream for Never {
    type Item = Status;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Status>> {
        match *self {}
    }
}
