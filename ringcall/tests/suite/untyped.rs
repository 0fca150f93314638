//! Calls of methods whose types a program does not have, and what a server says of those it has.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Cook, Kitchen as _, PATIENT, Pair, eventually, over_every_pair};
use ringcall::reflection::{Interface, NoSuchService, Reflection as _, ReflectionClient};
use ringcall::shapes::Described;
use ringcall::{
    AnyChannel, CallError, Cause, Client, Codec, Context, Handlers, RunningServer, Status,
    UntypedCall,
};

const LONG: Duration = Duration::from_secs(60);

fn connect(pair: Pair, server: &RunningServer) -> Client {
    pair.secured(Client::connect(server.address())).wait().unwrap()
}

/// Calls a method of the kitchen with an argument in MessagePack.
fn call<'a>(client: &'a Client, method: &str, argument: &[u8]) -> UntypedCall<'a, Client> {
    let method = format!("test.Kitchen/{method}");
    let call = UntypedCall::new(client, &method, Codec::MESSAGEPACK, argument.to_vec());
    call.unwrap().deadline(LONG)
}

/// `{"id": 7, "symbol": "S", "levels": [{"price": 1.5, "size": 1001}], "note": nil}`, or with another size.
fn order(size: u8) -> Vec<u8> {
    let mut bytes = b"\x84\xa2id\x07\xa6symbol\xa1S\xa6levels\x91\x82\xa5price\xcb".to_vec();
    bytes.extend_from_slice(&1.5f64.to_be_bytes());
    bytes.extend_from_slice(b"\xa4size\xcd");
    bytes.extend_from_slice(&[size, 0xe9]);
    bytes.extend_from_slice(b"\xa4note\xc0");
    bytes
}

#[test]
fn a_method_is_called_by_its_name() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = connect(pair, &server);
        let reply = call(&client, "taste", &order(0)).wait();
        let value = reply.result.unwrap();
        assert_eq!((value.codec, &value.body[..]), (Codec::MESSAGEPACK, &[7][..]));
        assert!(value.attachment.is_none());

        // What comes back is what its names say.
        let value = call(&client, "cook", &order(0)).wait().result.unwrap();
        assert!(value.body.windows(6).any(|bytes| bytes == b"symbol"), "{value:?}");

        // An error of the handler, as its type is written.
        let Err(CallError::App(error)) = call(&client, "taste", &order(3)).wait().result else {
            panic!("it is too large")
        };
        assert_eq!(&error.body[..], b"\x81\xa8TooLarge\xcd\x03\xe9");

        call(&client, "toss", &[7]).one_way().wait().result.unwrap();
        eventually("it is tossed", || seen.tossed.load(Ordering::SeqCst) == 7);

        let raw = UntypedCall::new(&client, "test.Kitchen/raw", Codec::RAW, vec![1; 100_000]);
        let value = raw.unwrap().deadline(LONG).wait().result.unwrap();
        assert_eq!((value.codec, value.body.len()), (Codec::RAW, 100_000));
        server.stop();
    });
}

#[test]
fn what_cannot_be_called_so_says_why() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = connect(pair, &server);
        let cause = |call: UntypedCall<'_, Client>| match call.wait().result {
            Err(CallError::Failed(failure)) => failure.cause,
            other => panic!("{other:?}"),
        };
        let refused = |status| Cause::Status(status);
        assert_eq!(cause(call(&client, "tast", &order(0))), refused(Status::UNKNOWN_METHOD));
        assert_eq!(cause(call(&client, "taste", b"\xa1S")), refused(Status::BAD_BODY));
        assert_eq!(cause(call(&client, "toss", &[7])), refused(Status::BAD_REQUEST));
        assert_eq!(cause(call(&client, "raw", &[7])), refused(Status::UNKNOWN_CODEC));
        let error = UntypedCall::new(&client, "taste", Codec::MESSAGEPACK, vec![]).unwrap_err();
        assert!(error.to_string().contains("`package.Service/method`"), "{error}");
    });
}

#[test]
fn an_untyped_call_goes_over_a_channel_of_any_type() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let channel = AnyChannel::new(connect(pair, &server));
        let method = "test.Kitchen/taste";
        let call = UntypedCall::new(&channel, method, Codec::MESSAGEPACK, order(0)).unwrap();
        assert_eq!(&call.deadline(LONG).wait().result.unwrap().body[..], &[7]);
    });
}

#[test]
fn a_server_says_what_it_serves() {
    over_every_pair(|pair| {
        for handlers in [Handlers::Shard, Handlers::Offload] {
            let server = pair.bind().service(Cook::default().into_kitchen());
            let server = server.service(Interface.into_reflection()).handlers(handlers);
            let server = pair.start(server);
            let reflection = ReflectionClient::new(connect(pair, &server)).with_options(PATIENT);
            let services = reflection.services().wait().unwrap();
            assert_eq!(*services, ["test.Kitchen", "ringcall.Reflection"]);

            let kitchen = reflection.describe(&"test.Kitchen".to_owned()).wait().unwrap();
            let taste = kitchen.methods.iter().find(|method| method.name == "taste").unwrap();
            let types: Described = taste.text_in.parse().unwrap();
            let ringcall::shapes::Type::User(order) = types.parts[0] else { panic!("{types:?}") };
            assert_eq!(types.user(order).name, "Order");
            let toss = kitchen.methods.iter().find(|method| method.name == "toss").unwrap();
            assert!(toss.is_one_way && !taste.is_one_way);

            let nothing = reflection.describe(&"test.Cellar".to_owned()).wait().unwrap_err();
            assert_eq!(nothing, CallError::App(NoSuchService));
        }
    });
}

/// Asks its caller what that serves.
#[ringcall::service]
trait Curious {
    async fn ask(&self, cx: &Context) -> Vec<String>;
}

struct Asking;

impl Curious for Asking {
    async fn ask(&self, cx: &Context) -> Vec<String> {
        let caller = ReflectionClient::new(cx.client(&cx.local_peer()));
        caller.services().await.unwrap().to_owned()
    }
}

#[test]
fn a_client_says_what_it_offers() {
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Asking.into_curious()));
        let client = pair.secured(CuriousClient::connect(server.address()));
        let client = client.service(Interface.into_reflection()).wait().unwrap();
        let offered = client.with_options(PATIENT).ask().wait().unwrap();
        assert_eq!(*offered, ["ringcall.Reflection"]);
    });
}
