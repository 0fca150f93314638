//! The console, what it reads, and the document.

use base64::Engine as _;
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{AnyChannel, Server};
use ringcall_gateway::Gateway;
use ringcall_metrics::{Inspection as _, Metrics};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Site, ask, client, config, post, serve};

#[tokio::test]
async fn the_console_is_one_page_that_can_reach_nobody_else() {
    let site = Site::start(config()).await;
    let got = site.get("/").await;
    assert_eq!(
        (got.status.as_u16(), got.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let page = String::from_utf8(got.body.clone()).unwrap();
    let policy = got.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    // Its own script and style are let run: their hashes are those of what is in the page.
    for element in ["script", "style"] {
        assert_eq!(page.matches(&format!("<{element}")).count(), 1);
        let inside = page.split_once(&format!("<{element}>")).unwrap().1;
        let inside = inside.split_once(&format!("</{element}>")).unwrap().0;
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inside));
        assert!(policy.contains(&format!("{element}-src 'sha256-{hash}'")), "{policy}");
    }
    // Nothing is asked for elsewhere, and nothing that comes is taken for HTML.
    for forbidden in [
        "http://",
        "https://",
        "src=",
        "<link",
        "@import",
        " url(",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "style=",
        " onclick",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn the_listing_has_what_the_console_shows() {
    let site = Site::start(config()).await;
    let listing = site.get("/services.json").await.json();
    let services = listing["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["test.Things", "ringcall.Reflection"]);
    // As text: it is for the page not to take it for HTML.
    assert_eq!(services[0]["docs"], "Does <script>alert(\"things\")</script>.");
    let method = |name: &str| {
        let methods = services[0]["methods"].as_array().unwrap();
        methods.iter().find(|method| method["name"] == name).unwrap().clone()
    };
    let same = method("same");
    assert_eq!(same["full_name"], "test.Things/same");
    assert_eq!(
        same["docs"],
        "The same again, unless it is <b>too large</b>.\n\nA second paragraph."
    );
    assert!(
        same["signature"]
            .as_str()
            .unwrap()
            .starts_with("async fn same(Thing) -> Result<Thing, Flaw>;")
    );
    assert_eq!(same["example"], json!({ "name": "", "size": 0, "parts": [{ "number": 0 }] }));
    assert_eq!((&same["deadline_ms"], &same["is_idempotent"]), (&json!(30_000), &json!(true)));
    assert_eq!(method("toss")["is_one_way"], true);
    let streams = |name| method(name)["streams"].clone();
    assert_eq!(["count", "sum", "echo"].map(streams), ["out", "in", "both"]);
    assert_eq!((streams("same"), streams("toss")), (Value::Null, Value::Null));
    assert_eq!(method("sum")["example_item"], json!({ "number": 0 }));
    let reverse = method("reverse");
    assert_eq!((&reverse["takes_bytes"], &reverse["gives_bytes"]), (&json!(true), &json!(true)));
    // An example can be sent as it is.
    assert_eq!(site.call("test.Things/same", &same["example"].to_string()).await.status, 200);
}

/// All references in a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match value.as_str() {
            Some(to) if key == "$ref" => found.push(to),
            _ => references(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    use crate::support::{
        Shelf, Things as _,
        other::{Others as _, Truth},
    };
    use ringcall::reflection::{Interface, Reflection as _};
    // Two services, with types of one name.
    let server = ringcall::Server::bind("127.0.0.1:0")
        .service(std::sync::Arc::new(Shelf::default()).into_things())
        .service(Truth.into_others())
        .service(Interface.into_reflection())
        .start()
        .unwrap();
    let channel = ringcall::AnyChannel::new(crate::support::client(&server).await);
    let gateway = ringcall_gateway::Gateway::new(channel, config()).unwrap();
    let (address, _stop, _serving) = serve(&gateway).await;
    let got = ask(address, "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let document = got.json();
    assert_eq!(document["openapi"], "3.1.0");

    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for to in found {
        assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
    }
    assert!(!document.to_string().contains("$defs"));

    let content = |method: &str, part: &str| {
        document["paths"][format!("/{method}")]["post"].pointer(part).cloned().unwrap_or_default()
    };
    let schemas = &document["components"]["schemas"];
    let argument = "/requestBody/content/application~1json/schema/$ref";
    let things = content("test.Things/same", argument);
    let other = content("test.Others/truth", argument);
    assert_ne!(things, other, "two types are two");
    assert_eq!(
        things,
        content("test.Things/same", "/responses/200/content/application~1json/schema/$ref")
    );
    assert_eq!(schemas["Thing"]["properties"]["size"]["maximum"], 255);
    assert_eq!(schemas["Thing-2"]["properties"]["other"]["type"], "boolean");
    let error = "/responses/422/content/application~1json/schema/properties/error/$ref";
    assert_eq!(content("test.Things/same", error), "#/components/schemas/Flaw");
    assert_eq!(
        content("test.Things/same", "/summary"),
        "The same again, unless it is <b>too large</b>."
    );
    assert_eq!(content("test.Things/same", "/x-ringcall-deadline-ms"), 30_000);
    // 60 s is the most.
    assert_eq!(content("test.Things/hang", "/x-ringcall-deadline-ms"), 60_000);
    assert!(content("test.Things/toss", "/responses/202").is_object());
    // Lines are described, and what they are of.
    const LINES: &str = "/content/application~1x-ndjson";
    let of =
        |method: &str, part: &str, what: &str| content(method, &format!("{part}{LINES}{what}"));
    assert_eq!(content("test.Things/count", "/x-ringcall-streams"), "out");
    assert_eq!(of("test.Things/count", "/responses/200", "/x-ringcall-item/maximum"), u64::MAX);
    let count = of("test.Things/count", "/responses/200", "/schema/oneOf");
    let names = |lines: &Value| {
        let lines = lines.as_array().unwrap().iter();
        lines.map(|line| line["required"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&count), ["item", "end", "failure"]);
    assert_eq!(
        content("test.Things/count", "/requestBody/content/application~1json/schema/type"),
        "integer"
    );
    let flawed = of("test.Things/flawed", "/responses/200", "/schema/oneOf");
    assert_eq!(names(&flawed), ["item", "end", "error", "failure"]);
    assert_eq!(flawed[2]["properties"]["error"]["$ref"], "#/components/schemas/Flaw");
    assert!(content("test.Things/flawed", "/responses/422").is_object());
    assert_eq!(content("test.Things/sum", "/x-ringcall-streams"), "in");
    assert_eq!(
        of("test.Things/sum", "/requestBody", "/x-ringcall-item/$ref"),
        "#/components/schemas/Part"
    );
    assert_eq!(of("test.Things/sum", "/requestBody", "/x-ringcall-argument/type"), "integer");
    assert_eq!(
        content("test.Things/sum", "/responses/200/content/application~1json/schema/type"),
        "integer"
    );
    // It may take as long as it likes.
    assert_eq!(content("test.Things/sum", "/x-ringcall-deadline-ms"), Value::Null);
    assert_eq!(content("test.Things/echo", "/x-ringcall-streams"), "both");
    assert!(of("test.Things/echo", "/requestBody", "").is_object());
    assert!(of("test.Things/echo", "/responses/200", "").is_object());
    assert_eq!(content("test.Things/same", "/x-ringcall-streams"), Value::Null);
    assert!(
        content("test.Things/reverse", "/requestBody/content/application~1octet-stream")
            .is_object()
    );
}

/// The names are those that its script reads.
#[tokio::test]
async fn the_console_shows_what_a_server_says_of_itself() {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0").service(Interface.into_reflection());
    let server = server.observer(metrics.observer());
    let server = server.service(metrics.inspector().into_inspection()).start().unwrap();
    let channel = AnyChannel::new(client(&server).await);
    let gateway = Gateway::new(channel, config()).unwrap();
    let (address, _stop, _serving) = serve(&gateway).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let page = String::from_utf8(ask(address, &get("/")).await.body).unwrap();
    let listing = ask(address, &get("/services.json")).await.json();
    const LOOK: &str = "ringcall-metrics.Inspection/look";
    assert!(page.contains(LOOK) && listing.to_string().contains(LOOK), "{listing}");

    let look = ask(address, &post(LOOK, "null")).await.json();
    let fields = |value: &Value, names: &[&str]| {
        for name in names {
            assert!(
                value.get(name).is_some() && page.contains(&format!(".{name}")),
                "{name}: {value}"
            );
        }
    };
    fields(&look, &["counted_us", "calls", "accepted", "opened"]);
    fields(&look["accepted"], &["open"]);
    fields(&look["opened"], &["open", "total"]);
    let calls = &look["calls"][0];
    let counts = ["begun", "ok", "application", "not_sent", "refused", "unknown"];
    fields(calls, &counts);
    fields(calls, &["method", "is_served", "request_bytes", "reply_bytes", "latency"]);
    fields(&calls["latency"], &["buckets"]);
    let bucket = &calls["latency"]["buckets"][0];
    assert!(bucket["below_us"].is_u64() && bucket["count"].is_u64(), "{look}");
    assert!(page.contains("{ below_us, count }"));
}

#[tokio::test]
async fn pages_can_be_switched_off() {
    let mut config = config();
    config.console = false;
    config.openapi = false;
    let site = Site::start(config).await;
    for path in ["/", "/services.json", "/openapi.json"] {
        assert_eq!(site.get(path).await.problem().0, 404, "{path}");
    }
    assert_eq!(site.get("/healthz").await.status, 200);
    assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
    // Nothing tells what there is.
    let got = site.call("test.Things/zero", "1").await;
    assert!(!got.json()["message"].as_str().unwrap().contains("zeros"));
}

#[tokio::test]
async fn heads_are_those_of_the_pages() {
    let site = Site::start(config()).await;
    for path in ["/", "/services.json", "/healthz"] {
        let whole = site.get(path).await;
        let head = ask(site.address, format!("HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), whole.body.len().to_string());
    }
}
