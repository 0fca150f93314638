//! The contracts below a connection: who moves bytes, who waits, who encrypts.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use core::time::Duration;

use ringcall_buf::{Chunk, ChunkMut, ObjectError, Pool, Segment};

pub use crate::connection::{Write, Written};

use crate::{CloseReason, SendQueue, TransportError};

/// Moves bytes. Completion-shaped: operations are submitted, the transport owns their memory until
/// it says that they are done, and [`reap`](Transport::reap) tells what has happened since.
///
/// No method blocks. Handles are the transport's; it uses the index of one again only after
/// [`TransportEvent::Released`].
pub trait Transport {
    /// An accepted connection that nobody has adopted yet. It may be adopted by another transport of
    /// the same kind, on another thread.
    type Socket;

    /// Listens at an address; accepted connections come as [`TransportEvent::Accepted`].
    ///
    /// # Errors
    /// When the address is not free or not usable.
    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError>;

    /// Where a listener listens; tells the port when port 0 was asked for.
    fn local_address(&self, listener: Listener) -> Option<Address>;

    /// Stops listening. What waits to be accepted is accepted first, since closing would reset it, and told
    /// by the next reaps; when [`local_address`](Self::local_address) knows nothing of the listener any
    /// more, that was all.
    fn unlisten(&mut self, listener: Listener);

    /// Begins to connect; ends with [`TransportEvent::Connected`] or [`TransportEvent::Closed`].
    ///
    /// # Errors
    /// When it cannot even be tried.
    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError>;

    /// Takes over an accepted connection and begins to receive.
    ///
    /// # Errors
    /// When it cannot be registered; the connection is closed then.
    fn adopt(&mut self, socket: Self::Socket) -> Result<Handle, TransportError>;

    /// Sends the batch, which is empty afterwards. `true`: all of it has been sent already.
    /// `false`: the transport keeps the segments until it says [`TransportEvent::Sent`] with `done`;
    /// there is at most one such batch a connection. For a range of an object that it cannot read it sends
    /// zeros, and says [`TransportEvent::Unreadable`] before that, so such a batch is never `true`.
    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool;

    /// Whether batches may contain [`Segment::External`]; otherwise their bytes are read into memory.
    fn can_file(&self) -> bool {
        false
    }

    /// Writes bytes that were received to an object. What has become of it, or `None` if
    /// [`TransportEvent::Written`] will tell. Whoever writes at once may block on a disk, so writes have no
    /// more bytes than one receive.
    fn write(&mut self, _handle: Handle, write: Write) -> Option<Written> {
        let result = write.object.write_at(write.offset, &write.bytes);
        Some(write.done(result))
    }

    /// What this connection receives need not lie aligned, since whoever takes it copies it: a transport that
    /// would go to some length for that need not. Said at once or never.
    fn receive_unaligned(&mut self, _handle: Handle) {}

    /// How to receive from now on. `More` is what every connection starts with.
    fn receive(&mut self, handle: Handle, how: Receive);

    /// Ends the sending direction, after what is being sent.
    fn shutdown(&mut self, handle: Handle);

    /// Ends the connection. [`TransportEvent::Released`] follows when nothing of it is in flight.
    fn close(&mut self, handle: Handle);

    /// Appends what has happened, without waiting. Bounded: a connection gets one turn each.
    fn reap(&mut self, events: &mut Vec<TransportEvent<Self::Socket>>);
}

/// How a transport receives.
#[derive(Debug)]
pub enum Receive {
    /// Whatever comes, into chunks. A chunk starts, if the transport can choose, at an address that
    /// is, modulo 16, the number of bytes received before it, plus 8.
    More,
    /// The next `len` bytes and no more into this buffer, behind what it holds. After each
    /// [`TransportEvent::Landed`] nothing is received until the next call.
    Land(ChunkMut, usize),
    /// Nothing.
    Pause,
}

/// What a transport has to tell.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransportEvent<S> {
    /// A connection was accepted.
    Accepted(Listener, S),
    /// A connection is established.
    Connected(Handle),
    /// Bytes have arrived.
    Received(Handle, Chunk),
    /// So many bytes have arrived in the buffer, which comes back.
    Landed(Handle, ChunkMut, usize),
    /// The peer has ended its sending direction. Nothing is received from then on, until asked: then this
    /// is told again.
    InputEnd(Handle),
    /// A part of a batch has been sent; with `done` its last one.
    Sent {
        /// Whose.
        handle: Handle,
        /// How many bytes, since the last time.
        bytes: usize,
        /// Whether the transport holds nothing of the batch any more.
        done: bool,
    },
    /// A range of an object could not be read: zeros are sent instead.
    Unreadable {
        /// Whose.
        handle: Handle,
        /// See [`External::owner`](ringcall_buf::External::owner).
        owner: u64,
        /// Why.
        error: ObjectError,
    },
    /// A write is done, see [`Transport::write`]; the connection may be gone.
    Written(Handle, Written),
    /// The connection is broken or could not be made. Only `Released` follows, after
    /// [`Transport::close`].
    Closed(Handle, CloseReason),
    /// The transport has forgotten the connection.
    Released(Handle),
}

impl<S> TransportEvent<S> {
    /// The same event of a transport that has other sockets.
    pub fn map_socket<T>(self, socket: impl FnOnce(S) -> T) -> TransportEvent<T> {
        match self {
            TransportEvent::Accepted(listener, from) => {
                TransportEvent::Accepted(listener, socket(from))
            }
            TransportEvent::Connected(handle) => TransportEvent::Connected(handle),
            TransportEvent::Received(handle, chunk) => TransportEvent::Received(handle, chunk),
            TransportEvent::Landed(handle, buffer, n) => TransportEvent::Landed(handle, buffer, n),
            TransportEvent::InputEnd(handle) => TransportEvent::InputEnd(handle),
            TransportEvent::Sent { handle, bytes, done } => {
                TransportEvent::Sent { handle, bytes, done }
            }
            TransportEvent::Unreadable { handle, owner, error } => {
                TransportEvent::Unreadable { handle, owner, error }
            }
            TransportEvent::Written(handle, written) => TransportEvent::Written(handle, written),
            TransportEvent::Closed(handle, reason) => TransportEvent::Closed(handle, reason),
            TransportEvent::Released(handle) => TransportEvent::Released(handle),
        }
    }
}

/// Names a connection of a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// Small and dense.
    pub index: u32,
    /// Tells the users of an index apart.
    pub generation: u32,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({}.{})", self.index, self.generation)
    }
}

/// Names a listener of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener(pub u32);

/// Waits. A transport that runs its own loop has this. When another loop waits for it, by one file
/// descriptor, that takes more: `ringcall_net::Hosted`.
pub trait Park {
    /// What wakes it.
    type Bell: Bell;

    /// From now on a ring of the bell ends the next [`park`](Park::park). Whoever is about to park arms
    /// first and then looks once more whether other threads have left work.
    fn arm(&mut self);

    /// Waits until something can be reaped, the bell is rung, or the time has passed; `None` waits for
    /// ever. May return early. Call it also, with zero, when there turned out to be work after
    /// [`arm`](Park::arm).
    fn park(&mut self, timeout: Option<Duration>);

    /// What other threads wake it with.
    fn bell(&self) -> Self::Bell;
}

/// Wakes a parked engine, from any thread.
pub trait Bell: Clone + Send + Sync {
    /// Ends the current park, or the next one if it is armed. Costs a system call at most once a sleep,
    /// and next to nothing otherwise.
    fn ring(&self);
}

/// Sits between connection and transport: nothing at all, or encryption.
///
/// What is provided here is what a layer without messages of its own says.
pub trait ByteLayer {
    /// Turns received bytes into what the connection gets, in order.
    ///
    /// # Errors
    /// When the bytes are not what the layer expects: the connection is over. Whatever the layer has to
    /// say about it is sent all the same, see [`wants_seal`](Self::wants_seal).
    fn open(&mut self, chunk: Chunk, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason>;

    /// Turns a batch of the connection into what is sent, in place. May add bytes of its own; is called
    /// with an empty batch when [`wants_seal`](Self::wants_seal).
    ///
    /// # Errors
    /// When the layer cannot go on.
    fn seal(&mut self, batch: &mut Batch) -> Result<(), CloseReason>;

    /// Whether it has bytes of its own to send.
    fn wants_seal(&self) -> bool;

    /// Whether it takes the connection's bytes. Until then batches are empty.
    #[inline]
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether the other side has said, within the layer, that nothing follows.
    #[inline]
    fn has_input_ended(&self) -> bool {
        false
    }

    /// The transport's input has ended.
    ///
    /// # Errors
    /// When there should have been more.
    #[inline]
    fn end_input(&mut self) -> Result<(), CloseReason> {
        Ok(())
    }

    /// The connection has nothing more to send: the next [`seal`](Self::seal) adds the layer's goodbye. To
    /// be called once or more.
    #[inline]
    fn end_output(&mut self) {}

    /// Whether its goodbye is still to be asked for, or sent.
    #[inline]
    fn owes_goodbye(&self) -> bool {
        false
    }

    /// What the transport's reason for the end means, for whoever knows what was going on.
    #[inline]
    fn explain(&self, reason: CloseReason) -> CloseReason {
        reason
    }

    /// How many bytes it has copied on their way in since it was asked last.
    #[inline]
    fn take_copied(&mut self) -> u64 {
        0
    }

    /// Whether bodies may be received straight into their own memory.
    fn can_land(&self) -> bool;

    /// Whether batches may contain [`Segment::External`].
    fn can_file(&self) -> bool;
}

/// The layer that changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl ByteLayer for Plain {
    #[inline]
    fn open(&mut self, chunk: Chunk, plain: &mut dyn FnMut(Chunk)) -> Result<(), CloseReason> {
        plain(chunk);
        Ok(())
    }

    #[inline]
    fn seal(&mut self, _: &mut Batch) -> Result<(), CloseReason> {
        Ok(())
    }

    #[inline]
    fn wants_seal(&self) -> bool {
        false
    }

    fn can_land(&self) -> bool {
        true
    }

    fn can_file(&self) -> bool {
        true
    }
}

/// What goes to a transport at once: segments in order.
#[derive(Debug, Default)]
pub struct Batch {
    segments: Vec<Segment>,
    bytes: usize,
    limit: usize,
    has_external: bool,
}

/// More segments than this do not go into one batch, so that one system call takes them all.
const SEGMENTS_MAX: usize = 256;

impl Batch {
    /// An empty batch that has room for about `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Batch {
        Batch { segments: Vec::new(), bytes: 0, limit, has_external: false }
    }

    /// The segments, in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many bytes they have.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Lets go of all segments.
    pub fn clear(&mut self) {
        self.segments.clear();
        (self.bytes, self.has_external) = (0, false);
    }

    /// Whether some of its bytes are not in memory.
    #[inline]
    #[must_use]
    pub fn has_external(&self) -> bool {
        self.has_external
    }

    /// Reads what is not in memory into memory of this pool; how many bytes. What cannot be read is zeros
    /// then, and `unreadable` is told whose it was.
    pub fn load(&mut self, pool: &Pool, mut unreadable: impl FnMut(u64, ObjectError)) -> usize {
        let mut loaded = 0;
        for segment in &mut self.segments {
            let Segment::External(range) = segment else { continue };
            let mut buffer = pool.take(range.len());
            if let Err(error) = range.read(buffer.spare()) {
                buffer.spare().fill(0);
                unreadable(range.owner(), error);
            }
            buffer.fill(range.len());
            loaded += range.len();
            *segment = buffer.freeze().into();
        }
        self.has_external = false;
        loaded
    }

    /// Moves all segments to the end of `to`.
    pub fn drain_into(&mut self, to: &mut impl Extend<Segment>) {
        to.extend(self.segments.drain(..));
        (self.bytes, self.has_external) = (0, false);
    }
}

impl SendQueue for Batch {
    #[inline]
    fn room(&self) -> usize {
        if self.segments.len() >= SEGMENTS_MAX { 0 } else { self.limit.saturating_sub(self.bytes) }
    }

    #[inline]
    fn push(&mut self, segment: Segment) {
        self.bytes += segment.len();
        self.has_external |= matches!(segment, Segment::External(_));
        self.segments.push(segment);
    }
}

/// Where to listen or connect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(String),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress(String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an address: write 127.0.0.1:7000, [::1]:7000, host:7000 or unix:/path",
            self.0
        )
    }
}

impl core::error::Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    /// `127.0.0.1:7000`, `[::1]:7000` or `unix:/path`. Host names are resolved elsewhere.
    fn from_str(text: &str) -> Result<Address, BadAddress> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Address::Unix(path.into()));
        }
        text.parse().map(Address::Tcp).map_err(|_| BadAddress(text.into()))
    }
}
