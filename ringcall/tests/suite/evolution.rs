//! Builds that disagree about a type: the right value or a typed error, never another value.
//!
//! Each module is a build with its own idea of `Order` and `Side`, and one service that all have by the same
//! name. What a handler has seen is compared as text.

#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "modules of a test that stand for programs of their own"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Pair, over_every_pair, over_one_pair};
use ringcall::__private::codec::__private::decode_named;
use ringcall::__private::codec::Typed;
use ringcall::{
    CallError, Cause, Channel, Codec, Items, Message, Outgoing, Responder, Server, Status, Stream,
    View, method_id,
};

/// What handlers have seen.
type Seen = Arc<Mutex<Vec<String>>>;

/// Modules that each have an `Order`.
macro_rules! builds {
    ($($build:ident { $($items:item)* })*) => {
        $(mod $build {
            use super::*;

            $($items)*

            #[ringcall::message]
            #[derive(Clone, Debug, PartialEq)]
            pub struct Refused {
                pub why: String,
            }

            #[ringcall::service(name = "test.Desk")]
            pub trait Desk {
                async fn put(&self, order: View<Order>) -> Result<Order, Refused>;
                async fn own(&self, order: Order) -> Order;
                #[method(offload)]
                async fn away(&self, order: View<Order>) -> Result<Order, Refused>;
                fn later(&self, order: Order, responder: Responder<Order, Refused>);
                async fn refuse(&self, order: Order) -> Result<(), Refused>;
                async fn mirror(
                    &self,
                    first: Order,
                    orders: Items<View<Order>>,
                ) -> Result<impl Stream<Item = Order>, Refused>;
                async fn count(&self, orders: Items<Order>) -> u64;
                #[method(one_way)]
                async fn toss(&self, order: Order);
            }

            #[derive(Clone, Default)]
            pub struct Office(pub Seen);

            impl Office {
                fn see(&self, order: &Order) {
                    self.0.lock().unwrap().push(format!("{order:?}"));
                }
            }

            impl Desk for Office {
                async fn put(&self, order: View<Order>) -> Result<Order, Refused> {
                    self.see(&order.to_owned());
                    Ok(order.to_owned())
                }

                async fn own(&self, order: Order) -> Order {
                    self.see(&order);
                    order
                }

                async fn away(&self, order: View<Order>) -> Result<Order, Refused> {
                    self.see(&order.to_owned());
                    Ok(order.to_owned())
                }

                fn later(&self, order: Order, responder: Responder<Order, Refused>) {
                    self.see(&order);
                    responder.send(Ok(order));
                }

                async fn refuse(&self, order: Order) -> Result<(), Refused> {
                    self.see(&order);
                    Err(Refused { why: "closed".into() })
                }

                async fn mirror(
                    &self,
                    first: Order,
                    mut orders: Items<View<Order>>,
                ) -> Result<impl Stream<Item = Order>, Refused> {
                    self.see(&first);
                    let mut all = vec![first];
                    while let Some(order) = orders.next().await {
                        self.see(&order.to_owned());
                        all.push(order.to_owned());
                    }
                    Ok(Listed(all.into_iter()))
                }

                async fn count(&self, mut orders: Items<Order>) -> u64 {
                    let mut count = 0;
                    while let Some(order) = orders.next().await {
                        self.see(&order);
                        count += 1;
                    }
                    count
                }

                async fn toss(&self, order: Order) {
                    self.see(&order);
                }
            }

            impl Build for Order {
                fn serve(server: Server, seen: &Seen) -> Server {
                    server.service(Office(Arc::clone(seen)).into_desk())
                }

                fn call_all(&self, pair: Pair, server: &ringcall::RunningServer) -> Vec<Answer> {
                    let mut answers = Vec::new();
                    let blocking = pair.blocking(server);
                    let desk = DeskClient::new(&blocking);
                    // Twice, since the second one knows.
                    for _ in 0..2 {
                        answers.push(say(desk.put(self).wait().map(|order| order.to_owned())));
                    }
                    answers.push(say(desk.own(self).wait().map(|o| o.to_owned())));
                    answers.push(say(desk.away(self).wait().map(|order| order.to_owned())));
                    answers.push(say(desk.later(self).wait().map(|order| order.to_owned())));
                    answers.push(say(desk.refuse(self).wait().map(|_| ())));
                    let streamed = blocking.run(async {
                        let (mut sender, mut orders) = desk.mirror(self).await?;
                        let _ended_already = sender.send(self).await;
                        sender.end();
                        let mut last = None;
                        while let Some(order) = orders.next().await {
                            last = Some(order?.to_owned());
                        }
                        Ok(last.expect("orders"))
                    });
                    answers.push(say(streamed));
                    let counted = blocking.run(async {
                        let mut upload = desk.count().await?;
                        let _ended_already = upload.send(self).await;
                        upload.finish().await.map(|count| count.to_native())
                    });
                    answers.push(say(counted));
                    let _sent = desk.toss(self).wait();

                    let shared = pair.secured(DeskClient::connect(server.address()));
                    let shared = shared.wait().unwrap();
                    answers.push(say(shared.put(self).wait().map(|order| order.to_owned())));
                    let (told, telling) = std::sync::mpsc::channel();
                    shared.own(self).callback(move |order| {
                        let _ = told.send(order.map(|order| order.to_owned()));
                    });
                    answers.push(say(telling.recv().unwrap()));
                    let _sent = shared.toss(self).wait();
                    // One-way calls are before it on their connections.
                    answers.push(say(shared.put(self).wait().map(|order| order.to_owned())));
                    answers.push(say(desk.put(self).wait().map(|order| order.to_owned())));
                    answers
                }
            }
        })*
    };
}

/// What a caller was told: a value or an error of its types as text, or why not.
type Answer = Result<String, Cause>;
type CallResult<T, E> = Result<T, CallError<E>>;

fn say<T: std::fmt::Debug, E: std::fmt::Debug>(result: CallResult<T, E>) -> Answer {
    match result {
        Ok(value) => Ok(format!("{value:?}")),
        Err(CallError::App(error)) => Ok(format!("{error:?}")),
        Err(CallError::Failed(failure)) => Err(failure.cause),
    }
}

trait Build: Message + std::fmt::Debug {
    fn serve(server: Server, seen: &Seen) -> Server;
    fn call_all(&self, pair: Pair, server: &ringcall::RunningServer) -> Vec<Answer>;
}

pub(crate) struct Listed<T>(pub(crate) std::vec::IntoIter<T>);

impl<T: Unpin> Stream for Listed<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::task::Poll::Ready(self.0.next())
    }
}

builds! {
    original {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub size: u32, pub price: u32, pub side: Side }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Buy, Sell { short: bool } }
    }
    added {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order {
            pub size: u32,
            pub price: u32,
            pub side: Side,
            pub note: Option<String>,
            #[serde(default)]
            pub tags: Vec<String>,
        }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Buy, Sell { short: bool } }
    }
    added_without_default {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub size: u32, pub price: u32, pub side: Side, pub account: u64 }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Buy, Sell { short: bool } }
    }
    swapped {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub price: u32, pub size: u32, pub side: Side }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Sell { short: bool }, Buy }
    }
    renamed {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub size: u32, pub cost: u32, pub side: Side }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Buy, Sell { short: bool } }
    }
    more_variants {
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub size: u32, pub price: u32, pub side: Side }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Side { Swap(u8), Buy, Sell { short: bool } }
    }
}

builds! {
    keeps {
        #[ringcall::message(also_written = original::Order)]
        #[derive(Clone, Debug, PartialEq)]
        pub struct Order { pub price: u64, pub size: u32, pub side: original::Side, pub note: Option<String> }

        impl From<original::Order> for Order {
            fn from(old: original::Order) -> Order {
                Order { price: old.price.into(), size: old.size, side: old.side, note: None }
            }
        }

        impl From<&Order> for original::Order {
            fn from(new: &Order) -> original::Order {
                let Order { price, size, side, .. } = new.clone();
                original::Order { size, price: u32::try_from(price).unwrap_or(u32::MAX), side }
            }
        }
    }
}

/// Calls of one build to another. `sees` is what its handlers see, `answers` what the caller is told; `None`
/// is a typed error.
fn talk<Server: Build, Client: Build + Sync>(
    order: &Client,
    sees: Option<&str>,
    told: Option<&str>,
) {
    over_every_pair(|pair| {
        let seen = Seen::default();
        let server = pair.start(Server::serve(pair.bind(), &seen));
        let answers = order.call_all(pair, &server);
        for (number, answer) in answers.iter().enumerate() {
            match (number, answer) {
                // The error is the same in all builds, and so is a number.
                (5, Ok(error)) => assert_eq!(error, "Refused { why: \"closed\" }"),
                (7, Ok(count)) => assert_eq!(count, "1"),
                (_, Ok(answer)) => assert_eq!(Some(answer.as_str()), told, "answer {number}"),
                (_, Err(cause)) => assert!(
                    match cause {
                        Cause::Status(status) =>
                            sees.is_none() && matches!(*status, Status::BAD_BODY | Status::BAD_ITEM),
                        Cause::BadReply => sees.is_some() && told.is_none(),
                        _ => false,
                    },
                    "answer {number}: {cause:?}"
                ),
            }
            if sees.is_some() && told.is_some() {
                assert!(answer.is_ok(), "answer {number}: {answer:?}");
            }
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|order| Some(order.as_str()) == sees), "{seen:?}");
        if sees.is_some() {
            // Two orders in the streams' call, one each in all others, two of them one-way.
            assert_eq!(seen.len(), 15, "{seen:?}");
        }
    });
}

fn first() -> original::Order {
    original::Order { size: 7, price: 42, side: original::Side::Sell { short: true } }
}

const FIRST: &str = "Order { size: 7, price: 42, side: Sell { short: true } }";

#[test]
fn the_same_build_talks_in_its_own_layout() {
    talk::<original::Order, _>(&first(), Some(FIRST), Some(FIRST));
    over_one_pair(|pair| {
        let seen = Seen::default();
        let server = pair.start(original::Order::serve(pair.bind(), &seen));
        let client = pair.blocking(&server);
        let desk = original::DeskClient::new(&client);
        desk.put(&first()).wait().unwrap();
        assert_eq!(client.counters().fallback_encoded, 0);
        assert_eq!(client.counters().fallback_decoded, 0);
    });
}

#[test]
fn a17_added_fields_have_their_defaults() {
    let sees = "Order { size: 7, price: 42, side: Sell { short: true }, note: None, tags: [] }";
    talk::<added::Order, _>(&first(), Some(sees), Some(FIRST));
}

#[test]
fn a17_removed_fields_are_left_out() {
    let order = added::Order {
        size: 7,
        price: 42,
        side: added::Side::Sell { short: true },
        note: Some("soon".into()),
        tags: vec!["x".into()],
    };
    let told = "Order { size: 7, price: 42, side: Sell { short: true }, note: None, tags: [] }";
    talk::<original::Order, _>(&order, Some(FIRST), Some(told));
}

#[test]
fn a17_an_added_field_without_default_is_an_error() {
    talk::<added_without_default::Order, _>(&first(), None, None);
    let order = added_without_default::Order {
        size: 7,
        price: 42,
        side: added_without_default::Side::Sell { short: true },
        account: 1,
    };
    // It is understood there, but not what comes back.
    talk::<original::Order, _>(&order, Some(FIRST), None);
}

#[test]
fn a17_moved_fields_and_variants_are_found_by_name() {
    let sees = "Order { price: 42, size: 7, side: Sell { short: true } }";
    talk::<swapped::Order, _>(&first(), Some(sees), Some(FIRST));
    let order = swapped::Order { size: 7, price: 42, side: swapped::Side::Sell { short: true } };
    talk::<original::Order, _>(&order, Some(FIRST), Some(sees));
}

#[test]
fn a17_a_renamed_field_is_an_error() {
    talk::<renamed::Order, _>(&first(), None, None);
}

#[test]
fn a17_a_new_variant_is_an_error_where_it_is_not_known() {
    use more_variants::{Order, Side};
    let known = Order { size: 7, price: 42, side: Side::Sell { short: true } };
    talk::<original::Order, _>(&known, Some(FIRST), Some(FIRST));
    talk::<more_variants::Order, _>(&first(), Some(FIRST), Some(FIRST));
    talk::<original::Order, _>(&Order { side: Side::Swap(3), ..known }, None, None);
}

#[test]
fn layouts_of_before_stay_on_the_fast_path() {
    let sees = "Order { price: 42, size: 7, side: Sell { short: true }, note: None }";
    talk::<keeps::Order, _>(&first(), Some(sees), Some(FIRST));
    over_one_pair(|pair| {
        let seen = Seen::default();
        let server = pair.start(keeps::Order::serve(pair.bind(), &seen));
        let client = pair.blocking(&server);
        let desk = original::DeskClient::new(&client);
        for _ in 0..2 {
            assert_eq!(desk.put(&first()).wait().unwrap().to_owned(), first());
            assert_eq!(desk.away(&first()).wait().unwrap().to_owned(), first());
            assert_eq!(desk.later(&first()).wait().unwrap().to_owned(), first());
        }
        client.run(async {
            let (mut sender, mut orders) = desk.mirror(&first()).await.unwrap();
            sender.send(&first()).await.unwrap();
            sender.end();
            while let Some(order) = orders.next().await {
                assert_eq!(order.unwrap().to_owned(), first());
            }
        });
        let counters = client.counters();
        assert_eq!((counters.fallback_encoded, counters.fallback_decoded), (0, 0));
    });
}

#[test]
fn skew_is_counted_on_the_side_that_pays() {
    over_one_pair(|pair| {
        let seen = Seen::default();
        let server = pair.start(swapped::Order::serve(pair.bind(), &seen));
        let client = pair.blocking(&server);
        let desk = original::DeskClient::new(&client);
        for _ in 0..10 {
            desk.put(&first()).wait().unwrap();
        }
        // One without time left is not sent, and so not counted.
        assert!(desk.put(&first()).deadline(Duration::ZERO).wait().is_err());
        let counters = client.counters();
        assert_eq!((counters.fallback_encoded, counters.fallback_decoded), (10, 10));
    });
}

#[test]
fn a_call_back_to_another_build_is_understood() {
    over_one_pair(|pair| {
        let seen = Seen::default();
        let calls = Keeps::default();
        let kept = Arc::clone(&calls.0);
        let server = pair.start(pair.bind().service(calls.into_calls()));
        let desk = original::Desk::into_desk(original::Office(Arc::clone(&seen)));
        let client = pair.secured(CallsClient::connect(server.address()));
        let client = client.service(desk).wait().unwrap();
        client.hello().wait().unwrap();
        let peer = kept.lock().unwrap().take().expect("it has called");
        let desk = swapped::DeskClient::new(peer);
        let order = swapped::Order { price: 42, size: 7, side: swapped::Side::Buy };
        for _ in 0..3 {
            assert_eq!(desk.put(&order).wait().unwrap().to_owned(), order);
            let (told, telling) = std::sync::mpsc::channel();
            desk.own(&order).callback(move |came| {
                let _ = told.send(came.map(|came| came.to_owned()));
            });
            assert_eq!(telling.recv().unwrap().unwrap(), order);
            desk.toss(&order).wait().unwrap();
        }
        desk.put(&order).wait().unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 10);
        assert!(seen.iter().all(|seen| seen == "Order { size: 7, price: 42, side: Buy }"));
    });
}

#[ringcall::service]
trait Calls {
    async fn hello(&self, cx: &ringcall::Context);
}

/// Keeps whoever has called.
#[derive(Clone, Default)]
struct Keeps(Arc<Mutex<Option<ringcall::Peer>>>);

impl Calls for Keeps {
    async fn hello(&self, cx: &ringcall::Context) {
        *self.0.lock().unwrap() = Some(cx.peer());
    }
}

// ---- files of shapes ----

#[test]
fn files_of_shapes_say_what_a_change_means() {
    use ringcall::shapes::{Verdict, compare, render};
    let original = render(&[original::DeskClient::service_table()]);
    let compare_with = |other: &ringcall::ServiceTable| {
        let compared = compare(&original, &render(&[other])).unwrap();
        let put = compared.into_iter().find(|method| method.method == "test.Desk/own").unwrap();
        (put.verdict, put.differences.join("; "))
    };
    let same = compare_with(original::DeskClient::service_table());
    assert_eq!(same, (Verdict::FastPath, String::new()));
    let (verdict, differences) = compare_with(added::DeskClient::service_table());
    assert_eq!(verdict, Verdict::Fallback);
    assert!(differences.contains("Order.note: added, none if it is missing"), "{differences}");
    assert!(differences.contains("Order.tags: added, needs `#[serde(default)]`"), "{differences}");
    let (verdict, differences) = compare_with(renamed::DeskClient::service_table());
    assert_eq!(verdict, Verdict::Fallback);
    assert!(differences.contains("Order.price: removed, needs"), "{differences}");
    assert!(differences.contains("Order.cost: added, needs"), "{differences}");
    let (verdict, differences) = compare_with(swapped::DeskClient::service_table());
    assert_eq!((verdict, differences.as_str()), (Verdict::Fallback, ""));
    let (verdict, differences) = compare_with(more_variants::DeskClient::service_table());
    assert_eq!(verdict, Verdict::Fallback);
    assert!(differences.contains("Side::Swap: added; an error where"), "{differences}");

    let other = original.replace("u32:4:4", "string:8:4");
    let compared = compare(&original, &other).unwrap();
    assert!(compared.iter().all(|method| method.verdict == Verdict::Incompatible));
    let compared = compare(&original, "").unwrap();
    assert!(compared.iter().all(|method| method.verdict == Verdict::Incompatible));
    assert!(compare("", &original).unwrap().iter().all(|m| m.verdict == Verdict::FastPath));
    assert!(compare("test.Desk/put", "").is_err());
    assert!(compare(&original, &original.replace('{', "(")).is_err());
}

#[test]
fn a_file_of_shapes_is_held_to_the_code() {
    let path = std::env::temp_dir().join(format!("ringcall-shapes-{}.txt", std::process::id()));
    let tables = [original::DeskClient::service_table()];
    std::fs::write(&path, ringcall::shapes::render(&tables)).unwrap();
    ringcall::shapes::check(&path, &tables);
    let changed = std::panic::catch_unwind(|| {
        ringcall::shapes::check(&path, &[added::DeskClient::service_table()]);
    });
    let said = *changed.unwrap_err().downcast::<String>().unwrap();
    for part in ["fallback", "Order.note: added", "+  in rkyv-0.8/", "RINGCALL_UPDATE_SHAPES=1"] {
        assert!(said.contains(part), "{said}");
    }
    std::fs::remove_file(&path).unwrap();
}

// ---- callers without types ----

/// A call as somebody in another language makes it: in a codec with names, without signatures.
fn call_in<A: Message>(
    client: &ringcall::BlockingClient,
    method: &str,
    codec: Codec,
    argument: &A,
) -> Result<(Codec, Vec<u8>), Cause> {
    let call = Outgoing {
        name: "",
        method: method_id(method),
        in_signature: 0,
        out_signature: 0,
        codec,
        compression: 0,
        timeout: std::time::Duration::from_secs(5),
        priority: 0,
        attempt: 0,
        flags: 0,
        wait_for_ready: false,
    };
    let answer = client.run(client.call(call, Typed(argument))).map_err(|failure| failure.cause)?;
    Ok((answer.header.codec, answer.body.to_vec()))
}

#[test]
fn callers_without_types_are_answered_in_their_codec() {
    over_every_pair(|pair| {
        let seen = Seen::default();
        let server = pair.start(original::Order::serve(pair.bind(), &seen));
        let client = pair.blocking(&server);
        let codecs: &[Codec] = if cfg!(feature = "json") {
            &[Codec::MESSAGEPACK, Codec::JSON]
        } else {
            &[Codec::MESSAGEPACK]
        };
        for &codec in codecs {
            for method in ["put", "own", "away", "later"] {
                let method = format!("test.Desk/{method}");
                let (came_in, body) = call_in(&client, &method, codec, &first()).unwrap();
                assert_eq!(came_in, codec);
                let order = decode_named::<original::Order>(codec, &body);
                assert_eq!(order.unwrap(), first());
            }
            let (came_in, body) = call_in(&client, "test.Desk/refuse", codec, &first()).unwrap();
            assert_eq!(came_in, codec);
            let refused = decode_named::<original::Refused>(codec, &body);
            assert_eq!(refused.unwrap(), original::Refused { why: "closed".into() });
        }
        let counters = client.counters();
        assert_eq!(counters.fallback_encoded, 5 * codecs.len() as u64);
        assert_eq!(counters.fallback_decoded, 5 * codecs.len() as u64);
    });
}

/// It was asked for its table of methods, and is gone: nobody is to wait for the answer.
#[test]
fn a_call_that_cannot_be_repeated_does_not_wait_for_the_table_of_who_has_left() {
    use crate::common::raw;
    use ringcall_core::frame::{ArchiveFormat, Hello, InstanceId, Kind, PREFACE, features};
    use std::io::Write;
    over_one_pair(|pair| {
        let listening = raw::Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = std::thread::spawn(move || {
            let mut wire = listening.accept();
            raw::read_opening(&mut wire).expect("a HELLO");
            let hello = Hello {
                version_min: 1,
                version_max: 1,
                archive: ArchiveFormat::STANDARD,
                compressions: 0,
                in_flight_max: 1024,
                features: features::CONTROL_METHODS,
                codecs: 0b111,
                message_bytes_max: 4 << 20,
                calls_window: 8 << 20,
                replies_window: 8 << 20,
                stream_window: 1 << 20,
                table_digest: 0x1234_5678,
                instance: InstanceId::default(),
            };
            let hello = raw::frame(Kind::Hello, 0, 0, &hello.encode(), b"");
            wire.write_all(&[&PREFACE[..], &hello].concat()).unwrap();
            raw::read_frame(&mut wire).expect("it asks");
        });
        let mut config = ringcall::ShardConfig::default();
        config.transport = pair.client;
        let shard = ringcall::Shard::new(config).unwrap();
        let client = shard.block_on(shard.connect(&address)).unwrap();
        let desk = original::DeskClient::new(client.clone());
        shard.run(|| !matches!(client.state(), ringcall::ConnectionState::Broken(_)));
        server.join().unwrap();
        let order = first();
        let toss = desk.toss(&order).deadline(Duration::from_secs(5));
        let end = shard.block_on(std::future::IntoFuture::into_future(toss));
        let lost = *end.unwrap_err().failure().expect("nobody answers");
        assert!(matches!(lost.cause, Cause::Closed(_)), "{lost}");
    });
}
