//! Replies and arguments that are encoded before they are sent, of data that nobody need own.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::{Pair, eventually, over_every_pair, over_one_pair};
use crate::evolution::Listed;
use ringcall::{
    BlockOn, CallError, Channel, Encoded, FailureClass, IntoOwned, SharedEncoded, SharedView,
    SlowConsumer, Stream, StreamChannel, Topic, UnixTime, View, each,
};

#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    id: u64,
    account: String,
    legs: Vec<Leg>,
    notes: Vec<String>,
}

#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    symbol: String,
    ratio: i32,
}

#[ringcall::message(borrowed)]
#[derive(Debug)]
struct Late {
    why: String,
    #[rkyv(with = UnixTime)]
    since: SystemTime,
}

#[ringcall::service(name = "test.Desk")]
trait Desk {
    /// The order again, of what is in its view.
    #[method(encoded)]
    async fn copy(&self, order: View<Order>) -> Encoded<Order>;
    #[method(offload, encoded)]
    async fn away(&self, order: SharedView<Order>) -> Result<SharedEncoded<Order>, u8>;
    /// What was encoded once.
    async fn kept(&self) -> Encoded<Order>;
    #[method(encoded)]
    async fn twice(&self, order: View<Order>) -> impl Stream<Item = Encoded<Order>>;
    /// What is published, until it says otherwise.
    async fn published(&self) -> impl Stream<Item = SharedEncoded<Order>>;
    async fn until(
        &self,
        order: View<Order>,
    ) -> Result<impl Stream<Item = Result<View<Order>, u8>>, u8>;
    #[method(encoded, one_way)]
    async fn toss(&self, order: View<Order>);
    /// Cannot be sent.
    async fn late(&self) -> Encoded<Late>;
}

/// The order of a view, of which nothing is owned.
macro_rules! again {
    ($order:expr) => {
        OrderRef {
            id: $order.id.to_native(),
            account: &$order.account,
            legs: each(
                $order
                    .legs
                    .iter()
                    .map(|leg| LegRef { symbol: &leg.symbol, ratio: leg.ratio.to_native() }),
            ),
            notes: &$order.notes,
        }
    };
}

thread_local! {
    static KEPT: OnceCell<Encoded<Order>> = const { OnceCell::new() };
}

#[derive(Clone)]
struct Office {
    tossed: Arc<AtomicU64>,
    topic: Topic<SharedEncoded<Order>>,
}

impl Default for Office {
    fn default() -> Office {
        Office { tossed: Arc::default(), topic: Topic::new(16, SlowConsumer::Wait) }
    }
}

impl Desk for Office {
    async fn copy(&self, order: View<Order>) -> Encoded<Order> {
        Encoded::of(&again!(order))
    }

    async fn away(&self, order: SharedView<Order>) -> Result<SharedEncoded<Order>, u8> {
        if order.legs.is_empty() { Err(7) } else { Ok(Encoded::of(&again!(order)).share()) }
    }

    async fn kept(&self) -> Encoded<Order> {
        KEPT.with(|kept| kept.get_or_init(|| Encoded::of(&order(3, 10))).clone())
    }

    async fn twice(&self, order: View<Order>) -> impl Stream<Item = Encoded<Order>> {
        let order = Encoded::of(&again!(order));
        Listed(vec![order.clone(), order].into_iter())
    }

    async fn published(&self) -> impl Stream<Item = SharedEncoded<Order>> {
        self.topic.subscribe()
    }

    async fn until(
        &self,
        order: View<Order>,
    ) -> Result<impl Stream<Item = Result<View<Order>, u8>>, u8> {
        Ok(Listed(vec![Ok(order.clone()), Ok(order), Err(9)].into_iter()))
    }

    async fn toss(&self, order: View<Order>) {
        self.tossed.fetch_add(order.id.to_native(), Ordering::SeqCst);
    }

    async fn late(&self) -> Encoded<Late> {
        let since = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        Encoded::of(&LateRef { why: "before 1970", since })
    }
}

fn order(legs: usize, len: usize) -> Order {
    let leg = |index: usize| Leg { symbol: format!("leg {index}").repeat(len.min(100)), ratio: -1 };
    Order {
        id: 5,
        account: "an account that is not short".into(),
        legs: (0..legs).map(leg).collect(),
        notes: vec!["short".into(), "x".repeat(len)],
    }
}

/// Nothing, little, what is sent from where it lies, and what is cut into frames.
const SIZES: [(usize, usize); 4] = [(0, 0), (3, 5), (2, 20_000), (20, 300_000)];

fn calls<C>(desk: &DeskClient<C>)
where
    C: BlockOn + Channel<Body: IntoOwned> + StreamChannel,
{
    for (legs, len) in SIZES {
        let order = order(legs, len);
        assert_eq!(desk.copy(&order).wait().unwrap().to_owned(), order);
        // What the caller need not own either.
        let borrowed = OrderRef {
            id: order.id,
            account: order.account.as_str(),
            legs: &order.legs,
            notes: each(order.notes.iter().map(String::as_str)),
        };
        let encoded = Encoded::of(&borrowed);
        for _ in 0..2 {
            assert_eq!(desk.copy_encoded(&encoded).wait().unwrap().to_owned(), order);
        }
        let shared = encoded.share();
        match desk.away_encoded(&shared).wait() {
            Ok(reply) => assert_eq!(reply.to_owned(), order),
            Err(error) => assert!(legs == 0 && matches!(error, CallError::App(7)), "{error}"),
        }
        #[cfg(feature = "lz4")]
        {
            let packed = desk.copy_encoded(&encoded).compression(Some(ringcall::Compression::Lz4));
            assert_eq!(packed.wait().unwrap().to_owned(), order);
        }
        // What was received, as it came.
        let reply = desk.copy(&order).wait().unwrap();
        let relayed = desk.copy(&reply.to_owned()).wait().unwrap();
        assert_eq!(relayed.to_owned(), order);
    }
    for _ in 0..2 {
        assert_eq!(desk.kept().wait().unwrap().to_owned(), order(3, 10));
    }
}

#[test]
fn what_is_encoded_before_is_what_would_have_been_encoded() {
    over_every_pair(|pair| {
        let office = Office::default();
        let server = pair.start(pair.bind().service(office.clone().into_desk()));
        let client = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let desk = DeskClient::new(client);
        calls(&desk);
        let sent = Encoded::of(&order(2, 3));
        let mut items = desk.twice_encoded(&sent).wait().unwrap();
        let items: Vec<_> = items.wait_each().map(|item| item.unwrap().to_owned()).collect();
        assert_eq!(items, [order(2, 3), order(2, 3)]);
        let first = order(3, 9000);
        let mut items = desk.until(&first).wait().unwrap();
        let items: Vec<_> = items.wait_each().collect();
        assert!(items[..2].iter().all(|item| item.as_ref().is_ok_and(|item| *item == first)));
        assert!(items.len() == 3 && matches!(items[2], Err(CallError::App(9))), "{items:?}");
        desk.toss_encoded(&sent).wait().unwrap();
        eventually("it was tossed", || office.tossed.load(Ordering::SeqCst) == 5);
        calls(&DeskClient::new(&pair.blocking(&server)));
        server.stop();
    });
}

/// However many have subscribed, it is encoded by whoever publishes it.
#[test]
fn an_item_is_encoded_once_for_all_subscribers() {
    over_every_pair(|pair| {
        let office = Office::default();
        let server = pair.start(pair.bind().service(office.clone().into_desk()));
        let blocking = pair.blocking(&server);
        let desk = DeskClient::new(&blocking);
        blocking.run(async {
            let mut subscribed = Vec::new();
            for _ in 0..3 {
                subscribed.push(desk.published().await.unwrap());
            }
            for size in SIZES {
                office.topic.publish(Encoded::of(&order(size.0, size.1)).share()).unwrap();
            }
            for items in &mut subscribed {
                for size in SIZES {
                    let item = items.next().await.unwrap().unwrap();
                    assert_eq!(item, order(size.0, size.1));
                }
            }
        });
        drop(blocking);
        server.stop();
    });
}

/// It is known when it is sent, and says of the call what it says of a message that cannot be encoded.
#[test]
fn what_could_not_be_encoded_fails_the_call() {
    over_one_pair(|pair: Pair| {
        let server = pair.start(pair.bind().service(Office::default().into_desk()));
        let desk = DeskClient::new(pair.blocking(&server));
        let Err(CallError::Failed(failure)) = desk.late().wait() else { panic!("it is a reply") };
        assert_eq!(failure.class, FailureClass::Unknown, "the handler ran: {failure}");
        assert_eq!(desk.kept().wait().unwrap().to_owned(), order(3, 10), "the connection goes on");
        drop(desk);
        server.stop();
    });
}

/// A message that was received goes on to the next server as it came.
#[test]
fn a_view_is_relayed_to_another_server() {
    #[ringcall::service(name = "test.Desk")]
    trait Relay {
        async fn copy(&self, order: View<Order>) -> Result<SharedView<Order>, u8>;
    }

    struct Front(DeskClient<ringcall::Client>);

    impl Relay for Front {
        async fn copy(&self, order: View<Order>) -> Result<SharedView<Order>, u8> {
            self.0.copy_encoded(&Encoded::from(order)).await.map_err(|_| 1)
        }
    }

    over_one_pair(|pair: Pair| {
        let back = pair.start(pair.bind().service(Office::default().into_desk()));
        let to_back = pair.secured(ringcall::Client::connect(back.address())).wait().unwrap();
        let front = pair.start(pair.bind().service(Front(DeskClient::new(to_back)).into_relay()));
        let desk = DeskClient::new(pair.blocking(&front));
        for (legs, len) in SIZES {
            assert_eq!(desk.copy(&order(legs, len)).wait().unwrap().to_owned(), order(legs, len));
        }
        drop(desk);
        front.stop();
        back.stop();
    });
}

/// Builds that know the order otherwise are told, and tell, by names.
mod other_build {
    use super::*;

    #[ringcall::message(borrowed)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Order {
        pub(super) notes: Vec<String>,
        pub(super) id: u64,
        #[serde(default)]
        pub(super) account: String,
        #[serde(default)]
        pub(super) legs: Vec<Leg>,
        #[serde(default)]
        pub(super) since: u32,
    }

    #[ringcall::service(name = "test.Desk")]
    pub(super) trait Desk {
        #[method(encoded)]
        async fn copy(&self, order: View<Order>) -> Encoded<Order>;
    }
}

#[test]
fn other_builds_understand_it() {
    over_one_pair(|pair: Pair| {
        let server = pair.start(pair.bind().service(Office::default().into_desk()));
        let blocking = pair.blocking(&server);
        let desk = other_build::DeskClient::new(&blocking);
        let Order { id, account, legs, notes } = order(3, 10);
        let order = other_build::Order { notes, id, account, legs, since: 0 };
        for _ in 0..2 {
            let sent = Encoded::of(&other_build::OrderRef {
                notes: &order.notes,
                id,
                account: order.account.as_str(),
                legs: &order.legs,
                since: 0,
            });
            assert_eq!(desk.copy_encoded(&sent).wait().unwrap().to_owned(), order);
        }
        assert!(blocking.counters().fallback_encoded > 0);
        drop(blocking);
        server.stop();
    });
}

/// Handles of one encoding may be sent from many threads.
#[test]
fn one_encoding_serves_many_threads() {
    over_one_pair(|pair: Pair| {
        let server = pair.start(pair.bind().service(Office::default().into_desk()));
        let client = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let desk = DeskClient::new(client);
        let sent = Encoded::of(&order(5, 1000)).share();
        let replies = Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (desk, sent, replies) = (desk.clone(), sent.clone(), &replies);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let reply = desk.copy_encoded(&sent).wait().unwrap();
                        assert_eq!(reply.to_owned(), order(5, 1000));
                        *replies.lock().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(*replies.lock().unwrap(), 80);
        server.stop();
    });
}
