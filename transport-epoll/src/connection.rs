//! One socket: what is received into, what waits to be sent.

use ringcall_buf::{Arena, Chunk, ChunkMut, Pool};
use ringcall_core::{Batch, Receive, TransportError};
use ringcall_net::{Tally, Unsent, Window, receive_some, send_some};
use socket2::Socket;

/// How many blocks in one are received into when much comes.
const WIDE: usize = 4;
/// So much comes in such pieces between two looks at memory, and no more than this part of its bound: others would be
/// closed for what has come by then.
const WIDE_BYTES_MAX: usize = 4 << 20;
const WIDE_PART: usize = 16;

/// What is received into.
#[derive(Debug)]
pub(crate) struct Room {
    pool: Pool,
    block_bytes: usize,
    usual: Arena,
    /// For connections by which more comes at a time than fits. Of its own, since a message that somebody keeps
    /// holds all of its block.
    wide: Arena,
    /// What has come by it in this reap.
    wide_bytes: usize,
}

impl Room {
    pub(crate) fn new(pool: &Pool, block_bytes: usize) -> Room {
        let [usual, wide] = [1, WIDE].map(|blocks| Arena::new(pool, blocks * block_bytes));
        Room { pool: pool.clone(), block_bytes, usual, wide, wide_bytes: 0 }
    }

    /// A reap begins.
    pub(crate) fn begin(&mut self) {
        self.wide_bytes = 0;
    }

    /// Whether the next receive may be a large one.
    fn may_be_wide(&self) -> bool {
        let most = WIDE_BYTES_MAX.min(self.pool.bound().full / WIDE_PART);
        self.wide_bytes < most && !self.pool.is_short()
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) stage: Stage,
    receiving: Receive,
    /// What epoll was told to watch for.
    pub(crate) watching: Watching,
    /// It became readable while nothing was to be received. Only then is epoll asked to keep quiet: a
    /// pause between two parts of a body ends before that, and costs no system call.
    disturbed: bool,
    /// Both directions have ended, which epoll reports whether asked or not.
    hung_up: bool,
    /// The last receive brought as much as there was room for.
    is_flooded: bool,
    /// Bytes received so far, for the alignment of what comes next.
    received: u64,
    window: Window,
    /// What the kernel has not taken yet.
    pub(crate) unsent: Unsent,
    pub(crate) wants_shutdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    Up,
    /// An error was reported; nothing is done any more.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watching {
    pub(crate) registered: bool,
    pub(crate) input: bool,
    pub(crate) output: bool,
}

/// What came of receiving.
pub(crate) enum Input {
    Chunk(Chunk),
    Landed(ChunkMut, usize),
    /// Nothing there, or nothing wanted.
    Nothing,
    End,
}

impl Connection {
    pub(crate) fn new(socket: Socket, stage: Stage) -> Connection {
        Connection {
            socket,
            stage,
            receiving: Receive::More,
            watching: Watching::default(),
            disturbed: false,
            hung_up: false,
            is_flooded: false,
            received: 0,
            window: Window::default(),
            unsent: Unsent::new(),
            wants_shutdown: false,
        }
    }

    /// What epoll should watch for.
    pub(crate) fn wanted(&self) -> Watching {
        let output = !self.unsent.is_empty();
        match self.stage {
            Stage::Connecting => Watching { registered: true, input: false, output: true },
            Stage::Up => Watching {
                registered: output || !(self.disturbed && self.hung_up),
                input: !self.disturbed,
                output,
            },
            Stage::Broken => Watching::default(),
        }
    }

    /// How to receive from now on.
    pub(crate) fn set_receiving(&mut self, how: Receive) {
        if let Receive::Land(_, len) = &how {
            self.window.expect(&self.socket, *len);
            // What of the next body comes before it lands is copied.
            self.is_flooded = false;
        }
        self.receiving = how;
        self.disturbed = false;
    }

    /// It is readable, or has hung up, but nothing is to be received.
    pub(crate) fn disturb(&mut self, hung_up: bool) {
        if matches!(self.receiving, Receive::Pause) {
            self.disturbed = true;
            self.hung_up |= hung_up;
        }
    }

    /// Whether there is nothing to learn about it but what receiving tells.
    pub(crate) fn is_only_received_from(&self) -> bool {
        self.stage == Stage::Up
            && self.unsent.is_empty()
            && !matches!(self.receiving, Receive::Pause)
    }

    pub(crate) fn is_sending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Receives once.
    pub(crate) fn receive(
        &mut self,
        room: &mut Room,
        tally: &Tally,
    ) -> Result<Input, TransportError> {
        match &mut self.receiving {
            Receive::Pause => Ok(Input::Nothing),
            Receive::More => {
                let phase = (self.received.wrapping_add(8) % 16) as usize;
                let is_wide = self.is_flooded && room.may_be_wide();
                // With less room a receive is not worth its system call.
                let (arena, min) = match is_wide {
                    false => (&mut room.usual, room.block_bytes / 4),
                    true => (&mut room.wide, room.block_bytes),
                };
                let spare = arena.spare(min, phase);
                let spare_len = spare.len();
                match receive_some(&self.socket, spare, tally)? {
                    None => Ok(Input::Nothing),
                    Some(0) => Ok(Input::End),
                    Some(n) => {
                        self.received += n as u64;
                        self.is_flooded = n == spare_len || n >= room.block_bytes;
                        room.wide_bytes += if is_wide { n } else { 0 };
                        Ok(Input::Chunk(arena.commit(n)))
                    }
                }
            }
            Receive::Land(buffer, len) => {
                let room = buffer.spare();
                let room_len = room.len().min(*len);
                match receive_some(&self.socket, &mut room[..room_len], tally)? {
                    None => Ok(Input::Nothing),
                    Some(0) => Ok(Input::End),
                    Some(n) => {
                        self.received += n as u64;
                        buffer.fill(n);
                        match std::mem::replace(&mut self.receiving, Receive::Pause) {
                            Receive::Land(buffer, _) => Ok(Input::Landed(buffer, n)),
                            _ => Ok(Input::Nothing),
                        }
                    }
                }
            }
        }
    }

    /// Sends a batch as far as the kernel takes it; keeps the rest. Says whether all went.
    pub(crate) fn send(
        &mut self,
        batch: &mut Batch,
        tally: &Tally,
    ) -> Result<bool, TransportError> {
        let mut sent = 0;
        if !batch.has_external() {
            sent = send_some(&self.socket, batch.segments().iter(), tally)?;
            if sent == batch.len() {
                batch.clear();
                return Ok(true);
            }
        }
        self.unsent.add(batch);
        self.unsent.forget(sent);
        // One call takes a bounded number of segments, so that a short one need not mean that the
        // kernel is full.
        self.send_on(tally)?;
        Ok(!self.is_sending())
    }

    /// Sends what was kept, as far as the kernel takes it. How many bytes went.
    pub(crate) fn send_on(&mut self, tally: &Tally) -> Result<usize, TransportError> {
        let mut all = 0;
        while !self.unsent.is_empty() {
            let sent = self.unsent.send_some(&self.socket, tally)?;
            if sent == 0 {
                break;
            }
            all += sent;
        }
        Ok(all)
    }
}
