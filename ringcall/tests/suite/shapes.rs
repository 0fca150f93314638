//! Signatures: what they see of a type, and what they do not. `docs/SHAPES.md` is the specification; its
//! example and its table are held to the code here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num;
use std::time::{Duration, SystemTime};

use ringcall::__private::codec::ItemShape;
use ringcall::{
    Bytes, Message, Service, Shape, SharedView, Signatures, UnixTime, View, WireType, WireWith,
};

const SPECIFICATION: &str = include_str!("../../../docs/SHAPES.md");

fn text<M: Message>() -> String {
    Signatures::of::<M, (), Infallible>().in_text
}

fn signature<M: Message>() -> u64 {
    Signatures::of::<M, (), Infallible>().in_signature
}

/// Modules with an `Order` each, and the signatures of them by the names of the modules.
macro_rules! orders {
    ($($name:ident { $($items:item)* })*) => {
        $(mod $name {
            $($items)*
        })*

        fn orders() -> BTreeMap<&'static str, u64> {
            BTreeMap::from([$((stringify!($name), signature::<$name::Order>())),*])
        }
    };
}

orders! {
    original {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    declared_again {
        /// With docs, other derives, other visibilities and other spellings.
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Order { pub r#size: u32, pub(crate) price: Price, side: Side }
        #[ringcall::message]
        #[derive(Clone, Debug, PartialEq)]
        #[repr(u8)]
        enum Side { Buy = 0, Sell { short: bool } = 1 }
        type Price = u32;
    }
    added_field {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side, more: () }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    removed_field {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    renamed_field {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, cost: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    swapped_fields_of_one_type {
        #[ringcall::message]
        pub(crate) struct Order { price: u32, size: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    moved_field {
        #[ringcall::message]
        pub(crate) struct Order { side: Side, size: u32, price: u32 }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    changed_field_type {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: i32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    fields_without_names {
        #[ringcall::message]
        pub(crate) struct Order(u32, u32, Side);
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
    renamed_inner_type {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Way }
        #[ringcall::message]
        enum Way { Buy, Sell { short: bool } }
    }
    renamed_variant {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        enum Side { Purchase, Sell { short: bool } }
    }
    added_variant {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool }, Swap }
    }
    moved_variant {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        enum Side { Sell { short: bool }, Buy }
    }
    changed_discriminant {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        #[repr(u8)]
        enum Side { Buy = 1, Sell { short: bool } }
    }
    field_of_variant_without_name {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: u32, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell(bool) }
    }
    optional_field {
        #[ringcall::message]
        pub(crate) struct Order { size: u32, price: Option<u32>, side: Side }
        #[ringcall::message]
        enum Side { Buy, Sell { short: bool } }
    }
}

#[test]
fn a_type_declared_again_is_the_same() {
    let orders = orders();
    assert_eq!(orders["original"], orders["declared_again"]);
    assert_eq!(text::<original::Order>(), text::<declared_again::Order>());
}

#[test]
fn every_change_of_a_layout_is_seen() {
    let mut seen = BTreeMap::new();
    for (name, signature) in orders().into_iter().filter(|(name, _)| *name != "declared_again") {
        assert_eq!(seen.insert(signature, name), None, "{name}");
    }
}

#[test]
fn a_renamed_struct_is_another_one() {
    mod other {
        #[ringcall::message]
        pub(crate) struct Ordering {
            size: u32,
        }
        #[ringcall::message]
        pub(crate) struct Order {
            size: u32,
        }
    }
    assert_ne!(signature::<other::Order>(), signature::<other::Ordering>());
}

/// The canonical text as it is. A failure here is a change of the protocol: builds from before and after
/// it refuse each other's calls.
#[test]
fn the_text_and_its_signature_are_pinned() {
    #[ringcall::message]
    struct Everything {
        id: u128,
        side: Side,
        name: String,
        legs: Vec<Leg>,
        range: (i64, u8),
        digits: [u8; 3],
        first: Box<Leg>,
        next: Option<Box<Everything>>,
    }

    #[ringcall::message]
    #[repr(u8)]
    enum Side {
        Buy = b'B',
        Sell { short: bool },
        Other(f64, String) = 200,
    }

    #[ringcall::message]
    struct Leg(u16);

    let text = "rkyv-0.8/2;struct Everything:96:16{id=u128:16:16 side=enum Side:24:8{Buy#66()\
                Sell#67(short=bool:1:1 )Other#200(0=f64:8:8 1=string:8:4 )} name=string:8:4 \
                legs=vec:8:4(struct Leg:2:2{0=u16:2:2 } ) range=tuple:16:8(i64:8:8 u8:1:1 ) \
                digits=array-3:3:1(u8:1:1 ) first=box:4:4(^2 ) next=option:8:4(box:4:4(^0 ) ) }";
    assert_eq!(self::text::<Everything>(), text);
    assert_eq!(signature::<Everything>(), 0x6e0cea278cb62e6a);
}

// ---- recursion and type parameters ----

#[ringcall::message]
struct Node {
    value: u8,
    next: Option<Box<Node>>,
}

#[ringcall::message]
struct Directory {
    entries: Vec<Entry>,
}

#[ringcall::message]
enum Entry {
    File(u64),
    Directory(Directory),
}

#[ringcall::message]
struct Page<T> {
    items: Vec<T>,
    next: Option<Box<Page<T>>>,
}

#[test]
fn a_type_is_described_once_and_then_referred_to() {
    let node = "struct Node:12:4{value=u8:1:1 next=option:8:4(box:4:4(^0 ) ) }";
    assert_eq!(text::<Node>(), format!("rkyv-0.8/2;{node}"));
    assert_eq!(text::<(Node, Node)>(), format!("rkyv-0.8/2;tuple:24:4({node} ^0 )"));
}

#[test]
fn types_that_lead_to_each_other_depend_on_where_one_begins() {
    let directory = "rkyv-0.8/2;struct Directory:8:4{entries=vec:8:4(enum Entry:16:8{File#0(0=u64:8:8 )\
                     Directory#1(0=^0 )} ) }";
    assert_eq!(text::<Directory>(), directory);
    assert!(
        text::<Entry>().contains("Directory#1(0=struct Directory:8:4{entries=vec:8:4(^0 ) } )")
    );
    assert_ne!(signature::<Directory>(), signature::<Entry>());
}

#[test]
fn a_generic_message_is_what_it_is_filled_with() {
    assert_eq!(signature::<Page<Node>>(), signature::<Page<Node>>());
    assert_ne!(signature::<Page<Node>>(), signature::<Page<Entry>>());
    // Each is a type of its own, though they have one name.
    let nested = text::<Page<Page<u8>>>();
    assert_eq!(nested.matches("struct Page:").count(), 2);
    assert!(nested.contains("box:4:4(^0 )") && nested.contains("box:4:4(^1 )"), "{nested}");
}

// ---- methods ----

#[test]
fn raw_bodies_have_no_signature() {
    let raw = Signatures::of::<Bytes, Bytes, Infallible>();
    assert_eq!((raw.in_signature, raw.out_signature), (0, 0));
    let with_error = Signatures::of::<Bytes, Bytes, u8>();
    assert_eq!(with_error.in_signature, 0);
    assert_ne!(with_error.out_signature, 0);
    let nothing = Signatures::of::<(), (), Infallible>();
    assert_ne!(nothing.in_signature, 0);
    assert_ne!(nothing.out_signature, 0);
}

#[test]
fn a_reply_is_not_an_error() {
    let one = Signatures::of::<(), u8, u16>();
    let other = Signatures::of::<(), u16, u8>();
    let infallible = Signatures::of::<(), u8, Infallible>();
    assert_ne!(one.out_signature, other.out_signature);
    assert_ne!(one.out_signature, infallible.out_signature);
}

#[test]
fn how_a_handler_takes_its_argument_is_nobody_elses_matter() {
    #[ringcall::service]
    trait Nodes {
        async fn by_value(&self, node: Node) -> u8;
        async fn by_view(&self, node: View<Node>) -> Result<u8, Infallible>;
        async fn by_shared_view(&self, node: SharedView<Node>) -> u8;
    }

    struct Any;

    impl Nodes for Any {
        async fn by_value(&self, node: Node) -> u8 {
            node.value
        }

        async fn by_view(&self, node: View<Node>) -> Result<u8, Infallible> {
            Ok(node.value)
        }

        async fn by_shared_view(&self, node: SharedView<Node>) -> u8 {
            node.value
        }
    }

    let methods = Any.into_nodes().table().methods();
    assert!(methods.iter().all(|method| method.signatures() == methods[0].signatures()));
}

#[test]
fn items_are_in_the_signature_unless_all_is_raw() {
    let (raw, typed) = (Some(ItemShape::of::<Bytes>()), Some(ItemShape::of::<u8>()));
    let both = Signatures::with_items::<Bytes, (), Infallible>(raw, raw);
    assert_eq!((both.in_signature, both.out_signature), (0, 0));
    let upload = Signatures::with_items::<Bytes, Bytes, Infallible>(raw, None);
    assert_eq!((upload.in_signature, upload.out_signature), (0, 0));
    let may_fail = Signatures::with_items::<Bytes, (), Bytes>(None, raw);
    assert_eq!(may_fail.in_signature, 0);
    assert_eq!(may_fail.out_text, "rkyv-0.8/2;unit:0:1;raw;items raw");
    assert_ne!(may_fail.out_signature, 0);
    let mixed = Signatures::with_items::<Bytes, (), Infallible>(typed, typed);
    assert_eq!(mixed.in_text, "rkyv-0.8/2;raw;items u8:1:1");
    assert_eq!(mixed.out_text, "rkyv-0.8/2;unit:0:1;never;items u8:1:1");
    assert_ne!(mixed.in_signature, 0);
    assert_ne!(mixed.out_signature, 0);
    let no_argument = Signatures::with_items::<(), (), Infallible>(raw, raw);
    assert_eq!(no_argument.in_text, "rkyv-0.8/2;unit:0:1;items raw");
    assert_ne!(no_argument.in_signature, 0);
    assert_eq!(no_argument.out_signature, 0);
}

// ---- the page ----

/// The example of the page, as it is written there.
mod example {
    #[ringcall::message]
    pub(crate) struct Order {
        symbol: String,
        side: Side,
        size: Option<u64>,
        legs: Vec<Order>,
    }

    #[ringcall::message]
    pub(crate) enum Side {
        Buy = 1,
        Sell,
    }

    #[ringcall::message]
    pub(crate) struct Refused {
        code: u16,
        by: Side,
    }
}

/// What a block on the page says, in one line.
fn block(name: &str) -> String {
    let (_, rest) = SPECIFICATION.split_once(&format!("```text {name}\n")).expect("a block");
    let (block, _) = rest.split_once("```").expect("a block ends");
    block.lines().collect()
}

#[test]
fn the_example_is_what_the_page_says() {
    use example::{Order, Refused, Side};
    let signatures = Signatures::of::<Order, Side, Refused>();
    assert_eq!(block("in-text"), signatures.in_text);
    assert_eq!(block("in-signature"), format!("{:016x}", signatures.in_signature));
    assert_eq!(block("out-text"), signatures.out_text);
    assert_eq!(block("out-signature"), format!("{:016x}", signatures.out_signature));
}

#[test]
fn the_page_lists_every_leaf() {
    fn leaf<T: WireType>() -> String {
        let mut shape = Shape::default();
        T::describe(&mut shape);
        shape.text().to_owned()
    }

    let mut leaves = vec![
        leaf::<()>(),
        leaf::<bool>(),
        leaf::<char>(),
        leaf::<u8>(),
        leaf::<u16>(),
        leaf::<u32>(),
        leaf::<u64>(),
        leaf::<u128>(),
        leaf::<i8>(),
        leaf::<i16>(),
        leaf::<i32>(),
        leaf::<i64>(),
        leaf::<i128>(),
        leaf::<f32>(),
        leaf::<f64>(),
        leaf::<num::NonZeroU8>(),
        leaf::<num::NonZeroU16>(),
        leaf::<num::NonZeroU32>(),
        leaf::<num::NonZeroU64>(),
        leaf::<num::NonZeroU128>(),
        leaf::<num::NonZeroI8>(),
        leaf::<num::NonZeroI16>(),
        leaf::<num::NonZeroI32>(),
        leaf::<num::NonZeroI64>(),
        leaf::<num::NonZeroI128>(),
        leaf::<String>(),
        leaf::<Duration>(),
        leaf::<Ipv4Addr>(),
        leaf::<Ipv6Addr>(),
        leaf::<IpAddr>(),
        leaf::<SocketAddrV4>(),
        leaf::<SocketAddrV6>(),
        leaf::<SocketAddr>(),
    ];
    let mut shape = Shape::default();
    <UnixTime as WireWith<SystemTime>>::describe(&mut shape);
    leaves.push(shape.text().to_owned());
    #[cfg(feature = "bytes")]
    leaves.push(leaf::<Bytes>());

    let rows = SPECIFICATION.lines().filter(|line| line.starts_with("| `") && line.contains(':'));
    let mut listed: Vec<&str> = rows
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|text| text.contains(':'))
        .collect();
    if cfg!(not(feature = "bytes")) {
        listed.retain(|text| !text.starts_with("bytes:"));
    }
    // Not a dependency of these tests.
    listed.retain(|text| !text.starts_with("uuid:"));
    leaves.sort_unstable();
    listed.sort_unstable();
    assert_eq!(leaves, listed);
}

#[ringcall::service]
trait Streams {
    async fn unary(&self, argument: u32) -> Result<(), bool>;
    async fn both(
        &self,
        argument: u32,
        items: ringcall::Items<View<String>>,
    ) -> Result<impl ringcall::Stream<Item = Bytes>, bool>;
    async fn raw(&self, argument: Bytes, items: ringcall::Items<Bytes>) -> Bytes;
}

struct Nobody;

impl Streams for Nobody {
    async fn unary(&self, _: u32) -> Result<(), bool> {
        Ok(())
    }

    async fn both(
        &self,
        _: u32,
        _: ringcall::Items<View<String>>,
    ) -> Result<impl ringcall::Stream<Item = Bytes>, bool> {
        Err::<ringcall::Subscription<Bytes>, bool>(false)
    }

    async fn raw(&self, argument: Bytes, _: ringcall::Items<Bytes>) -> Bytes {
        argument
    }
}

#[test]
fn streams_stand_behind_the_types_of_their_direction() {
    let service = Nobody.into_streams();
    let [unary, both, raw] = service.table().methods() else { panic!("three methods") };
    assert_eq!(unary.signatures(), &Signatures::of::<u32, (), bool>());
    let signatures = both.signatures();
    assert_eq!(signatures.in_text, "rkyv-0.8/2;u32:4:4;items string:8:4");
    assert_eq!(signatures.out_text, "rkyv-0.8/2;unit:0:1;bool:1:1;items raw");
    assert_eq!(both.items_in().map(|items| items.type_name), Some("alloc::string::String"));
    assert!(both.items_out().is_some() && raw.items_out().is_none());
    assert_eq!(raw.signatures().in_text, "rkyv-0.8/2;raw;items raw");
    assert_eq!(raw.signatures().in_signature, 0);
    assert_eq!(raw.signatures().out_signature, 0);
}
