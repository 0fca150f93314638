//! The one connection that everything comes from, spinning: what has arrived there is received by a system call that does
//! only that, in place of entering the ring. What receives by itself stays with the kernel meanwhile. It takes nothing
//! before the ring is entered ([`Kernel::defers`]), and goes on when it finds nothing, so bytes keep their order.

use ringcall_buf::BLOCK_BYTES;
use ringcall_core::Handle;
use ringcall_net::receive_some;

use super::{Event, Uring};
use crate::Kernel;

/// From so many reaps in a row on that brought something of this connection alone.
const HOT_REAPS: u32 = 4;
/// So many times at most, until the ring is entered for the others.
const DIRECT_MAX: u32 = 16;
/// And only while no more than this comes at a time: whoever takes much too eagerly takes it in small pieces.
const DIRECT_BYTES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Direct {
    /// The only connection of which the last reap had something to say, and how many reaps in a row it was.
    hot: Option<(Handle, u32)>,
    /// How many times it was received from since the ring was entered.
    times: u32,
    /// What this reap has brought so far.
    brought: Brought,
}

#[derive(Debug, Default)]
enum Brought {
    #[default]
    Nothing,
    Little(Handle),
    Else,
}

impl Direct {
    /// The ring was entered.
    pub(super) fn begin_again(&mut self) {
        self.times = 0;
    }

    /// What became of one completion.
    pub(super) fn note(&mut self, events: &[Event]) {
        self.brought = match (events, std::mem::take(&mut self.brought)) {
            ([Event::Received(handle, chunk)], Brought::Nothing)
                if chunk.len() <= DIRECT_BYTES_MAX =>
            {
                Brought::Little(*handle)
            }
            _ => Brought::Else,
        };
    }

    /// Which connection is hot, after a reap.
    pub(super) fn choose(&mut self) {
        self.hot = match (std::mem::take(&mut self.brought), self.hot) {
            (Brought::Nothing, hot) => hot,
            (Brought::Little(handle), hot) => {
                let reaps = hot.filter(|(hot, _)| *hot == handle).map_or(0, |(_, reaps)| reaps);
                Some((handle, reaps.saturating_add(1)))
            }
            (Brought::Else, _) => None,
        };
    }
}

impl<K: Kernel> Uring<K> {
    /// Whether something was received, or is broken. If not, the ring is to be entered.
    pub(super) fn receive_directly(&mut self, events: &mut Vec<Event>) -> bool {
        let Some((handle, HOT_REAPS..)) = self.direct.hot else { return false };
        if self.direct.times >= DIRECT_MAX || !self.kernel.defers() {
            return false;
        }
        let Some(connection) =
            self.connections.get(handle).filter(|connection| connection.only_receives())
        else {
            self.direct.hot = None;
            return false;
        };
        self.direct.times += 1;
        let room = self.arena.spare(BLOCK_BYTES / 4, connection.phase());
        match receive_some(&connection.socket, room, &self.tally) {
            Ok(Some(n @ 1..)) => {
                if n > DIRECT_BYTES_MAX {
                    self.direct.hot = None;
                }
                let chunk = self.arena.commit(n);
                self.deliver(handle, chunk, events);
            }
            // The end of the input is told by what receives by itself.
            Ok(_) => return false,
            Err(error) => self.broken(handle, error, events),
        }
        true
    }
}
