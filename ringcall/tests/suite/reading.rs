//! Reading what was received: comparing it, showing it, making parts of it one's own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringcall::__private::codec::Archivable;
use ringcall::{Bytes, Message, UnixTime, View};
use ringcall_core::SharedPool;

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    kind: Kind,
    symbol: String,
    size: Option<u64>,
    price: f64,
    legs: Vec<Leg>,
    parent: Option<Box<Order>>,
    note: Note,
    #[rkyv(with = UnixTime)]
    at: SystemTime,
    range: (u8, i64),
}

#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Market,
    Limit(i64),
    Stop { at: i64 },
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    kinds: Vec<Kind>,
}

/// Compares in its own way, so that its archive does not.
#[ringcall::message]
#[derive(Clone, Debug)]
struct Note {
    text: String,
    number: u64,
}

impl PartialEq for Note {
    fn eq(&self, other: &Note) -> bool {
        self.text == other.text
    }
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Page<T: Clone, const N: usize> {
    items: Vec<T>,
    up: Option<Box<Page<T, N>>>,
    notes: [Note; N],
    bytes: [u8; N],
    #[rkyv(with = UnixTime)]
    at: SystemTime,
}

#[ringcall::message]
#[rkyv(compare(PartialEq), archived = InAnArchive)]
#[derive(Debug, PartialEq)]
struct AsRkyvHasIt(u32);

#[ringcall::message]
#[rkyv(archived = Stored)]
#[derive(Debug, PartialEq)]
struct Renamed(u32);

fn view<M: Message + Archivable>(message: &M) -> View<M, Bytes> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(1 << 20);
    message.encode(&mut out).unwrap();
    View::new(Bytes::from(Box::from(&pool.finish(out).0[..]))).unwrap()
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned(), number: 0 }
}

fn order() -> Order {
    Order {
        kind: Kind::Stop { at: 7 },
        symbol: "ABC".to_owned(),
        size: Some(5),
        price: 0.5,
        legs: vec![Leg { kinds: vec![Kind::Market, Kind::Limit(3)] }],
        parent: None,
        note: note("first"),
        at: UNIX_EPOCH + Duration::from_secs(9),
        range: (1, -2),
    }
}

#[test]
fn a_view_and_its_fields_compare_with_originals() {
    let parent = Some(Box::new(order()));
    let order = Order { parent, ..order() };
    let view = view(&order);
    assert_eq!(view, order);
    assert_eq!(view.kind, Kind::Stop { at: 7 });
    assert!(view.kind != Kind::Stop { at: 8 } && view.kind != Kind::Market);
    assert_eq!(view.legs, order.legs);
    assert_eq!(view.at, order.at);
    assert_eq!(view.size, Some(5));
    assert_eq!(view.range, (1, -2));

    let others = [
        Order { kind: Kind::Market, ..order.clone() },
        Order { symbol: "ABD".to_owned(), ..order.clone() },
        Order { size: None, ..order.clone() },
        Order { price: f64::NAN, ..order.clone() },
        Order { legs: vec![Leg { kinds: Vec::new() }], ..order.clone() },
        Order { parent: None, ..order.clone() },
        Order { note: note("second"), ..order.clone() },
        Order { at: UNIX_EPOCH, ..order.clone() },
        Order { range: (1, 2), ..order.clone() },
    ];
    others.iter().for_each(|other| assert!(view != *other, "{other:?}"));
    // As its type has it.
    assert_eq!(view, Order { note: Note { number: 7, ..note("first") }, ..order });
}

#[test]
fn generic_messages_compare_with_originals() {
    let page = |items| Page { items, up: None, notes: [note("a")], bytes: [1], at: UNIX_EPOCH };
    let whole = Page { up: Some(Box::new(page(vec![Kind::Market]))), ..page(vec![Kind::Limit(1)]) };
    let view = view(&whole);
    assert_eq!(view, whole);
    assert!(view != page(vec![Kind::Limit(1)]));
    assert!(view != Page { notes: [note("b")], ..whole });
}

#[test]
fn the_archived_type_may_have_another_name_and_rkyvs_own_comparison() {
    assert_eq!(view(&AsRkyvHasIt(1)), AsRkyvHasIt(1));
    assert_eq!(view(&Renamed(1)), Renamed(1));
}

#[test]
fn texts_and_numbers_are_compared_and_shown_as_they_are() {
    let text = view(&"ABC".to_owned());
    let abc = "ABC".to_owned();
    assert!(text == "ABC" && text == *"ABC" && text == abc && text != "ABD");
    assert_eq!(format!("{text} {:>4}", view(&7_u64)), "ABC    7");
    assert!(view(&7_u64) == 7);
}

#[test]
fn a_part_is_made_ones_own() {
    let view = view(&order());
    let kind = ringcall::owned(&view.kind);
    assert_eq!(kind, Kind::Stop { at: 7 });
    let (legs, size): (Vec<Leg>, Option<u64>) =
        (ringcall::owned(&view.legs), ringcall::owned(&view.size));
    assert_eq!((legs, size), (order().legs, Some(5)));
    assert_eq!(ringcall::owned::<Leg, _>(&view.legs[0]), order().legs[0]);
    let symbol: String = ringcall::owned(&view.symbol);
    assert_eq!(symbol, "ABC");
}
