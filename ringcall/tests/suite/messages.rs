//! What `#[message]` makes of a type: its views read what was written, and nothing that somebody sends
//! in its place does harm.

#[path = "../../../codec-rkyv/tests/mutation/mod.rs"]
mod mutation;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mutation::{debug_len, mutations};
use proptest::prelude::*;
use ringcall::__private::codec::{Archivable, Form};
use ringcall::rkyv::with::Map;
use ringcall::{
    BlockingClient, Body, Bytes, Codec, Invalid, Message, Server, Shape, TransportChoice, UnixTime,
    View, WireType,
};
use ringcall_core::{EncodeError, REFERENCE_BYTES_MIN, SharedPool};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Order {
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
    at: SystemTime,
    serial: NonZeroU64,
}

#[ringcall::message]
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Side {
    Buy = b'B',
    Sell = b'S',
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Market,
    Limit(i64),
    Stop { at: i64, then: Option<Box<Kind>> },
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Leg {
    symbol: String,
    ratio: NonZeroU32,
    kinds: Vec<Kind>,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Page<T> {
    items: Vec<T>,
    next: Option<u64>,
}

#[ringcall::message]
struct Node {
    next: Option<Box<Node>>,
}

#[ringcall::message]
struct Tree {
    children: Vec<Tree>,
}

#[ringcall::message]
enum Expression {
    Number(f64),
    Call(Vec<Argument>),
}

#[ringcall::message]
struct Argument {
    value: Box<Expression>,
}

const LIMIT: usize = 1 << 24;

fn encode<M: Message>(value: &M) -> Vec<u8> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(LIMIT);
    value.encode(&mut out).expect("it fits");
    pool.finish(out).0.to_vec()
}

/// As a body lands: at a multiple of 16.
fn land(body: &[u8]) -> Body {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(LIMIT);
    out.put(body).expect("it fits");
    pool.finish(out).0.into()
}

/// In memory of its own and of its size, so that a sanitizer sees who reads behind it.
fn view<T: Archivable>(body: &[u8]) -> Result<View<T, Bytes>, Invalid> {
    View::new(Bytes::from(Box::from(body)))
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![Just(Kind::Market), any::<i64>().prop_map(Kind::Limit)];
    leaf.prop_recursive(3, 4, 1, |then| {
        let then = prop::option::of(then.prop_map(Box::new));
        (any::<i64>(), then).prop_map(|(at, then)| Kind::Stop { at, then })
    })
}

fn leg() -> impl Strategy<Value = Leg> {
    let kinds = prop::collection::vec(kind(), 0..4);
    (".{0,20}", any::<NonZeroU32>(), kinds).prop_map(|(symbol, ratio, kinds)| Leg {
        symbol,
        ratio,
        kinds,
    })
}

prop_compose! {
    fn childless()(
        (id, change, symbol) in (any::<u128>(), any::<i128>(), ".{0,20}"),
        (is_sale, kind) in (any::<bool>(), kind()),
        legs in prop::collection::vec(leg(), 0..4),
        note in prop::option::of(".{0,20}"),
        (price, range, tags) in any::<(f64, (i64, u8), [u16; 3])>(),
        (is_firm, grade, from) in any::<(bool, char, SocketAddr)>(),
        (age, at, serial) in (any::<Duration>(), any::<u32>(), any::<NonZeroU64>()),
    ) -> Order {
        let side = if is_sale { Side::Sell } else { Side::Buy };
        let at = UNIX_EPOCH + Duration::from_millis(at.into());
        Order {
            id, change, symbol, side, kind, legs, note, parent: None, price, range, tags, is_firm, grade,
            from, age, at, serial,
        }
    }
}

fn order() -> impl Strategy<Value = Order> {
    (childless(), prop::option::of(childless().prop_map(Box::new)))
        .prop_map(|(order, parent)| Order { parent, ..order })
}

/// Each field by itself, as a handler would read it.
fn read(order: &ArchivedOrder) -> Order {
    Order {
        id: order.id.to_native(),
        change: order.change.to_native(),
        symbol: order.symbol.as_str().to_owned(),
        side: match order.side {
            ArchivedSide::Buy => Side::Buy,
            ArchivedSide::Sell => Side::Sell,
        },
        kind: read_kind(&order.kind),
        legs: order.legs.iter().map(read_leg).collect(),
        note: order.note.as_ref().map(|note| note.as_str().to_owned()),
        parent: order.parent.as_ref().map(|parent| Box::new(read(parent))),
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

fn read_kind(kind: &ArchivedKind) -> Kind {
    match kind {
        ArchivedKind::Market => Kind::Market,
        ArchivedKind::Limit(price) => Kind::Limit(price.to_native()),
        ArchivedKind::Stop { at, then } => Kind::Stop {
            at: at.to_native(),
            then: then.as_ref().map(|then| Box::new(read_kind(then))),
        },
    }
}

fn read_leg(leg: &ArchivedLeg) -> Leg {
    Leg {
        symbol: leg.symbol.as_str().to_owned(),
        ratio: leg.ratio.to_native(),
        kinds: leg.kinds.iter().map(read_kind).collect(),
    }
}

/// Reads all there is in every way, if it is something. Nothing may come of it that is larger than what
/// arrived.
fn touch(body: &[u8]) {
    let Ok(view) = view::<Order>(body) else { return };
    // As texts, in which NaN is equal to itself.
    assert_eq!(format!("{:?}", read(&view)), format!("{:?}", view.to_owned()));
    assert!(debug_len(&view) <= 64 * body.len());
}

proptest! {
    #[test]
    fn views_read_what_was_written(value in order()) {
        let view = view::<Order>(&encode(&value)).unwrap();
        prop_assert_eq!(&read(&view), &value);
        prop_assert_eq!(&view.to_owned(), &value);
        let view = View::<Order>::new(land(&encode(&value))).unwrap();
        prop_assert_eq!(view.share().to_owned(), value);
    }

    #[test]
    fn views_of_generic_messages_read_what_was_written(
        items in prop::collection::vec(leg(), 0..4),
        next: Option<u64>,
    ) {
        let page = Page { items, next };
        let view = view::<Page<Leg>>(&encode(&page)).unwrap();
        let items: Vec<Leg> = view.items.iter().map(read_leg).collect();
        prop_assert_eq!((&items, view.next.as_ref().map(|next| next.to_native())), (&page.items, next));
        prop_assert_eq!(view.to_owned(), page);
    }

    #[test]
    fn a_body_that_was_cut_is_no_surprise(value in childless()) {
        let body = encode(&value);
        (0..body.len()).for_each(|len| touch(&body[..len]));
        (16..body.len()).step_by(16).for_each(|from| touch(&body[from..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_damaged_body_is_no_surprise(value in order(), mutations in mutations()) {
        let mut body = encode(&value);
        mutations.into_iter().for_each(|mutation| mutation.apply(&mut body));
        touch(&body);
    }

    #[test]
    fn random_bytes_are_no_surprise(body in prop::collection::vec(any::<u8>(), 0..400)) {
        touch(&body);
        let _ = view::<Kind>(&body).map(|view| (debug_len(&view), view.to_owned()));
        let _ = view::<Page<Kind>>(&body).map(|view| (debug_len(&view), view.to_owned()));
    }
}

#[test]
fn a_view_is_shown_as_its_message_would_be() {
    let kinds = vec![Kind::Market, Kind::Limit(7), Kind::Stop { at: 5, then: None }];
    let shown = format!("{:?}", view::<Vec<Kind>>(&encode(&kinds)).unwrap());
    assert_eq!(shown, "[Market, Limit(7), Stop { at: 5, then: None }]");
    let page = Page { items: vec![Side::Buy], next: None };
    let shown = format!("{:?}", view::<Page<Side>>(&encode(&page)).unwrap());
    assert_eq!(shown, "Page { items: [Buy], next: None }");
}

// ---- depth ----

/// The archive of a list: its nodes from the last to the first, each a tag, three bytes of nothing and an
/// offset from where that is.
fn list(pointers: usize) -> Vec<u8> {
    let mut body = vec![0; 8];
    for _ in 0..pointers {
        body.extend([1, 0, 0, 0]);
        body.extend((-12_i32).to_le_bytes());
    }
    body
}

/// The archive of a tree that does not branch: an offset and a length a level.
fn tree(levels: usize) -> Vec<u8> {
    let mut body = vec![0; 8];
    for _ in 0..levels {
        body.extend((-8_i32).to_le_bytes());
        body.extend(1_u32.to_le_bytes());
    }
    body
}

/// On a stack that would not hold much of what is described here.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(512 * 1024).spawn(test).unwrap().join().unwrap();
}

#[test]
fn crafted_archives_are_like_real_ones() {
    let mut node = Node { next: None };
    let mut real_tree = Tree { children: Vec::new() };
    for levels in 0..10 {
        assert_eq!(encode(&node), list(levels));
        assert_eq!(view::<Tree>(&tree(levels)).unwrap().to_owned().depth(), levels);
        assert_eq!(view::<Tree>(&encode(&real_tree)).unwrap().to_owned().depth(), levels);
        node = Node { next: Some(Box::new(node)) };
        real_tree = Tree { children: vec![real_tree] };
    }
}

impl Tree {
    fn depth(&self) -> usize {
        self.children.iter().map(|child| child.depth() + 1).max().unwrap_or(0)
    }
}

#[test]
fn a14_64_pointers_deep_is_read() {
    on_a_small_stack(|| {
        let mut node = view::<Node>(&list(64)).unwrap().to_owned();
        for _ in 0..64 {
            node = *node.next.unwrap();
        }
        assert!(node.next.is_none());
        // A leaf's own vector, though it is empty, has a pointer, too.
        assert_eq!(view::<Tree>(&tree(63)).unwrap().to_owned().depth(), 63);
        assert_eq!(view::<Tree>(&tree(64)).err(), Some(Invalid));
    });
}

#[test]
fn a14_deeper_is_refused() {
    on_a_small_stack(|| {
        for levels in [65, 66, 1000, 100_000] {
            assert_eq!(view::<Node>(&list(levels)).err(), Some(Invalid), "{levels}");
            assert_eq!(view::<Tree>(&tree(levels)).err(), Some(Invalid), "{levels}");
            assert_eq!(Tree::receive(land(&tree(levels)).share()).err(), Some(Invalid));
        }
    });
}

#[test]
fn a14_types_that_lead_to_each_other_have_one_depth_together() {
    let calls = |levels: usize| {
        let mut expression = Expression::Number(1.0);
        for _ in 0..levels {
            expression = Expression::Call(vec![Argument { value: Box::new(expression) }]);
        }
        encode(&expression)
    };
    on_a_small_stack(move || {
        // Each call is two pointers.
        assert!(view::<Expression>(&calls(32)).is_ok());
        assert_eq!(view::<Expression>(&calls(33)).err(), Some(Invalid));
    });
}

#[test]
fn a14_wide_is_not_deep() {
    let leaves =
        |count| Tree { children: (0..count).map(|_| Tree { children: Vec::new() }).collect() };
    let tree = Tree { children: (0..100).map(|_| leaves(1000)).collect() };
    let view = view::<Tree>(&encode(&tree)).unwrap();
    assert_eq!(view.children.iter().map(|child| child.children.len()).sum::<usize>(), 100_000);
}

// ---- crafted bodies ----

#[test]
fn a13_pointers_in_a_circle_are_refused() {
    let node = |offset: i32| [[1, 0, 0, 0], offset.to_le_bytes()].concat();
    let to_itself = node(-4);
    assert_eq!(view::<Node>(&to_itself).err(), Some(Invalid));
    let to_each_other = [node(4), node(-12)].concat();
    assert_eq!(view::<Node>(&to_each_other).err(), Some(Invalid));
    let its_own_child = [0_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
    assert_eq!(view::<Tree>(&its_own_child).err(), Some(Invalid));
}

#[test]
fn a13_one_child_of_two_parents_is_refused() {
    let tree = Tree { children: vec![leaf_parent(), leaf_parent()] };
    let body = encode(&tree);
    assert!(view::<Tree>(&body).is_ok());
    // The parents lie in front of the root: both are made to point at the first one's child.
    let parents = body.len() - 24;
    let mut forged = body.clone();
    let offset = i32::from_le_bytes(body[parents..parents + 4].try_into().unwrap());
    forged[parents + 8..parents + 12].copy_from_slice(&(offset - 8).to_le_bytes());
    assert_ne!(forged, body);
    assert_eq!(view::<Tree>(&forged).err(), Some(Invalid));
}

fn leaf_parent() -> Tree {
    Tree { children: vec![Tree { children: Vec::new() }] }
}

#[test]
fn a16_only_its_discriminants_are_tags_of_an_enum() {
    let valid = (0..=255).filter(|&tag| view::<Side>(&[tag]).is_ok());
    assert_eq!(valid.collect::<Vec<_>>(), b"BS");
    let mut body = encode(&Kind::Limit(0));
    let valid = (0..=255).filter(|&tag| {
        body[0] = tag;
        view::<Kind>(&body).is_ok()
    });
    // A limit of 0 is a stop at 0 without another one, too.
    assert_eq!(valid.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn times_that_no_clock_can_hold_are_refused() {
    #[ringcall::message]
    struct Seen(#[rkyv(with = UnixTime)] SystemTime);

    let body = encode(&Seen(UNIX_EPOCH + Duration::new(7, 9)));
    assert_eq!(view::<Seen>(&body).unwrap().to_owned().0, UNIX_EPOCH + Duration::new(7, 9));
    for secs in [i64::MAX as u64 + 1, u64::MAX] {
        let mut forged = body.clone();
        forged[..8].copy_from_slice(&secs.to_le_bytes());
        assert_eq!(view::<Seen>(&forged).err(), Some(Invalid));
    }
    let mut out = SharedPool::new(4096).writer(LIMIT);
    let before = Seen(UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(before.encode(&mut out), Err(EncodeError::Failed));
}

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct Times {
    #[rkyv(with = Map<UnixTime>)]
    last: Option<SystemTime>,
    #[rkyv(with = Map<UnixTime>)]
    all: Vec<SystemTime>,
    #[rkyv(with = Map<Map<UnixTime>>)]
    spans: Vec<[SystemTime; 2]>,
}

fn times() -> Times {
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    Times { last: Some(at(1001)), all: vec![at(1002), at(1003)], spans: vec![[at(1004), at(1005)]] }
}

#[test]
fn wrapped_fields_in_containers_look_like_ordinary_ones() {
    let mut shape = Shape::default();
    <Times as WireType>::describe(&mut shape);
    let expected = "struct Times:40:8{last=option:24:8(unix-time:16:8 ) all=vec:8:4(unix-time:16:8 ) \
                    spans=vec:8:4(array-2:32:8(unix-time:16:8 ) ) }";
    assert_eq!(shape.text(), expected);
}

#[test]
fn wrapped_fields_in_containers_are_read_and_checked() {
    let body = encode(&times());
    assert_eq!(view::<Times>(&body).unwrap().to_owned(), times());
    for secs in 1001..=1005_u64 {
        let at = body.windows(8).position(|word| word == secs.to_le_bytes()).expect("it is there");
        let mut forged = body.clone();
        forged[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(view::<Times>(&forged).err(), Some(Invalid));
    }
}

#[test]
fn wrapped_fields_in_containers_have_names() {
    let json = cfg!(feature = "json").then_some(Codec::JSON);
    for form in [Codec::MESSAGEPACK].into_iter().chain(json).map(Form::of_codec) {
        let pool = SharedPool::new(4096);
        let mut out = pool.writer(LIMIT);
        times().encode_as(form, &mut out).unwrap();
        assert_eq!(Times::decode_as(form, &pool.finish(out).0), Ok(times()));
    }
}

// ---- raw bodies ----

#[ringcall::service]
trait Raw {
    async fn bytes(&self, body: Bytes) -> Bytes;
    async fn body(&self, body: Body) -> Bytes;
}

struct Echo;

impl Raw for Echo {
    async fn bytes(&self, body: Bytes) -> Bytes {
        body
    }

    async fn body(&self, body: Body) -> Bytes {
        body.share().into()
    }
}

#[test]
fn raw_bodies_arrive_as_they_were_sent() {
    // io_uring where it works, and epoll.
    for engine in [TransportChoice::Auto, TransportChoice::Epoll] {
        let server = Server::bind("127.0.0.1:0").transport(engine).service(Echo.into_raw());
        let server = server.start().unwrap();
        let client = BlockingClient::connect(server.address()).unwrap();
        let raw = RawClient::new(&client);
        for len in [0, 1, REFERENCE_BYTES_MIN - 1, REFERENCE_BYTES_MIN, 1 << 20] {
            let body: Bytes = (0..len).map(|index| index as u8).collect();
            assert_eq!(&raw.bytes(&body).wait().unwrap()[..], &body[..]);
            assert_eq!(&raw.body(&body).wait().unwrap()[..], &body[..]);
        }
    }
}
