//! What a handle of a transport stands for.

use ringcall_core::Handle;

const GENERATION_MASK: u32 = (1 << 28) - 1;

/// Values by handle. An index is used again only after [`reuse`](Slots::reuse), with the next
/// generation; generations are below 2^28.
#[derive(Debug)]
pub struct Slots<V> {
    slots: Vec<(u32, Option<V>)>,
    free: Vec<u32>,
}

impl<V> Default for Slots<V> {
    fn default() -> Slots<V> {
        Slots::new()
    }
}

impl<V> Slots<V> {
    /// No values.
    #[must_use]
    pub fn new() -> Slots<V> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    /// The handle that the next [`fill`](Slots::fill) will use.
    pub fn vacant(&mut self) -> Handle {
        if self.free.is_empty() {
            self.free.push(self.slots.len() as u32);
            self.slots.push((0, None));
        }
        let index = self.free[self.free.len() - 1];
        Handle { index, generation: self.slots[index as usize].0 }
    }

    /// Puts a value behind the handle that [`vacant`](Slots::vacant) gave.
    pub fn fill(&mut self, handle: Handle, value: V) {
        debug_assert_eq!(self.free.last(), Some(&handle.index));
        self.free.pop();
        self.slots[handle.index as usize].1 = Some(value);
    }

    /// The value of a handle.
    #[inline]
    pub fn get(&mut self, handle: Handle) -> Option<&mut V> {
        let (generation, value) = self.slots.get_mut(handle.index as usize)?;
        if *generation != handle.generation {
            return None;
        }
        value.as_mut()
    }

    /// Takes the value out; the index stays reserved.
    pub fn take(&mut self, handle: Handle) -> Option<V> {
        self.get(handle)?;
        self.slots[handle.index as usize].1.take()
    }

    /// All values, with their handles.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut V)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, (generation, value))| {
            let handle = Handle { index: index as u32, generation: *generation };
            value.as_mut().map(|value| (handle, value))
        })
    }

    /// Lets the index of a handle whose value was taken be used again.
    pub fn reuse(&mut self, handle: Handle) {
        let (generation, value) = &mut self.slots[handle.index as usize];
        debug_assert!(value.is_none() && *generation == handle.generation);
        // Engines pack a handle into 64 bits and need four of them for something else.
        *generation = generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(handle.index);
    }
}
