//! Headers that say which types a body is made of, at a server and at a caller.
//!
//! Nothing of a shape travels but its signature, so what can go wrong is that a body is read as something
//! that its sender did not mean. Both rigs are real: a shard, and a socket with somebody else at its end.

mod caller;
mod server;

use std::cell::Cell;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use ringcall::{Body, Service, ServiceTable, ShardConfig, View};
use ringcall_buf::SharedPool;
use ringcall_codec_rkyv::{Form, Message, Typed};
use ringcall_core::{Codec, Payload as _};

/// Reads the bytes as calls for a server, or as answers for a caller.
///
/// # Panics
/// When a handler runs that should not, or does not that should; when a refusal has another status than
/// `docs/PROTOCOL.md` says; when a caller gets what was not meant for it.
pub fn shapes(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(is_caller) = input.arbitrary::<bool>() else { return };
    for _ in 0..CALLS_MAX {
        let sent = match is_caller {
            _ if input.is_empty() => break,
            true => with(&CALLER, |rig: &mut caller::Rig| rig.answer(&mut input)),
            false => with(&SERVER, |rig: &mut server::Rig| rig.call(&mut input)),
        };
        if sent.is_err() {
            break;
        }
    }
}

const CALLS_MAX: usize = 16;

thread_local! {
    static SERVER: Cell<Option<server::Rig>> = const { Cell::new(None) };
    static CALLER: Cell<Option<caller::Rig>> = const { Cell::new(None) };
}

/// Sockets are slow to make, so a rig is used again, unless its user has panicked.
fn with<R: Default, T>(
    rig: &'static std::thread::LocalKey<Cell<Option<R>>>,
    f: impl FnOnce(&mut R) -> T,
) -> T {
    let mut taken = rig.take().unwrap_or_default();
    let result = f(&mut taken);
    rig.set(Some(taken));
    result
}

/// Accepts no compression: what is built in depends on who else is built, and `inflate` is about that.
fn plain_config() -> ShardConfig {
    let mut config = ShardConfig::default();
    config.compression.accept = false;
    config
}

#[ringcall::message]
#[derive(Arbitrary, Clone, Debug, PartialEq)]
struct Item {
    name: String,
    sizes: Vec<u32>,
    is_new: bool,
}

/// Looks much like an [`Item`] in an archive, and is none.
#[ringcall::message]
#[derive(Arbitrary, Clone, Debug, PartialEq)]
struct Wrong {
    name: String,
    sizes: Vec<u32>,
    is_new: bool,
}

#[ringcall::service(name = "fuzz.Target")]
trait Target {
    async fn view(&self, item: View<Item>) -> Result<Item, Wrong>;
    async fn owned(&self, wrong: Wrong) -> Item;
    async fn raw(&self, body: Body) -> Bytes;
    async fn nothing(&self);
    #[method(one_way)]
    async fn toss(&self, number: u64);
}

/// Counts what runs.
#[derive(Clone, Default)]
struct Counting(std::rc::Rc<Cell<u32>>);

impl Counting {
    fn count(&self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Target for Counting {
    async fn view(&self, item: View<Item>) -> Result<Item, Wrong> {
        self.count();
        let Item { name, sizes, is_new } = item.to_owned();
        if is_new { Err(Wrong { name, sizes, is_new }) } else { Ok(Item { name, sizes, is_new }) }
    }

    async fn owned(&self, wrong: Wrong) -> Item {
        self.count();
        Item { name: wrong.name, sizes: wrong.sizes, is_new: wrong.is_new }
    }

    async fn raw(&self, body: Body) -> Bytes {
        self.count();
        body.share().into()
    }

    async fn nothing(&self) {
        self.count();
    }

    async fn toss(&self, _: u64) {
        self.count();
    }
}

fn table() -> &'static ServiceTable {
    Counting::default().into_target().table()
}

fn encode<M: Message>(value: &M, codec: Codec) -> Vec<u8> {
    let pool = SharedPool::new(4096);
    let mut out = pool.writer(1 << 20);
    Typed(value).encode(codec, 0, &mut out).expect("it fits");
    pool.finish(out).0.to_vec()
}

/// The value again, if that is what the bytes say in this codec.
fn decode<M: Message>(body: &[u8], codec: Codec) -> Option<M> {
    if codec.has_names() {
        return M::decode_as(Form::of_codec(codec), body).ok();
    }
    let body = ringcall_buf::Pool::new(0).copy(body);
    M::receive(body).ok().map(M::into_owned)
}

/// Changes a number now and then: to one that others use, to one near it, or to any.
fn spoil(input: &mut Unstructured<'_>, number: u64, others: &[u64]) -> arbitrary::Result<u64> {
    Ok(match input.arbitrary::<u8>()? {
        0..=190 => number,
        191..=220 => *input.choose(others)?,
        221..=240 => number ^ 1 << (input.arbitrary::<u8>()? % 64),
        _ => input.arbitrary()?,
    })
}

/// A body that is right, damaged, another's, or anything.
fn body<M: Message + for<'a> Arbitrary<'a>>(
    input: &mut Unstructured<'_>,
    codec: Codec,
) -> arbitrary::Result<Vec<u8>> {
    let codec = if codec.has_names() { codec } else { Codec::RKYV };
    let how = input.arbitrary::<u8>()?;
    if how > 230 {
        let len = input.int_in_range(0..=200)?;
        return Ok(input.bytes(len)?.to_vec());
    }
    let mut body = encode(&M::arbitrary(input)?, codec);
    if how > 160 && !body.is_empty() {
        let at = usize::from(input.arbitrary::<u16>()?) % body.len();
        if how > 220 {
            body.truncate(at);
        } else {
            body[at] = input.arbitrary()?;
        }
    }
    body.truncate(1000);
    Ok(body)
}

/// How often a turn is tried before nothing is believed to come any more.
const TURNS_MAX: usize = 1_000_000;
