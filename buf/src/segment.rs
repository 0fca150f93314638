//! One piece of an outgoing batch.

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

/// Names a range of an object that is registered with the transport, such as an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct External {
    /// The transport's name for the object.
    pub handle: u64,
    /// Where the range starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: usize,
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
                assert!(n <= range.len, "split past the end of a range");
                let front = External { len: n, ..*range };
                range.offset += n as u64;
                range.len -= n;
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
