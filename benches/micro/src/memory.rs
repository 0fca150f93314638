//! A transport between two endpoints on one thread, without a kernel.

use std::cell::RefCell;
use std::rc::Rc;

use ringcall_buf::{Arena, BLOCK_BYTES};
use ringcall_core::{
    Address, Batch, Handle, Listener, Memory, Receive, Transport, TransportError, TransportEvent,
};

/// One end of a connection in memory. A batch is copied once, as the kernel would, into the receive memory
/// of the other end. Carries small bodies only: it cannot land large ones in buffers of their own.
#[derive(Debug)]
pub(crate) struct MemoryEnd {
    own: Rc<RefCell<Inbox>>,
    other: Rc<RefCell<Inbox>>,
}

/// What one end is about to reap.
#[derive(Debug)]
struct Inbox {
    events: Vec<TransportEvent<()>>,
    arena: Arena,
    received: usize,
}

/// There is only one connection.
const HANDLE: Handle = Handle { index: 0, generation: 0 };

impl MemoryEnd {
    /// Two ends of one connection.
    pub(crate) fn pair(memory: &Memory) -> [MemoryEnd; 2] {
        let inbox = || {
            let arena = Arena::new(memory.pool(), BLOCK_BYTES);
            Rc::new(RefCell::new(Inbox { events: Vec::new(), arena, received: 0 }))
        };
        let (one, two) = (inbox(), inbox());
        [
            MemoryEnd { own: Rc::clone(&one), other: Rc::clone(&two) },
            MemoryEnd { own: two, other: one },
        ]
    }
}

impl Transport for MemoryEnd {
    type Socket = ();

    fn listen(&mut self, _: &Address) -> Result<Listener, TransportError> {
        Ok(Listener(0))
    }

    fn local_address(&self, _: Listener) -> Option<Address> {
        None
    }

    fn unlisten(&mut self, _: Listener) {}

    fn connect(&mut self, _: &Address) -> Result<Handle, TransportError> {
        self.own.borrow_mut().events.push(TransportEvent::Connected(HANDLE));
        self.other.borrow_mut().events.push(TransportEvent::Accepted(Listener(0), ()));
        Ok(HANDLE)
    }

    fn adopt(&mut self, (): ()) -> Result<Handle, TransportError> {
        Ok(HANDLE)
    }

    #[inline]
    fn send(&mut self, _: Handle, batch: &mut Batch) -> bool {
        let Inbox { events, arena, received } = &mut *self.other.borrow_mut();
        let room = arena.spare(batch.len(), (*received + 8) % 16);
        let mut at = 0;
        for segment in batch.segments() {
            let bytes = segment.as_slice().expect("memory");
            room[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        batch.clear();
        *received += at;
        events.push(TransportEvent::Received(HANDLE, arena.commit(at)));
        true
    }

    fn receive(&mut self, _: Handle, how: Receive) {
        assert!(!matches!(how, Receive::Land(..)), "only small bodies travel in memory");
    }

    fn shutdown(&mut self, _: Handle) {
        self.other.borrow_mut().events.push(TransportEvent::InputEnd(HANDLE));
    }

    fn close(&mut self, _: Handle) {
        self.own.borrow_mut().events.push(TransportEvent::Released(HANDLE));
    }

    #[inline]
    fn reap(&mut self, events: &mut Vec<TransportEvent<()>>) {
        events.append(&mut self.own.borrow_mut().events);
    }
}
