//! What is known about a service's methods at run time.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringcall_codec_rkyv::{Invalid, ItemShape, Message, Signatures};
use ringcall_compression::Compression;
use ringcall_core::frame::request_flags;
use ringcall_core::{Chunk, Codec, EncodeError, Outgoing, Writer, method_id};

use crate::client::DEFAULT_DEADLINE;
use crate::packing::wish;

/// What is known about a service: made by `#[service]`, used by servers, clients and tools.
#[derive(Debug)]
pub struct ServiceTable {
    name: &'static str,
    docs: &'static str,
    methods: Vec<MethodTable>,
}

impl ServiceTable {
    #[doc(hidden)]
    #[must_use]
    pub fn new(
        name: &'static str,
        docs: &'static str,
        mut methods: Vec<MethodTable>,
    ) -> ServiceTable {
        for method in &mut methods {
            method.full_name = format!("{name}/{}", method.name);
            method.id = method_id(&method.full_name);
            crate::observe::remember(method.id, &method.full_name);
        }
        KnownMethods::add(&methods);
        ServiceTable { name, docs, methods }
    }

    /// The name on the wire: `package.Service`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The doc comment of the trait.
    #[must_use]
    pub fn docs(&self) -> &'static str {
        self.docs
    }

    /// The methods, in the order of the trait.
    #[must_use]
    pub fn methods(&self) -> &[MethodTable] {
        &self.methods
    }
}

/// The methods that this program may call: all whose tables were made. What another program says about its
/// own is compared with them once, instead of with each call.
pub(crate) struct KnownMethods;

static KNOWN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());
/// How many there are.
static KNOWN_COUNT: AtomicUsize = AtomicUsize::new(0);

impl KnownMethods {
    fn add(methods: &[MethodTable]) {
        let mut known = KNOWN.lock();
        for method in methods.iter().filter(|method| {
            method.argument.codec == Codec::RKYV || method.signatures.in_signature != 0
        }) {
            let row = (method.id, method.signatures.in_signature);
            if !known.contains(&row) {
                known.push(row);
            }
        }
        KNOWN_COUNT.store(known.len(), Ordering::Release);
    }

    #[inline]
    pub(crate) fn count() -> usize {
        KNOWN_COUNT.load(Ordering::Acquire)
    }

    /// Method and in-signature of each.
    pub(crate) fn all() -> Vec<(u64, u64)> {
        KNOWN.lock().clone()
    }
}

/// What is known about a method.
#[derive(Debug)]
pub struct MethodTable {
    name: &'static str,
    full_name: String,
    id: u64,
    docs: &'static str,
    signatures: Signatures,
    argument: ErasedMessage,
    reply: ErasedMessage,
    error: ErasedMessage,
    items_in: Option<ErasedMessage>,
    items_out: Option<ErasedMessage>,
    is_idempotent: bool,
    is_one_way: bool,
    deadline: Option<Duration>,
    compression: Option<Compression>,
    /// What callers say who say nothing else, once somebody calls it.
    outgoing: OnceLock<Outgoing>,
}

impl MethodTable {
    #[doc(hidden)]
    #[must_use]
    pub fn new<A: Message, R: Message, E: Message>(
        name: &'static str,
        docs: &'static str,
    ) -> MethodTable {
        MethodTable::with_items::<A, R, E>(name, docs, None, None)
    }

    #[doc(hidden)]
    #[must_use]
    pub fn with_items<A: Message, R: Message, E: Message>(
        name: &'static str,
        docs: &'static str,
        items_in: Option<ItemType>,
        items_out: Option<ItemType>,
    ) -> MethodTable {
        let shape = |items: &Option<ItemType>| items.as_ref().map(|items| items.shape);
        let (shape_in, shape_out) = (shape(&items_in), shape(&items_out));
        MethodTable {
            name,
            full_name: String::new(),
            id: 0,
            docs,
            signatures: Signatures::with_items::<A, R, E>(shape_in, shape_out),
            argument: ErasedMessage::of::<A>(),
            reply: ErasedMessage::of::<R>(),
            error: ErasedMessage::of::<E>(),
            items_in: items_in.map(|items| items.message),
            items_out: items_out.map(|items| items.message),
            is_idempotent: false,
            is_one_way: false,
            deadline: None,
            compression: None,
            outgoing: OnceLock::new(),
        }
    }

    #[doc(hidden)]
    #[must_use]
    pub fn idempotent(mut self) -> MethodTable {
        self.is_idempotent = true;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub fn one_way(mut self) -> MethodTable {
        self.is_one_way = true;
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> MethodTable {
        self.deadline = Some(deadline);
        self
    }

    #[doc(hidden)]
    #[must_use]
    pub fn compress(mut self, compression: Compression) -> MethodTable {
        self.compression = Some(compression);
        self
    }

    /// The name within its service.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `package.Service/method`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// The number on the wire, see [`method_id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The doc comment of the method.
    #[must_use]
    pub fn docs(&self) -> &'static str {
        self.docs
    }

    /// The signatures of its types, with the texts that they are digests of.
    #[must_use]
    pub fn signatures(&self) -> &Signatures {
        &self.signatures
    }

    /// Its argument.
    #[must_use]
    pub fn argument(&self) -> &ErasedMessage {
        &self.argument
    }

    /// Its reply.
    #[must_use]
    pub fn reply(&self) -> &ErasedMessage {
        &self.reply
    }

    /// Its error.
    #[must_use]
    pub fn error(&self) -> &ErasedMessage {
        &self.error
    }

    /// What the caller sends as a stream beside the argument, if it does.
    #[must_use]
    pub fn items_in(&self) -> Option<&ErasedMessage> {
        self.items_in.as_ref()
    }

    /// What the reply is a stream of, if it is one. Then [`reply`](Self::reply) is `()`.
    #[must_use]
    pub fn items_out(&self) -> Option<&ErasedMessage> {
        self.items_out.as_ref()
    }

    /// The flags of its requests that say which streams it has.
    pub(crate) fn stream_flags(&self) -> u8 {
        let flag = |items: &Option<ErasedMessage>, flag| if items.is_some() { flag } else { 0 };
        flag(&self.items_in, request_flags::ITEMS_IN)
            | flag(&self.items_out, request_flags::ITEMS_OUT)
    }

    /// What a call of it says unless its caller wants something else.
    #[inline]
    pub(crate) fn outgoing(&'static self) -> &'static Outgoing {
        self.outgoing.get_or_init(|| Outgoing {
            name: &self.full_name,
            method: self.id,
            in_signature: self.signatures.in_signature,
            out_signature: self.signatures.out_signature,
            codec: self.argument.codec,
            compression: wish(self.compression),
            timeout: self.deadline.unwrap_or(DEFAULT_DEADLINE),
            priority: 0,
            attempt: 0,
            wait_for_ready: false,
            flags: if self.is_idempotent { request_flags::IDEMPOTENT } else { 0 },
        })
    }

    pub(crate) fn argument_codec(&self) -> Codec {
        self.argument.codec
    }

    /// Whether running it twice does no harm.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// Whether it has no reply.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.is_one_way
    }

    /// How its arguments are compressed unless callers say otherwise.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// How long callers wait unless they say otherwise.
    #[must_use]
    pub fn default_deadline(&self) -> Option<Duration> {
        self.deadline
    }
}

/// What a stream of a method consists of. For the code that `#[service]` makes.
pub struct ItemType {
    message: ErasedMessage,
    shape: ItemShape,
}

impl ItemType {
    #[doc(hidden)]
    #[must_use]
    pub fn of<M: Message>() -> ItemType {
        ItemType { message: ErasedMessage::of::<M>(), shape: ItemShape::of::<M>() }
    }
}

impl fmt::Debug for ItemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemType").field(&self.message).finish()
    }
}

/// A message type without its type, for tools that handle messages that they do not know.
#[derive(Clone, Copy)]
pub struct ErasedMessage {
    /// Its Rust type, for people.
    pub type_name: &'static str,
    /// How it is encoded.
    pub codec: Codec,
    /// Checks a body and decodes it.
    pub decode: fn(Chunk) -> Result<Box<dyn Any>, Invalid>,
    /// Encodes a value of its type; fails for any other.
    pub encode: fn(&dyn Any, &mut Writer) -> Result<(), EncodeError>,
}

impl ErasedMessage {
    fn of<M: Message>() -> ErasedMessage {
        ErasedMessage {
            type_name: type_name::<M>(),
            codec: M::CODEC,
            decode: |body| Ok(Box::new(M::into_owned(M::receive(body)?))),
            encode: |value, out| match value.downcast_ref::<M>() {
                Some(value) => value.encode(out),
                None => Err(EncodeError::Failed),
            },
        }
    }
}

impl fmt::Debug for ErasedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ErasedMessage").field(&self.type_name).finish()
    }
}
