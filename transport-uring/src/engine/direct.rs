//! The one busy connection of a shard that looks on: what has arrived there is received by a system call that does only
//! that, in place of entering the ring. What receives by itself stays with the kernel meanwhile. It takes nothing
//! before the ring is entered ([`Kernel::defers`]), and goes on when it finds nothing, so bytes keep their order.

use ringcall_buf::BLOCK_BYTES;
use ringcall_net::receive_some;

use super::{Event, Uring};
use crate::Kernel;

impl<K: Kernel> Uring<K> {
    /// Whether something was received, or is broken. If not, the ring is to be entered.
    pub(super) fn receive_directly(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(handle) = self.hot.candidate().filter(|_| self.kernel.defers()) else {
            return false;
        };
        let connection = self.connections.get(handle);
        let Some(connection) = connection.filter(|connection| connection.only_receives()) else {
            self.hot.forget();
            return false;
        };
        self.hot.count();
        let room = self.arena.spare(BLOCK_BYTES / 4, connection.phase());
        match receive_some(&connection.socket, room, &self.tally) {
            Ok(Some(n @ 1..)) => {
                self.hot.received(n);
                let chunk = self.arena.commit(n);
                self.deliver(handle, chunk, events);
            }
            // The end of the input is told by what receives by itself.
            Ok(_) => return false,
            Err(error) => self.broken(handle, error, events),
        }
        true
    }

    /// Which connection is hot, after a reap that brought these.
    pub(super) fn choose_hot(&mut self, brought: &[Event]) {
        match brought {
            [] => {}
            [Event::Received(handle, chunk)] => {
                self.hot.only(*handle);
                self.hot.received(chunk.len());
            }
            _ => self.hot.forget(),
        }
    }
}
