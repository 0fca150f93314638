//! What stands for a message is written as that is, byte for byte.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use ringcall_buf::{Chunk, Frozen, Full, SharedPool};
use ringcall_codec_rkyv::Archiver;
use ringcall_codec_rkyv::rkyv::rancor::Failure;
use ringcall_codec_rkyv::rkyv::{Archived, Place};
use ringcall_codec_rkyv::{
    Archivable, EncodeAs, Encoded, Form, IntoReply, Message, UnixTime, View, each, owned,
};
use ringcall_core::{Codec, EncodeError, REFERENCE_BYTES_MIN};
use ringcall_macros::message;

/// What the macro asks for.
mod ringcall {
    pub(crate) mod __private {
        pub(crate) use ringcall_codec_rkyv as codec;
    }
}

#[message(crate = ringcall, borrowed)]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    /// Stays a number.
    id: i64,
    account: String,
    is_buy: bool,
    kind: Kind,
    r#type: Option<String>,
    legs: Vec<Leg>,
    notes: Vec<String>,
    main: Option<Leg>,
    sizes: Vec<u32>,
    pair: (String, u16),
    ends: [String; 2],
    boxed: Box<(String, u8)>,
    ttl: Duration,
    #[rkyv(with = UnixTime)]
    at: SystemTime,
    ip: IpAddr,
    from: SocketAddr,
    left: Option<NonZeroU32>,
    mark: char,
}

#[message(crate = ringcall)]
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Market,
    Limit { price: f64, reason: String },
}

#[message(crate = ringcall, borrowed = BorrowedLeg)]
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    symbol: String,
    ratio: i32,
    price: f64,
}

#[message(crate = ringcall, borrowed)]
#[derive(Clone, Debug, PartialEq)]
struct Pair(String, u64);

#[message(crate = ringcall)]
#[derive(Clone, Debug, PartialEq)]
struct Page<T> {
    items: Vec<T>,
}

#[message(crate = ringcall, borrowed)]
#[derive(Clone, Debug, PartialEq)]
struct Node {
    name: String,
    next: Option<Box<Node>>,
}

/// What a sender would put into a frame.
fn encode<M: Message>(message: &M) -> Vec<u8> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(8 << 20);
    message.encode(&mut out).expect("it fits");
    let attached = out.attached().and_then(|attached| attached.as_slice()).map(<[u8]>::to_vec);
    let mut bytes = pool.finish(out).0.to_vec();
    bytes.extend(attached.into_iter().flatten());
    bytes
}

fn encode_as<T: Archivable + Message>(value: &(impl EncodeAs<T> + ?Sized)) -> Vec<u8> {
    encode(&sent(Encoded::<T>::of(value)))
}

/// What is sent of what a handler returns.
fn sent<T: Archivable + Message, B: Frozen>(
    encoded: Encoded<T, B>,
) -> <Encoded<T, B> as IntoReply>::Sent
where
    Encoded<T, B>: IntoReply<Value = T, Failure = std::convert::Infallible>,
{
    encoded.into_reply().unwrap_or_else(|never| match never {})
}

fn view<T: Archivable + Message>(message: &T) -> View<T> {
    View::new(ringcall_buf::Pool::new(0).copy(&encode(message))).expect("an archive")
}

prop_compose! {
    fn leg()(symbol in ".{0,12}", ratio: i32, price in -1e9..1e9) -> Leg {
        Leg { symbol, ratio, price }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Market),
        (-1e9..1e9, ".{0,12}").prop_map(|(price, reason)| Kind::Limit { price, reason }),
    ]
}

prop_compose! {
    fn order()(
        (id, account, is_buy, kind) in (any::<i64>(), ".{0,20}", any::<bool>(), kind()),
        (r#type, legs, notes) in (
            proptest::option::of(".{0,12}"),
            proptest::collection::vec(leg(), 0..5),
            proptest::collection::vec(".{0,12}", 0..5),
        ),
        (main, sizes, pair, ends) in (
            proptest::option::of(leg()),
            proptest::collection::vec(any::<u32>(), 0..9),
            (".{0,12}", any::<u16>()),
            [".{0,12}", ".{0,12}"],
        ),
        (boxed, ttl, ip, from, left, mark) in
            ((".{0,12}", any::<u8>()), any::<Duration>(), any::<IpAddr>(), any::<SocketAddr>(), any::<Option<NonZeroU32>>(), any::<char>()),
        seconds in 0u64..1 << 40,
    ) -> Order {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let boxed = Box::new(boxed);
        Order { id, account, is_buy, kind, r#type, legs, notes, main, sizes, pair, ends, boxed, ttl, at, ip, from, left, mark }
    }
}

proptest! {
    #[test]
    fn borrowed_forms_are_written_as_the_message_is(order in order()) {
        let whole = encode(&order);
        let borrowed = OrderRef {
            id: order.id,
            account: order.account.as_str(),
            is_buy: order.is_buy,
            kind: &order.kind,
            r#type: order.r#type.as_deref(),
            legs: each(order.legs.iter().map(|leg| BorrowedLeg {
                symbol: &leg.symbol,
                ratio: leg.ratio,
                price: leg.price,
            })),
            notes: order.notes.as_slice(),
            main: order.main.as_ref(),
            sizes: &order.sizes,
            pair: (order.pair.0.as_str(), order.pair.1),
            ends: order.ends.each_ref(),
            boxed: &order.boxed,
            ttl: order.ttl,
            at: order.at,
            ip: order.ip,
            from: order.from,
            left: order.left,
            mark: order.mark,
        };
        prop_assert_eq!(&encode_as::<Order>(&borrowed), &whole);
        prop_assert_eq!(&encode_as::<Order>(&order), &whole);
    }

    #[test]
    fn parts_of_a_view_are_written_as_they_were(order in order()) {
        let read = view(&order);
        let again = OrderRef {
            id: read.id.to_native(),
            account: &read.account,
            is_buy: read.is_buy,
            kind: &read.kind,
            r#type: &read.r#type,
            legs: &read.legs,
            notes: &read.notes,
            main: &read.main,
            sizes: &read.sizes,
            pair: &read.pair,
            ends: &read.ends,
            boxed: &read.boxed,
            ttl: read.ttl,
            at: read.at.to_system_time(),
            ip: read.ip,
            from: read.from,
            left: &read.left,
            mark: read.mark.to_native(),
        };
        prop_assert_eq!(encode_as::<Order>(&again), encode(&order));
    }

    #[test]
    fn what_was_read_in_a_view_is_written_as_it_was(order in order()) {
        let read = view(&order);
        let kind: Kind = owned(&read.kind);
        let again = OrderRef {
            id: read.id.to_native(),
            account: &read.account,
            is_buy: read.is_buy,
            kind,
            r#type: &read.r#type,
            legs: each(read.legs.iter().map(|leg| BorrowedLeg {
                symbol: leg.symbol.as_str(),
                ratio: leg.ratio.to_native(),
                price: leg.price.to_native(),
            })),
            notes: &read.notes,
            main: read.main.as_ref().map(owned::<Leg, _>),
            sizes: &read.sizes,
            pair: (read.pair.0.as_str(), read.pair.1),
            ends: &read.ends,
            boxed: &read.boxed,
            ttl: read.ttl,
            at: read.at.to_system_time(),
            ip: &read.ip,
            from: &read.from,
            left: read.left.as_ref().map(|left| left.to_native()),
            mark: read.mark.to_native(),
        };
        prop_assert_eq!(encode_as::<Order>(&again), encode(&order));
        prop_assert_eq!(encode_as::<Order>(&*read), encode(&order));
        prop_assert_eq!(encode(&sent(Encoded::from(read))), encode(&order));
    }
}

#[test]
fn texts_and_lists_may_be_of_many_kinds() {
    let text = encode(&String::from("a text that is not short"));
    let str = "a text that is not short";
    assert_eq!(encode_as::<String>(str), text);
    assert_eq!(encode_as::<String>(&Box::<str>::from(str)), text);
    assert_eq!(encode_as::<String>(&Arc::<str>::from(str)), text);
    assert_eq!(encode_as::<String>(&Rc::new(String::from(str))), text);
    assert_eq!(encode_as::<String>(&Cow::Borrowed(str)), text);
    let list = encode(&vec![String::from("one"), String::from("a second that is longer")]);
    let strs = ["one", "a second that is longer"];
    assert_eq!(encode_as::<Vec<String>>(&strs), list);
    assert_eq!(encode_as::<Vec<String>>(&strs[..]), list);
    assert_eq!(encode_as::<Vec<String>>(&strs.to_vec()), list);
    assert_eq!(encode_as::<Vec<String>>(&each(strs)), list);
    let page = encode(&Page { items: vec![7u32, 8] });
    assert_eq!(encode_as::<Page<u32>>(&Page { items: vec![7u32, 8] }), page);
    assert_eq!(encode_as::<Pair>(&PairRef("left", 5)), encode(&Pair("left".into(), 5)));
    assert_eq!(encode_as::<Option<String>>(&None::<&str>), encode(&None::<String>));
}

#[test]
fn recursive_and_generic_messages_may_be_of_parts() {
    let last = Node { name: "the last one of them".into(), next: None };
    let node = Node { name: "first".into(), next: Some(Box::new(last.clone())) };
    let borrowed = NodeRef {
        name: "first",
        next: Some(Box::new(NodeRef { name: "the last one of them", next: None::<Box<Node>> })),
    };
    assert_eq!(encode_as::<Node>(&borrowed), encode(&node));
    assert_eq!(
        encode_as::<Node>(&NodeRef { name: "first", next: Some(Box::new(&last)) }),
        encode(&node)
    );
    let read = view(&node);
    assert_eq!(encode_as::<Node>(&NodeRef { name: &read.name, next: &read.next }), encode(&node));
    let page = Page { items: vec![node.clone(), last] };
    assert_eq!(encode_as::<Page<Node>>(&*view(&page)), encode(&page));
}

/// An iterator that gives something else each time it is asked must not be asked twice: what was written of an element
/// would be taken for what was written of another.
#[test]
fn an_iterator_is_asked_once() {
    let asked = std::cell::Cell::new(0);
    let items = each((0..3).map(|_| {
        asked.set(asked.get() + 1);
        (asked.get() % 2 == 0).then_some("a text that lies outside")
    }));
    let body = encode_as::<Vec<Option<String>>>(&items);
    assert_eq!(asked.get(), 3);
    let expected = vec![None, Some("a text that lies outside".to_owned()), None];
    assert_eq!(body, encode(&expected));
}

/// Parts of nothing, and the place of something: rkyv alone would take that for what cannot be.
#[test]
fn a_source_that_contradicts_itself_is_nothing() {
    type Text = Option<&'static str>;

    struct Fickle;

    impl EncodeAs<Option<String>> for Fickle {
        type Resolver = <Text as EncodeAs<Option<String>>>::Resolver;

        fn encode_parts(&self, encoder: &mut Archiver<'_>) -> Result<Self::Resolver, Failure> {
            let text: Text = Some("what is there at first, and not short");
            EncodeAs::<Option<String>>::encode_parts(&text, encoder)
        }

        fn resolve_as(&self, resolver: Self::Resolver, out: Place<Archived<Option<String>>>) {
            <Text as EncodeAs<Option<String>>>::resolve_as(&None, resolver, out);
        }
    }

    let nothing = Encoded::<Option<String>>::of(&Fickle);
    let body = encode(&sent(nothing));
    let view = View::<Option<String>>::new(ringcall_buf::Pool::new(0).copy(&body)).unwrap();
    assert!(view.is_none());
}

/// What is kept by itself is the same message.
#[test]
fn what_is_detached_is_what_it_was() {
    for len in [0, 5, 300, 70_000] {
        let pair = Pair("x".repeat(len), 5);
        let encoded = Encoded::of(&pair);
        let detached = encoded.detach();
        drop(encoded);
        assert_eq!(encode(&sent(detached)), encode(&pair));
    }
}

/// One that gives less than it said makes a shorter list, one that gives more the list that it said.
#[test]
fn an_iterator_that_miscounts_does_no_harm() {
    #[derive(Clone)]
    struct Miscounting(std::ops::Range<u32>, usize);

    impl Iterator for Miscounting {
        type Item = u32;

        fn next(&mut self) -> Option<u32> {
            self.0.next()
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.1, Some(self.1))
        }
    }

    impl ExactSizeIterator for Miscounting {}

    for (says, is) in [(5, vec![0, 1, 2]), (2, vec![0, 1]), (0, vec![])] {
        let body = encode_as::<Vec<u32>>(&each(Miscounting(0..3, says)));
        assert_eq!(body, encode(&is), "{says}");
    }
}

#[test]
fn it_is_encoded_once_and_sent_many_times() {
    let order = Pair("x".repeat(100), 5);
    let encoded = Encoded::of(&order);
    let shared = encoded.share();
    let on_another_thread = std::thread::spawn(move || encode(&sent(shared.clone())));
    assert_eq!(on_another_thread.join().unwrap(), encode(&order));
    for _ in 0..3 {
        assert_eq!(encode(&sent(encoded.clone())), encode(&order));
    }
}

/// Those of a thread lie one behind the other, whatever becomes of them.
#[test]
fn many_are_kept_and_none_is_overwritten() {
    let mut kept: Vec<(Pair, Encoded<Pair, Chunk>)> = Vec::new();
    for round in 0..300u64 {
        let len = [0, 7, 100, 5000, 20_000][round as usize % 5];
        let pair = Pair(char::from(b'a' + (round % 26) as u8).to_string().repeat(len), round);
        kept.push((pair.clone(), Encoded::of(&pair)));
        if round % 3 == 0 {
            kept.swap_remove(kept.len() / 2);
        }
    }
    for (pair, encoded) in kept {
        assert_eq!(encode(&sent(encoded)), encode(&pair));
    }
}

/// What is being encoded may encode something itself.
#[test]
fn one_within_another() {
    let outer = each((0..20u32).map(|number| {
        let inner = Encoded::of(&Pair(format!("the inner message {number}"), number.into()));
        encode(&sent(inner)).len() as u64
    }));
    let lens: Vec<u64> = (0..20)
        .map(|number| encode(&Pair(format!("the inner message {number}"), number)).len() as u64)
        .collect();
    assert_eq!(encode_as::<Vec<u64>>(&outer), encode(&lens));
}

#[test]
fn large_ones_are_sent_from_where_they_are() {
    let pair = Pair("x".repeat(REFERENCE_BYTES_MIN), 5);
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(1 << 20);
    sent(Encoded::of(&pair)).encode(&mut out).unwrap();
    assert!(out.is_empty() && out.attached().is_some());
    let mut out = pool.writer(100);
    let full = sent(Encoded::of(&pair)).encode(&mut out);
    assert_eq!(full, Err(EncodeError::Full(Full { limit: 100 })));
}

/// Other builds get it by names, as they would the message.
#[test]
fn it_is_said_by_names_as_well() {
    let order = Pair("name".into(), 5);
    for form in [Codec::MESSAGEPACK, Codec::JSON].map(Form::of_codec) {
        let by_name = |message: &dyn Fn(&mut ringcall_core::Writer) -> Result<(), EncodeError>| {
            let pool = SharedPool::new(4096);
            let mut out = pool.writer(1 << 20);
            // JSON is a feature.
            message(&mut out).map(|()| pool.finish(out).0.to_vec())
        };
        let message = by_name(&|out| order.encode_as(form, out));
        let encoded =
            by_name(&|out| sent(Encoded::<Pair>::of(&PairRef("name", 5))).encode_as(form, out));
        assert_eq!(encoded, message);
        assert!(message.is_ok() || form == Form::of_codec(Codec::JSON));
    }
}

/// It is told when it is sent, as of a message.
#[test]
fn what_cannot_be_encoded_fails_when_it_is_sent() {
    #[message(crate = ringcall)]
    struct Early {
        #[rkyv(with = UnixTime)]
        at: SystemTime,
    }

    let never = Early { at: SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 62) };
    let mut out = SharedPool::new(4096).writer(1 << 20);
    let expected = never.encode(&mut out);
    let mut out = SharedPool::new(4096).writer(1 << 20);
    assert_eq!(sent(Encoded::of(&never)).encode(&mut out), expected);
}
