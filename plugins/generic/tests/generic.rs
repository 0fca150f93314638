//! Calls of a service by what its server says of it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use proptest::prelude::*;
use ringcall::reflection::{
    Interface, MethodDescription, NoSuchService, Reflection as _, ServiceDescription,
};
use ringcall::{
    Body, Bytes, CallError, Cause, Client, Context, Items, RunningServer, Server, Status, Stream,
    View,
};
use ringcall_generic::{Catalog, CatalogError, Generic, GenericError, SendError};
use serde_json::{Value, json};

/// One of everything.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct All {
    truth: bool,
    small: u8,
    below: i64,
    huge: u128,
    deep: i128,
    single: f32,
    double: f64,
    letter: char,
    text: String,
    serial: NonZeroU32,
    list: Vec<Side>,
    three: [u16; 3],
    pair: (i64, String),
    kind: Kind,
    parent: Option<Box<All>>,
    address: IpAddr,
    socket: SocketAddr,
    age: Duration,
    nothing: (),
    id: Id,
    point: Point,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Id(u64);

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Point(i32, i32);

#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Buy,
    Sell,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Market,
    Limit(i64),
    Between(i64, i64),
    Stop { at: i64, note: Option<String> },
}

#[ringcall::service(name = "test.Things")]
trait Things {
    /// The same again.
    #[method(idempotent, deadline = "30s")]
    async fn same(&self, all: View<All>) -> All;
    #[method(deadline = "30s")]
    async fn judge(&self, kind: Kind) -> Result<Side, Kind>;
    #[method(deadline = "30s")]
    async fn reverse(&self, body: Body) -> Bytes;
    #[method(one_way)]
    async fn toss(&self, number: u64);
    #[method(deadline = "30s")]
    async fn nothing(&self);
    async fn count(&self, to: u64) -> impl Stream<Item = u64>;
    /// How many are as the first, until a market is asked for.
    async fn alike(&self, first: Kind, kinds: Items<Kind>) -> Result<u64, Kind>;
    async fn turn(&self, kinds: Items<Kind>) -> Result<impl Stream<Item = Result<Id, Kind>>, Kind>;
    async fn bytes(&self, bytes: Items<Bytes>) -> impl Stream<Item = Bytes>;
    /// What came beside the call.
    async fn word(&self, cx: &Context) -> String;
}

struct Shelf;

impl Things for Shelf {
    async fn same(&self, all: View<All>) -> All {
        all.to_owned()
    }

    async fn judge(&self, kind: Kind) -> Result<Side, Kind> {
        match kind {
            Kind::Market => Ok(Side::Sell),
            kind => Err(kind),
        }
    }

    async fn reverse(&self, body: Body) -> Bytes {
        body.iter().rev().copied().collect::<Vec<_>>().into()
    }

    async fn toss(&self, _: u64) {}

    async fn nothing(&self) {}

    async fn count(&self, to: u64) -> impl Stream<Item = u64> {
        Count(0, to)
    }

    async fn alike(&self, first: Kind, mut kinds: Items<Kind>) -> Result<u64, Kind> {
        let mut count = 0;
        while let Some(kind) = kinds.next().await {
            if kind == Kind::Market {
                return Err(first);
            }
            count += u64::from(kind == first);
        }
        Ok(count)
    }

    async fn turn(&self, kinds: Items<Kind>) -> Result<impl Stream<Item = Result<Id, Kind>>, Kind> {
        Ok(Turned(kinds))
    }

    async fn bytes(&self, bytes: Items<Bytes>) -> impl Stream<Item = Bytes> {
        bytes
    }

    async fn word(&self, cx: &Context) -> String {
        let word = cx.metadata().get("word").unwrap_or_default();
        String::from_utf8_lossy(word).into_owned()
    }
}

struct Count(u64, u64);

impl Stream for Count {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<Option<u64>> {
        self.0 += 1;
        Poll::Ready((self.0 <= self.1).then_some(self.0))
    }
}

/// Limits in turn as numbers; everything else ends it.
struct Turned(Items<Kind>);

impl Stream for Turned {
    type Item = Result<Id, Kind>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|kind| {
            kind.map(|kind| match kind {
                Kind::Limit(limit) => Ok(Id(limit.unsigned_abs())),
                kind => Err(kind),
            })
        })
    }
}

fn all() -> Value {
    json!({
        "truth": true, "small": 255, "below": -5, "huge": 7, "deep": -7, "single": 0.1, "double": 1.5, "letter": "ß",
        "text": "a", "serial": 1, "list": ["Buy", "Sell"], "three": [1, 2, 3], "pair": [-1, "b"],
        "kind": { "Stop": { "at": 7, "note": null } }, "parent": null, "address": "127.0.0.1",
        "socket": "127.0.0.1:80", "age": { "secs": 1, "nanos": 2 }, "nothing": null, "id": 9, "point": [1, -2],
    })
}

fn serve() -> (RunningServer, Generic<Client>) {
    let server = Server::bind("127.0.0.1:0").service(Shelf.into_things());
    let server = server.service(Interface.into_reflection()).start().expect("it starts");
    let client = Client::connect(server.address()).wait().expect("it is there");
    (server, Generic::wait_for(client).expect("it says what it serves"))
}

fn same(generic: &Generic<Client>, value: &Value) -> Value {
    let call = generic.call("test.Things/same", value).unwrap_or_else(|error| panic!("{error}"));
    call.wait().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_every_type_is_written_as_comes_back() {
    let (_server, generic) = serve();
    assert_eq!(same(&generic, &all()), all());
    let mut nested = all();
    nested["parent"] = all();
    assert_eq!(same(&generic, &nested), nested);

    // What has more than one way to be said comes back in one of them.
    let mut other = all();
    other["age"] = json!(1.5);
    other.as_object_mut().unwrap().remove("parent");
    other["huge"] = json!(u128::MAX.to_string());
    other["deep"] = json!(i128::MIN.to_string());
    let came = same(&generic, &other);
    assert_eq!(came["age"], json!({ "secs": 1, "nanos": 500_000_000 }));
    assert_eq!(came["parent"], Value::Null);
    assert_eq!(came["huge"], other["huge"]);
    assert_eq!(came["deep"], other["deep"]);
    for wide in [u64::MAX as i128 + 1, i64::MIN as i128 - 1, i128::MAX] {
        other["deep"] = json!(wide.to_string());
        assert_eq!(same(&generic, &other)["deep"], other["deep"]);
    }
}

#[test]
fn an_example_and_what_the_schema_allows_can_be_sent() {
    let (_server, generic) = serve();
    let method = generic.catalog().method("test.Things/same").unwrap();
    let example = method.example();
    assert_eq!(same(&generic, &example)["kind"], json!("Market"));
    let schema = method.argument_schema();
    assert_eq!(schema["$ref"], "#/$defs/All");
    let required = schema["$defs"]["All"]["required"].as_array().unwrap();
    assert!(required.contains(&json!("small")) && !required.contains(&json!("parent")));
    assert_eq!(schema["$defs"]["All"]["properties"]["small"]["maximum"], 255);
    assert_eq!(method.error_schema(), None);
}

#[test]
fn answers_of_every_kind_are_values() {
    let (_server, generic) = serve();
    let call = |method: &str, value: Value| generic.call(method, &value).unwrap().wait();
    assert_eq!(call("test.Things/judge", json!("Market")).unwrap(), json!("Sell"));
    for error in [
        json!({ "Limit": 5 }),
        json!({ "Between": [1, 2] }),
        json!({ "Stop": { "at": 1, "note": "n" } }),
    ] {
        let answered = call("test.Things/judge", error.clone()).unwrap_err();
        assert_eq!(answered, CallError::App(error));
    }
    assert_eq!(call("test.Things/reverse", json!("abc")).unwrap(), json!([99, 98, 97]));
    assert_eq!(call("test.Things/reverse", json!([1, 2])).unwrap(), json!([2, 1]));
    assert_eq!(call("test.Things/toss", json!(7)).unwrap(), Value::Null);
    assert_eq!(call("test.Things/nothing", Value::Null).unwrap(), Value::Null);
    let word = generic.call("test.Things/word", &Value::Null).unwrap();
    let word = word.try_metadata("word", "hello").unwrap().deadline(Duration::from_secs(30));
    assert_eq!(word.wait().unwrap(), json!("hello"));
}

#[test]
fn streams_in_every_direction_are_of_values() {
    let (_server, generic) = serve();
    let open = |method: &str, argument: Value| {
        generic
            .streams(method, &argument)
            .unwrap()
            .deadline(Duration::from_secs(30))
            .open_wait()
            .unwrap()
    };
    let (mut none, mut items) = open("test.Things/count", json!(3));
    let counted: Vec<Value> =
        std::iter::from_fn(|| items.next_wait()).map(Result::unwrap).collect();
    assert_eq!(counted, [json!(1), json!(2), json!(3)]);
    let over = none.send_wait(&json!(1)).unwrap_err();
    assert!(matches!(over, SendError::Failed(failure) if failure.cause == Cause::StreamEnded));

    // In, with one reply or an error.
    let limit = json!({ "Limit": 5 });
    let (mut sender, mut items) = open("test.Things/alike", limit.clone());
    for item in [limit.clone(), json!({ "Between": [1, 2] }), limit.clone()] {
        sender.send_wait(&item).unwrap();
    }
    let wrong = sender.send_wait(&json!({ "Limit": "5" })).unwrap_err();
    let SendError::BadItem(mismatch) = &wrong else { panic!("{wrong}") };
    assert_eq!(mismatch.path, "Limit");
    sender.end();
    assert_eq!(items.next_wait().unwrap().unwrap(), json!(2));
    assert!(items.next_wait().is_none());
    let (mut sender, mut items) = open("test.Things/alike", limit.clone());
    sender.send_wait(&json!("Market")).unwrap();
    assert_eq!(items.next_wait().unwrap().unwrap_err(), CallError::App(limit.clone()));
    assert!(items.next_wait().is_none());

    // Both, with an error in the middle.
    let (mut sender, mut items) = open("test.Things/turn", Value::Null);
    for number in 0..100 {
        sender.send_wait(&json!({ "Limit": number })).unwrap();
        assert_eq!(items.next_wait().unwrap().unwrap(), json!(number));
    }
    sender.send_wait(&json!("Market")).unwrap();
    assert_eq!(items.next_wait().unwrap().unwrap_err(), CallError::App(json!("Market")));

    // Bytes as they are.
    let (mut sender, mut items) = open("test.Things/bytes", Value::Null);
    sender.send_wait(&json!("ab")).unwrap();
    assert_eq!(items.next_wait().unwrap().unwrap(), json!([97, 98]));
}

#[test]
fn what_is_called_is_not_opened() {
    let (_server, generic) = serve();
    let error = generic.streams("test.Things/judge", &json!("Market")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.Things/judge has no streams, and is to be called, not opened"
    );
    let error = generic.streams("test.Things/count", &json!("1")).unwrap_err();
    assert!(matches!(error, GenericError::BadArgument { .. }), "{error}");
    let alike = generic.catalog().method("test.Things/alike").unwrap();
    assert_eq!(alike.example_item(), json!("Market"));
    assert!(alike.items_in_schema().is_some() && alike.items_out_schema().is_none());
    assert_eq!(alike.streams(), Some(ringcall::Streams::In));
}

#[test]
fn what_is_wrong_with_an_argument_is_said_with_its_place() {
    let (_server, generic) = serve();
    let says = |change: &dyn Fn(&mut Value)| {
        let mut value = all();
        change(&mut value);
        let error = generic.call("test.Things/same", &value).unwrap_err();
        let GenericError::BadArgument { mismatch, .. } = error else { panic!("{error}") };
        mismatch.to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let expected: [(Change<'_>, &str); 12] = [
        (
            &|it| it["age"] = json!({ "secs": u64::MAX, "nanos": 1_000_000_000 }),
            "`age`: a number of seconds, or `secs` and `nanos`, is expected, not an object",
        ),
        (
            &|it| it["single"] = json!(1e39),
            "`single`: a number that a 32-bit float holds is expected, not 1e+39",
        ),
        (
            &|it| it["small"] = json!(256),
            "`small`: a whole number from 0 to 255 is expected, not 256",
        ),
        (&|it| it["serial"] = json!(0), "`serial`: a number other than 0 is expected, not 0"),
        (&|it| it["list"][1] = json!("By"), "`list[1]`: Buy or Sell is expected, not By"),
        (&|it| it["three"] = json!([1]), "`three`: a list of 3 is expected, not a list of 1"),
        (&|it| it["kind"] = json!("Limit"), "`kind`: Limit has fields: {\"Limit\": …}"),
        (
            &|it| it["kind"] = json!({ "Stop": { "at": 1.5 } }),
            "`kind.Stop.at`: a whole number from -9223372036854775808 to 9223372036854775807 is expected, not 1.5",
        ),
        (
            &|it| it["kind"] = json!({ "Stop": { "at": 1, "nota": "" } }),
            "`kind.Stop`: Stop has no field nota; it has at, note",
        ),
        (
            &|it| drop(it.as_object_mut().unwrap().remove("text")),
            "the field text of All is missing",
        ),
        (
            &|it| it["letter"] = json!("ab"),
            "`letter`: a text of one character is expected, not \"ab\"",
        ),
        (&|it| it["address"] = json!("here"), "`address`: an IP address is expected, not \"here\""),
    ];
    for (change, text) in expected {
        assert_eq!(says(change), text);
    }
}

#[ringcall::message]
struct Row {
    cells: [u8; 64],
}

#[ringcall::message]
struct Plane {
    rows: [Row; 64],
}

#[ringcall::message]
struct Grid {
    planes: [Plane; 64],
}

#[ringcall::service(name = "test.Grids")]
trait Grids {
    async fn keep(&self, grid: View<Grid>);
}

#[test]
fn an_example_that_would_be_too_large_is_none() {
    let catalog = Catalog::of(&[GridsClient::service_table()]);
    let keep = catalog.method("test.Grids/keep").unwrap();
    assert_eq!(keep.example(), Value::Null);
    assert_eq!(keep.argument_schema()["$defs"]["Grid"]["type"], "object");
}

#[test]
fn an_answer_can_be_had_as_it_came() {
    let (_server, generic) = serve();
    let call = generic.call("test.Things/reverse", &json!("abc")).unwrap();
    let reply = call.into_untyped().wait().result.unwrap();
    assert_eq!(reply.body[..], *b"cba");
}

#[test]
fn what_cannot_be_called_is_told_without_a_call() {
    let (_server, generic) = serve();
    let says = |method: &str| generic.call(method, &Value::Null).unwrap_err().to_string();
    assert_eq!(
        says("test.Things/count"),
        "test.Things/count has streams, and is to be opened, not called"
    );
    assert_eq!(says("Thing/same"), "the server has no method Thing/same; it has test.Things/same");
    assert_eq!(says("nowhere"), "the server has no method nowhere");
    // Unchecked, the server says that it cannot read it.
    let call = generic.unchecked("test.Things/judge", &json!({ "Stop": 7 })).unwrap();
    let Err(CallError::Failed(failure)) = call.wait() else { panic!("that is no kind") };
    assert_eq!(failure.cause, Cause::Status(Status::BAD_BODY));
    let call = generic.unchecked("test.Things/judge", &json!("Market")).unwrap();
    assert_eq!(call.wait().unwrap(), json!("Sell"));
}

#[test]
fn a_server_that_does_not_tell_is_told_what_to_do() {
    let server = Server::bind("127.0.0.1:0").service(Shelf.into_things()).start().unwrap();
    let client = Client::connect(server.address()).wait().unwrap();
    let error = Generic::wait_for(client).unwrap_err();
    assert!(matches!(error, CatalogError::NotTold(_)), "{error:?}");
    assert!(error.to_string().contains("Interface.into_reflection()"), "{error}");
}

#[test]
fn a_method_is_shown_as_rust_has_it() {
    let catalog = Catalog::of(&[ThingsClient::service_table()]);
    let signature =
        |name: &str| catalog.method(&format!("test.Things/{name}")).unwrap().signature();
    assert_eq!(
        signature("judge"),
        "async fn judge(Kind) -> Result<Side, Kind>;\n\n\
         enum Kind {\n    Market,\n    Limit(i64),\n    Between(i64, i64),\n    \
         Stop { at: i64, note: Option<String> },\n}\n\n\
         enum Side {\n    Buy,\n    Sell,\n}"
    );
    assert_eq!(signature("nothing"), "async fn nothing();");
    assert_eq!(signature("count"), "async fn count(u64) -> impl Stream<Item = u64>;");
    assert_eq!(signature("reverse"), "async fn reverse(Bytes) -> Bytes;");
    assert!(signature("same").contains("struct Point(i32, i32);"), "{}", signature("same"));
    assert_eq!(catalog.method("test.Things/same").unwrap().docs().trim(), "The same again.");
}

proptest! {
    /// Whatever comes as an answer is a value or none; nothing panics.
    #[test]
    fn any_bytes_are_a_value_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let catalog = Catalog::of(&[ThingsClient::service_table()]);
        for method in catalog.methods() {
            let _ = method.decode_reply(&bytes);
            let _ = method.decode_error(&bytes);
        }
    }

    /// What is encoded is read back as what it was, if it is of the type.
    #[test]
    fn numbers_come_back(small in any::<u8>(), below in any::<i64>(), deep in any::<i128>()) {
        let catalog = Catalog::of(&[ThingsClient::service_table()]);
        let method = catalog.method("test.Things/same").unwrap();
        let mut value = all();
        value["small"] = json!(small);
        value["below"] = json!(below);
        value["deep"] = json!(deep.to_string());
        let encoded = method.encode_argument(&value).unwrap();
        let decoded = method.decode_reply(&encoded).unwrap();
        prop_assert_eq!(&decoded["small"], &value["small"]);
        prop_assert_eq!(&decoded["below"], &value["below"]);
        let deep_again = match &decoded["deep"] {
            Value::String(digits) => digits.clone(),
            number => number.to_string(),
        };
        prop_assert_eq!(deep_again, deep.to_string());
    }
}

/// A server that says of its one method what a text of types could be that is made to be too much.
struct Liar(String);

impl ringcall::reflection::Reflection for Liar {
    async fn services(&self, _: &Context) -> Vec<String> {
        vec!["test.Lies".to_owned()]
    }

    async fn describe(
        &self,
        _: &Context,
        service: String,
    ) -> Result<ServiceDescription, NoSuchService> {
        let method = MethodDescription {
            name: "tell".to_owned(),
            docs: String::new(),
            text_in: self.0.clone(),
            text_out: "rkyv-0.8/2;unit;never".to_owned(),
            is_one_way: false,
            is_idempotent: false,
            deadline: None,
        };
        Ok(ServiceDescription { name: service, docs: String::new(), methods: vec![method] })
    }
}

/// `text_in` as the method of a catalog.
fn told(text_in: String) -> Catalog {
    let server = Server::bind("127.0.0.1:0").service(Liar(text_in).into_reflection());
    let server = server.start().unwrap();
    Catalog::wait_for(&Client::connect(server.address()).wait().unwrap()).unwrap()
}

#[test]
fn texts_of_types_that_are_made_to_be_too_much_are_not() {
    // Each type twice in the next one.
    let mut text = "rkyv-0.8/2;struct All{t0=struct T0{a=u8 } ".to_owned();
    for number in 1..100 {
        text += &format!("t{number}=struct T{number}{{a=^{number} b=^{number} }} ");
    }
    let catalog = told(text + "}");
    let method = catalog.find("test.Lies/tell").unwrap();
    assert_eq!(method.example(), Value::Null);
    assert!(method.signature().contains("struct T99 {"));

    // Lists of 64 in lists of 64, and so on.
    let nested = (0..20).fold("u8".to_owned(), |inside, _| format!("array-64({inside} )"));
    let catalog = told(format!("rkyv-0.8/2;{nested}"));
    assert_eq!(catalog.find("test.Lies/tell").unwrap().example(), Value::Null);
}

/// A server of so many services, of each of which it has a mebibyte to say.
struct Talker(usize);

impl ringcall::reflection::Reflection for Talker {
    async fn services(&self, _: &Context) -> Vec<String> {
        (0..self.0).map(|number| format!("test.S{number}")).collect()
    }

    async fn describe(
        &self,
        _: &Context,
        name: String,
    ) -> Result<ServiceDescription, NoSuchService> {
        Ok(ServiceDescription { name, docs: "a".repeat(1 << 20), methods: Vec::new() })
    }
}

#[test]
fn a_server_that_says_too_much_is_not_listened_to() {
    let told = |services: usize| {
        let server = Server::bind("127.0.0.1:0").service(Talker(services).into_reflection());
        let server = server.start().unwrap();
        let catalog = Catalog::wait_for(&Client::connect(server.address()).wait().unwrap());
        catalog.map(|catalog| catalog.services().len())
    };
    assert_eq!(told(15), Ok(15));
    assert_eq!(told(20), Err(CatalogError::TooLarge));
}

#[test]
fn a_catalog_says_which_methods_may_have_been_meant() {
    let catalog = Catalog::of(&[ThingsClient::service_table()]);
    assert_eq!(catalog.find("test.Things/judge").unwrap().name(), "judge");
    let error = catalog.find("Things/JUDGE").unwrap_err();
    let GenericError::NoSuchMethod { alike, .. } = error else { panic!("{error}") };
    assert_eq!(alike, ["test.Things/judge"]);
}
