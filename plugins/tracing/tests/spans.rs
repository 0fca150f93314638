//! The spans of calls: one each, with the fields of OpenTelemetry's conventions, and one trace from a caller to
//! its server.

mod common;

use std::sync::Arc;

use common::Kept;
use ringcall::Server;
use ringcall_tracing::Spans;

#[ringcall::service(name = "test.Desk")]
trait Desk {
    async fn half(&self, number: u64) -> Result<u64, bool>;
}

#[ringcall::service(name = "test.Nowhere")]
trait Nowhere {
    async fn nothing(&self);
}

#[derive(Clone)]
struct Clerk;

impl Desk for Clerk {
    async fn half(&self, number: u64) -> Result<u64, bool> {
        if number.is_multiple_of(2) { Ok(number / 2) } else { Err(true) }
    }
}

/// With the feature, those that have no layer to take ids from.
fn new_spans() -> Spans {
    #[cfg(feature = "opentelemetry")]
    return Spans::opentelemetry();
    #[cfg(not(feature = "opentelemetry"))]
    Spans::new()
}

#[test]
fn a_call_is_a_span_on_either_side_of_one_trace() {
    let kept = Kept::default();
    tracing::subscriber::set_global_default(kept.clone()).unwrap();
    let spans = || Arc::new(new_spans());
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk());
    let server = server.observer(spans()).start().unwrap();
    let desk = DeskClient::connect(server.address()).observer(spans()).wait().unwrap();
    assert!(desk.half(&4).wait().is_ok());
    assert!(desk.half(&5).wait().is_err());
    assert!(NowhereClient::new(desk.channel().clone()).nothing().wait().is_err());
    let all = kept.closed(6);
    let of = |kind| all.iter().filter(move |span| span["otel.kind"] == kind).collect::<Vec<_>>();
    let (made, served) = (of("client"), of("server"));
    assert_eq!((made.len(), served.len()), (3, 3));
    for (made, served) in made.iter().zip(&served) {
        assert_eq!(made["otel.name"], served["otel.name"]);
        assert_eq!(made["trace_id"], served["trace_id"]);
        assert_eq!(made["span_id"], served["parent_span_id"]);
        assert!(!made.contains_key("parent_span_id"));
        assert_eq!(made["rpc.system"], "ringcall");
        assert_eq!(served["network.peer.address"], "127.0.0.1");
        assert_eq!(made.get("error.type"), served.get("error.type"));
    }
    let [good, bad, nowhere] = made[..] else { panic!("{made:?}") };
    assert_eq!((&*good["rpc.service"], &*good["rpc.method"]), ("test.Desk", "half"));
    assert_eq!((&*good["rpc.response.status_code"], &*good["rpc.request.size"]), ("0", "8"));
    assert_eq!(good.get("error.type"), None);
    assert_eq!((&*bad["error.type"], bad.get("otel.status_code")), ("application", None));
    assert_eq!((&*nowhere["error.type"], &*nowhere["otel.status_code"]), ("refused", "ERROR"));
    assert_ne!(good["trace_id"], bad["trace_id"]);
}
