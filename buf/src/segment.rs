//! One piece of an outgoing batch.

use alloc::sync::Arc;
use core::any::Any;
use core::fmt;

use bytes::Bytes;

use crate::{Chunk, SharedChunk};

/// A piece of what goes out: bytes, wherever they are held, or a range of something that only the
/// transport can read. Whoever holds a segment keeps its bytes alive and unchanged.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Frames and bodies built on this thread.
    Local(Chunk),
    /// Bodies built on another thread.
    Shared(SharedChunk),
    /// Bodies that the application owns.
    Bytes(Bytes),
    /// A range that the transport reads itself, such as a part of a file.
    External(External),
}

/// Something outside of memory that bytes can be read from, and written to, at any offset: an open file
/// above all. Shared by everybody who holds a range of it, on any thread; the last one closes it.
///
/// An engine that knows what it is may move its bytes without these methods.
pub trait Object: Any + Send + Sync + fmt::Debug {
    /// Reads into memory; how many bytes, none at its end.
    ///
    /// # Errors
    /// [`ObjectError::Os`] for what the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError>;

    /// Writes all of these bytes.
    ///
    /// # Errors
    /// [`ObjectError::Os`] for what the system says, such as a full disk; some may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ObjectError>;
}

/// Why a range of an object cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectError {
    /// It is shorter than the range: it has shrunk, for example.
    Ended,
    /// The range has no room for what is to be written.
    NoRoom,
    /// An error of the operating system, by its number.
    Os(i32),
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectError::Ended => f.write_str("it is shorter than it was"),
            ObjectError::NoRoom => f.write_str("there is more than its range has room for"),
            ObjectError::Os(number) => write!(f, "operating system error {number}"),
        }
    }
}

impl core::error::Error for ObjectError {}

/// A range of an object, such as a part of an open file. Clones are the same object, which is counted.
#[derive(Clone, Debug)]
pub struct External {
    object: Arc<dyn Object>,
    offset: u64,
    len: usize,
    owner: u64,
}

impl External {
    /// `len` bytes of an object from `offset` on.
    #[must_use]
    pub fn new(object: Arc<dyn Object>, offset: u64, len: usize) -> External {
        External { object, offset, len, owner: 0 }
    }

    /// What it is a range of.
    #[must_use]
    pub fn object(&self) -> &Arc<dyn Object> {
        &self.object
    }

    /// Where the range starts, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whose body it belongs to, while it is being sent; otherwise 0.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// Says whose body it belongs to.
    pub fn set_owner(&mut self, owner: u64) {
        self.owner = owner;
    }

    /// Forgets the first `n` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "advance past the end of a range");
        self.offset = self.offset.saturating_add(n as u64);
        self.len -= n;
    }

    /// Fills memory as long as the range with its bytes.
    ///
    /// # Errors
    /// [`ObjectError::Ended`] when it is shorter than it was; what the system says.
    ///
    /// # Panics
    /// When the memory has another length.
    pub fn read(&self, into: &mut [u8]) -> Result<(), ObjectError> {
        assert_eq!(into.len(), self.len, "as long as the range");
        let mut filled = 0;
        while filled < into.len() {
            let at = self.offset.saturating_add(filled as u64);
            match self.object.read_at(at, &mut into[filled..])? {
                0 => return Err(ObjectError::Ended),
                n => filled += n.min(into.len() - filled),
            }
        }
        Ok(())
    }
}

impl Segment {
    /// How many bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Segment::Local(chunk) => chunk.len(),
            Segment::Shared(chunk) => chunk.len(),
            Segment::Bytes(bytes) => bytes.len(),
            Segment::External(range) => range.len,
        }
    }

    /// How many of them lie in memory of the application's, or of another thread's pool.
    #[inline]
    #[must_use]
    pub fn foreign_len(&self) -> usize {
        match self {
            Segment::Local(_) | Segment::External(_) => 0,
            Segment::Shared(_) | Segment::Bytes(_) => self.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            Segment::Local(chunk) => Some(chunk),
            Segment::Shared(chunk) => Some(chunk),
            Segment::Bytes(bytes) => Some(bytes),
            Segment::External(_) => None,
        }
    }

    /// Cuts off and returns the first `n` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn split_to(&mut self, n: usize) -> Segment {
        match self {
            Segment::Local(chunk) => Segment::Local(chunk.split_to(n)),
            Segment::Shared(chunk) => Segment::Shared(chunk.split_to(n)),
            Segment::Bytes(bytes) => Segment::Bytes(bytes.split_to(n)),
            Segment::External(range) => {
                let mut front = range.clone();
                range.advance(n);
                front.len = n;
                Segment::External(front)
            }
        }
    }
}

/// A segment that may go to another thread.
#[derive(Clone, Debug)]
pub enum SharedSegment {
    /// Pooled bytes.
    Shared(SharedChunk),
    /// Bytes that the application owns.
    Bytes(Bytes),
    /// A range that the transport reads itself.
    External(External),
}

impl SharedSegment {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            SharedSegment::Shared(chunk) => chunk.len(),
            SharedSegment::Bytes(bytes) => bytes.len(),
            SharedSegment::External(range) => range.len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            SharedSegment::Shared(chunk) => Some(chunk),
            SharedSegment::Bytes(bytes) => Some(bytes),
            SharedSegment::External(_) => None,
        }
    }
}

impl Segment {
    /// The same for other threads; counts, does not copy.
    #[must_use]
    pub fn share(self) -> SharedSegment {
        match self {
            Segment::Local(chunk) => SharedSegment::Shared(chunk.share()),
            Segment::Shared(chunk) => SharedSegment::Shared(chunk),
            Segment::Bytes(bytes) => SharedSegment::Bytes(bytes),
            Segment::External(range) => SharedSegment::External(range),
        }
    }
}

impl From<SharedSegment> for Segment {
    fn from(segment: SharedSegment) -> Segment {
        match segment {
            SharedSegment::Shared(chunk) => Segment::Shared(chunk),
            SharedSegment::Bytes(bytes) => Segment::Bytes(bytes),
            SharedSegment::External(range) => Segment::External(range),
        }
    }
}

impl From<SharedChunk> for SharedSegment {
    fn from(chunk: SharedChunk) -> SharedSegment {
        SharedSegment::Shared(chunk)
    }
}

impl From<Bytes> for SharedSegment {
    fn from(bytes: Bytes) -> SharedSegment {
        SharedSegment::Bytes(bytes)
    }
}

impl From<External> for SharedSegment {
    fn from(range: External) -> SharedSegment {
        SharedSegment::External(range)
    }
}

impl From<External> for Segment {
    fn from(range: External) -> Segment {
        Segment::External(range)
    }
}

impl From<Chunk> for Segment {
    fn from(chunk: Chunk) -> Segment {
        Segment::Local(chunk)
    }
}

impl From<SharedChunk> for Segment {
    fn from(chunk: SharedChunk) -> Segment {
        Segment::Shared(chunk)
    }
}

impl From<Bytes> for Segment {
    fn from(bytes: Bytes) -> Segment {
        Segment::Bytes(bytes)
    }
}
