//! The spans of calls: one each, with the fields of OpenTelemetry's conventions, and one trace from a caller to
//! its server.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringcall::Server;
use ringcall_tracing::Spans;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

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

type Fields = HashMap<&'static str, String>;

/// Keeps the fields of every span, and whether it is closed.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Fields, usize)>>>);

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringcall"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let mut spans = self.0.lock().unwrap();
        spans.push((fields, 1));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().unwrap();
        values.record(&mut Into(&mut spans[span.into_u64() as usize - 1].0));
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.0.lock().unwrap()[span.into_u64() as usize - 1].1 += 1;
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let handles = &mut self.0.lock().unwrap()[span.into_u64() as usize - 1].1;
        *handles -= 1;
        *handles == 0
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

#[test]
fn a_call_is_a_span_on_either_side_of_one_trace() {
    let kept = Kept::default();
    tracing::subscriber::set_global_default(kept.clone()).unwrap();
    let spans = || Arc::new(Spans::new());
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk());
    let server = server.observer(spans()).start().unwrap();
    let desk = DeskClient::connect(server.address()).observer(spans()).wait().unwrap();
    assert!(desk.half(&4).wait().is_ok());
    assert!(desk.half(&5).wait().is_err());
    assert!(NowhereClient::new(desk.channel().clone()).nothing().wait().is_err());
    for _ in 0..5000 {
        let is_over = |(_, handles): &(Fields, usize)| *handles == 0;
        let all = kept.0.lock().unwrap();
        if all.len() == 6 && all.iter().all(is_over) {
            break;
        }
        drop(all);
        pause();
    }
    let all: Vec<Fields> =
        kept.0.lock().unwrap().iter().map(|(fields, _)| fields.clone()).collect();
    assert_eq!(all.len(), 6, "{all:#?}");
    assert!(kept.0.lock().unwrap().iter().all(|(_, handles)| *handles == 0), "all are closed");
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
