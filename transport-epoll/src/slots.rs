//! What a handle stands for.

use ringcall_core::Handle;

/// Values by handle. An index is used again only after [`reuse`](Slots::reuse), with the next
/// generation.
#[derive(Debug)]
pub(crate) struct Slots<V> {
    slots: Vec<(u32, Option<V>)>,
    free: Vec<u32>,
}

impl<V> Slots<V> {
    pub(crate) fn new() -> Slots<V> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    /// The handle that the next [`fill`](Slots::fill) will use.
    pub(crate) fn vacant(&mut self) -> Handle {
        if self.free.is_empty() {
            self.free.push(self.slots.len() as u32);
            self.slots.push((0, None));
        }
        let index = self.free[self.free.len() - 1];
        Handle { index, generation: self.slots[index as usize].0 }
    }

    pub(crate) fn fill(&mut self, handle: Handle, value: V) {
        debug_assert_eq!(self.free.last(), Some(&handle.index));
        self.free.pop();
        self.slots[handle.index as usize].1 = Some(value);
    }

    #[inline]
    pub(crate) fn get(&mut self, handle: Handle) -> Option<&mut V> {
        let (generation, value) = self.slots.get_mut(handle.index as usize)?;
        if *generation != handle.generation {
            return None;
        }
        value.as_mut()
    }

    /// Takes the value out; the index stays reserved.
    pub(crate) fn take(&mut self, handle: Handle) -> Option<V> {
        self.get(handle)?;
        self.slots[handle.index as usize].1.take()
    }

    /// Lets the index of a handle whose value was taken be used again.
    pub(crate) fn reuse(&mut self, handle: Handle) {
        let (generation, value) = &mut self.slots[handle.index as usize];
        debug_assert!(value.is_none() && *generation == handle.generation);
        // Below 2^31, so that the bit above it can mean something else.
        *generation = generation.wrapping_add(1) & 0x7fff_ffff;
        self.free.push(handle.index);
    }
}
