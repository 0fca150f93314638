//! Messages of every kind, and how each is read field by field.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use ringcall_codec_rkyv::rkyv::{Archive, Archived};
use ringcall_codec_rkyv::{Archivable, Message, UnixTime};

/// A type whose views are tested.
pub(super) trait Case:
    Archivable + Archive<Archived: Debug> + Message + for<'a> Arbitrary<'a>
{
    /// Each field by itself, as a handler would read it.
    fn read(archived: &Archived<Self>) -> Self;

    /// How many pointers deep it is, or more.
    fn nesting(&self) -> usize {
        2
    }
}

#[ringcall::message]
#[derive(Arbitrary)]
pub(super) struct Order {
    id: u128,
    change: i128,
    symbol: String,
    side: Side,
    kind: Kind,
    legs: Vec<Leg>,
    note: Option<String>,
    parent: Option<Box<Order>>,
    price: f64,
    range: (i64, u8),
    tags: [u16; 3],
    is_firm: bool,
    grade: char,
    from: SocketAddr,
    age: Duration,
    #[rkyv(with = UnixTime)]
    #[arbitrary(with = time)]
    at: SystemTime,
    serial: NonZeroU64,
}

fn time(input: &mut Unstructured<'_>) -> arbitrary::Result<SystemTime> {
    Ok(UNIX_EPOCH + Duration::from_micros(input.arbitrary::<u64>()? >> 8))
}

#[ringcall::message]
#[derive(Arbitrary)]
#[repr(u8)]
enum Side {
    Buy = b'B',
    Sell = b'S',
}

#[ringcall::message]
#[derive(Arbitrary)]
pub(super) enum Kind {
    Market,
    Limit(i64),
    Stop { at: i64, then: Option<Box<Kind>> },
}

#[ringcall::message]
#[derive(Arbitrary)]
struct Leg {
    symbol: String,
    ratio: NonZeroU32,
    kinds: Vec<Kind>,
    #[arbitrary(with = bytes)]
    proof: Bytes,
}

fn bytes(input: &mut Unstructured<'_>) -> arbitrary::Result<Bytes> {
    Ok(input.arbitrary::<Vec<u8>>()?.into())
}

#[ringcall::message]
#[derive(Arbitrary)]
pub(super) struct Tree {
    children: Vec<Tree>,
    name: String,
}

#[ringcall::message]
pub(super) struct List {
    value: u8,
    next: Option<Box<List>>,
}

pub(super) type Nested =
    (Vec<(String, Option<Box<u64>>)>, [i16; 3], (u128, i128), Option<Box<(char, bool, String)>>);

pub(super) type Kinds = Vec<Kind>;

pub(super) type Leaves = (Vec<char>, Option<IpAddr>, Option<Duration>, Vec<[bool; 2]>);

// ---- as they are read ----

impl Case for Order {
    fn read(order: &ArchivedOrder) -> Order {
        Order {
            id: order.id.to_native(),
            change: order.change.to_native(),
            symbol: order.symbol.as_str().to_owned(),
            side: match order.side {
                ArchivedSide::Buy => Side::Buy,
                ArchivedSide::Sell => Side::Sell,
            },
            kind: kind(&order.kind),
            legs: order.legs.iter().map(leg).collect(),
            note: order.note.as_ref().map(|note| note.as_str().to_owned()),
            parent: order.parent.as_ref().map(|parent| Box::new(Order::read(parent))),
            price: order.price.to_native(),
            range: (order.range.0.to_native(), order.range.1),
            tags: [0, 1, 2].map(|index| order.tags[index].to_native()),
            is_firm: order.is_firm,
            grade: order.grade.to_native(),
            from: order.from.as_socket_addr(),
            age: order.age.into(),
            at: order.at.to_system_time(),
            serial: order.serial.to_native(),
        }
    }

    fn nesting(&self) -> usize {
        let kinds = self.legs.iter().map(|leg| leg.kinds.nesting() + 1).max();
        let parent = self.parent.as_ref().map_or(0, |parent| parent.nesting());
        2 + parent + depth(&self.kind).max(kinds.unwrap_or(0))
    }
}

fn kind(archived: &ArchivedKind) -> Kind {
    match archived {
        ArchivedKind::Market => Kind::Market,
        ArchivedKind::Limit(price) => Kind::Limit(price.to_native()),
        ArchivedKind::Stop { at, then } => {
            Kind::Stop { at: at.to_native(), then: then.as_ref().map(|then| Box::new(kind(then))) }
        }
    }
}

fn depth(kind: &Kind) -> usize {
    match kind {
        Kind::Stop { then: Some(then), .. } => 1 + depth(then),
        _ => 1,
    }
}

fn leg(archived: &ArchivedLeg) -> Leg {
    Leg {
        symbol: archived.symbol.as_str().to_owned(),
        ratio: archived.ratio.to_native(),
        kinds: archived.kinds.iter().map(kind).collect(),
        proof: Bytes::copy_from_slice(&archived.proof),
    }
}

impl Case for Tree {
    fn read(tree: &ArchivedTree) -> Tree {
        Tree {
            children: tree.children.iter().map(Tree::read).collect(),
            name: tree.name.as_str().to_owned(),
        }
    }

    fn nesting(&self) -> usize {
        2 + self.children.iter().map(Tree::nesting).max().unwrap_or(0)
    }
}

impl Case for List {
    fn read(list: &ArchivedList) -> List {
        let next = list.next.as_ref().map(|next| Box::new(List::read(next)));
        List { value: list.value, next }
    }

    fn nesting(&self) -> usize {
        1 + self.next.as_ref().map_or(0, |next| next.nesting())
    }
}

impl<'a> Arbitrary<'a> for List {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<List> {
        let length = input.int_in_range(0..=100)?;
        let end = List { value: input.arbitrary()?, next: None };
        Ok((0..length).fold(end, |next, value| List { value, next: Some(Box::new(next)) }))
    }
}

impl Case for Nested {
    fn read(nested: &Archived<Nested>) -> Nested {
        let list = nested.0.iter().map(|item| {
            let number = item.1.as_ref().map(|number| Box::new(number.to_native()));
            (item.0.as_str().to_owned(), number)
        });
        let boxed = nested
            .3
            .as_ref()
            .map(|boxed| Box::new((boxed.0.to_native(), boxed.1, boxed.2.as_str().to_owned())));
        let array = [0, 1, 2].map(|index| nested.1[index].to_native());
        (list.collect(), array, (nested.2.0.to_native(), nested.2.1.to_native()), boxed)
    }

    fn nesting(&self) -> usize {
        3
    }
}

impl Case for Kinds {
    fn read(kinds: &Archived<Kinds>) -> Kinds {
        kinds.iter().map(kind).collect()
    }

    fn nesting(&self) -> usize {
        1 + self.iter().map(depth).max().unwrap_or(0)
    }
}

impl Case for Leaves {
    fn read(leaves: &Archived<Leaves>) -> Leaves {
        (
            leaves.0.iter().map(|letter| letter.to_native()).collect(),
            leaves.1.as_ref().map(|ip| ip.as_ipaddr()),
            leaves.2.as_ref().map(|time| (*time).into()),
            leaves.3.iter().map(|pair| [pair[0], pair[1]]).collect(),
        )
    }
}
