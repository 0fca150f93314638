//! The engine: operations and what comes of them.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ringcall_buf::{Arena, BLOCK_BYTES};
use ringcall_core::{
    Address, Batch, CloseReason, Handle, Listener, Memory, Park, Receive, Transport,
    TransportError, TransportEvent,
};
use ringcall_net::{
    AcceptGate, Doorbell, Handover, Hosted, ListenOptions, ListenSocket, Slots, connect,
    receive_some, set_up_accepted, transport_error,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use crate::buffers::Buffers;
use crate::connection::{Connection, Input, Receiving, Stage};
use crate::{Completion, Features, Kernel, Op, Refusal, Ring, Token};

type Event = TransportEvent<Socket>;

/// How many completions one reap takes, so that a turn ends.
const COMPLETIONS_A_REAP: usize = 4096;
/// How much a single receive into memory of its own may bring.
const OWN_BYTES: usize = 16 * 1024 - 16;
/// How much of a body is received at once: its progress is watched.
const LAND_BYTES: usize = 256 * 1024;
/// How long a dropped engine waits for its operations to end before it leaks what they use.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UringConfig {
    /// How to listen.
    pub listen: ListenOptions,
    /// How many operations fit into the submission queue; the completion queue is eight times as long.
    /// 256 by default.
    pub entries: u32,
    /// Size of a receive buffer. 64 KiB by default.
    pub buffer_bytes: usize,
    /// How many receive buffers there are at first; twice as many each time they run out. 8 by default.
    pub buffers: usize,
    /// How many there are at most; a power of two. 1024 by default.
    pub buffers_max: u16,
    /// When fewer connections than this send in a turn, each sends with a system call of its own; more are
    /// operations, so that one call sends for all. (A send that is an operation tells of its end, which
    /// would wake the engine for nothing but that.) 2 by default.
    pub direct_sends: usize,
    /// When a send is tried again that could neither be done nor be waited for. 10 ms by default.
    pub retry_after: Duration,
}

impl Default for UringConfig {
    fn default() -> UringConfig {
        UringConfig {
            listen: ListenOptions::default(),
            entries: 256,
            buffer_bytes: BLOCK_BYTES,
            buffers: 8,
            buffers_max: 1024,
            direct_sends: 2,
            retry_after: Duration::from_millis(10),
        }
    }
}

/// The io_uring engine of one thread.
#[derive(Debug)]
pub struct Uring<K: Kernel = Ring> {
    kernel: K,
    bell: Doorbell,
    bell_is_armed: bool,
    /// Another loop waits for the bell's fd, which the kernel writes to as well.
    is_hosted: bool,
    config: UringConfig,
    arena: Arena,
    buffers: Buffers,
    connections: Slots<Connection>,
    listeners: Vec<Option<Listening>>,
    listener_generation: u32,
    /// Connections whose receive may have to be begun or ended.
    listed: Vec<Handle>,
    /// Connections that could not send, for reasons that pass.
    retries: Vec<Handle>,
    retry_at: Option<std::time::Instant>,
    /// What happened between two reaps.
    done: Vec<Event>,
    /// Batches since the last reap, and between the two before.
    sends: usize,
    sends_before: usize,
    /// Operations that are with the kernel, cancels not counted.
    in_flight: usize,
    gates_closed: bool,
    /// Connections that listeners had to close unseen, of listeners that are gone.
    shed: u64,
}

#[derive(Debug)]
struct Listening {
    socket: ListenSocket,
    generation: u32,
    gate: AcceptGate,
    is_accepting: bool,
    /// Goes when its operation has ended.
    is_leaving: bool,
}

impl Uring {
    /// An engine without sockets; receive memory comes from `memory`. What the ring uses of the kernel
    /// is what [`Features::probe`] has found.
    ///
    /// # Errors
    /// When a ring cannot be set up here.
    pub fn new(memory: &Memory, features: Features, config: UringConfig) -> Result<Uring, Refusal> {
        let buffers = config.buffers_max.next_power_of_two();
        let refusal = |error: std::io::Error| Refusal::Os(error.raw_os_error().unwrap_or(0));
        let ring = Ring::new(features, config.entries, buffers).map_err(refusal)?;
        Uring::over(ring, memory, config).map_err(refusal)
    }

    /// How often the kernel was entered to submit and to wait.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.kernel.enters()
    }
}

impl<K: Kernel> Uring<K> {
    /// An engine over this ring.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn over(kernel: K, memory: &Memory, config: UringConfig) -> std::io::Result<Uring<K>> {
        let limit = match kernel.features().provided_buffers {
            true => config.buffers_max.next_power_of_two(),
            false => 0,
        };
        let pool = memory.pool();
        let mut engine = Uring {
            kernel,
            bell: Doorbell::new()?,
            bell_is_armed: false,
            is_hosted: false,
            config,
            arena: Arena::new(pool, BLOCK_BYTES),
            buffers: Buffers::new(pool, config.buffer_bytes, config.buffers, limit),
            connections: Slots::new(),
            listeners: Vec::new(),
            listener_generation: 0,
            listed: Vec::new(),
            retries: Vec::new(),
            retry_at: None,
            done: Vec::new(),
            sends: 0,
            sends_before: 0,
            in_flight: 0,
            gates_closed: false,
            shed: 0,
        };
        engine.buffers.refill(&mut engine.kernel);
        engine.watch_bell();
        Ok(engine)
    }

    /// What it uses of the kernel.
    #[must_use]
    pub fn features(&self) -> Features {
        self.kernel.features()
    }

    /// The ring.
    #[must_use]
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The ring, to let something happen in it.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// How many operations are with the kernel.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many connections were closed unseen because file descriptors ran out.
    #[must_use]
    pub fn shed(&self) -> u64 {
        let listening = self.listeners.iter().flatten();
        self.shed + listening.map(|listening| listening.gate.shed()).sum::<u64>()
    }

    fn begin(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        self.kernel.push(token.pack(), op);
    }

    fn cancel(&mut self, token: Token) {
        self.kernel.push(Token::Cancel.pack(), Op::Cancel { token: token.pack() });
    }

    // ---- completions ----

    fn complete(&mut self, completion: Completion, events: &mut Vec<Event>) {
        // Whoever it was for: a buffer that comes back is the driver's again.
        let buffer = completion.buffer.and_then(|number| self.buffers.take(number));
        let Some(token) = Token::unpack(completion.token) else { return };
        if !completion.more && token != Token::Cancel {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match token {
            Token::Cancel => {}
            Token::Bell => self.bell_is_armed = completion.more,
            Token::Accept { listener, generation } => {
                self.accepted(listener, generation, completion, events);
            }
            Token::Connect(handle) => self.connected(handle, completion.result, events),
            Token::Send(handle) => self.sent(handle, completion.result, events),
            Token::Receive(handle) => {
                let chunk = buffer.map(|mut buffer| {
                    let n = usize::try_from(completion.result).unwrap_or(0);
                    buffer.fill(n.min(buffer.missing()));
                    buffer.freeze()
                });
                self.received(handle, completion, chunk, events);
            }
        }
    }

    fn connected(&mut self, handle: Handle, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        match connection.stage {
            Stage::Connecting => connection.stage = Stage::Up,
            // The slot's operation has ended, however.
            _ => return self.release_if_idle(handle, events),
        }
        let error = match (result, connection.socket.take_error()) {
            (0.., Ok(None)) => {
                events.push(Event::Connected(handle));
                return self.list(handle);
            }
            (0.., Ok(Some(error)) | Err(error)) => transport_error(&error),
            (negative, _) => os_error(negative),
        };
        self.broken(handle, error, events);
    }

    fn received(
        &mut self,
        handle: Handle,
        completion: Completion,
        chunk: Option<ringcall_buf::Chunk>,
        events: &mut Vec<Event>,
    ) {
        let Some(connection) = self.connections.get(handle) else { return };
        let receiving = match completion.more {
            true => None,
            false => {
                connection.is_cancelling = false;
                Some(std::mem::replace(&mut connection.receiving, Receiving::Nothing))
            }
        };
        if connection.stage != Stage::Up {
            return self.release_if_idle(handle, events);
        }
        match (completion.result, receiving) {
            (0.., Some(Receiving::Poll)) => self.receive_now(handle, events),
            (1.., Some(Receiving::Landing(mut buffer, _))) => {
                let n = (completion.result as usize).min(buffer.missing());
                buffer.fill(n);
                connection.count(n);
                events.push(Event::Landed(handle, buffer, n));
            }
            (1.., Some(Receiving::Own(mut buffer))) => {
                buffer.fill((completion.result as usize).min(buffer.missing()));
                self.deliver(handle, buffer.freeze(), events);
            }
            (1.., _) => {
                if let Some(chunk) = chunk {
                    connection.note_alignment();
                    self.deliver(handle, chunk, events);
                }
            }
            (0, ended) => {
                connection.input = Input::Ended;
                if let Some(Receiving::Landing(..)) = ended {
                    // Nobody paused it: it waited for the body.
                    connection.want = Receive::More;
                }
            }
            (error, ended) => self.not_received(handle, error, ended, events),
        }
        self.list(handle);
    }

    /// A receive ended without data.
    fn not_received(
        &mut self,
        handle: Handle,
        error: i32,
        ended: Option<Receiving>,
        events: &mut Vec<Event>,
    ) {
        match -error {
            // Cancelled, interrupted, or out of memory that comes back: begun again as wanted.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOMEM => {}
            libc::ENOBUFS => self.buffers.grow(),
            _ => return self.broken(handle, os_error(error), events),
        }
        // The body's memory goes back to where the next receive takes it from.
        if let Some(Receiving::Landing(buffer, len)) = ended
            && let Some(connection) = self.connections.get(handle)
            && matches!(connection.want, Receive::Pause)
        {
            connection.want = Receive::Land(buffer, len);
        }
    }

    /// Data has arrived: hands it up as wanted, keeps what is not.
    fn deliver(&mut self, handle: Handle, chunk: ringcall_buf::Chunk, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        connection.count(chunk.len());
        if matches!(connection.want, Receive::More) && connection.backlog.is_empty() {
            return events.push(Event::Received(handle, chunk));
        }
        connection.backlog.push_back(chunk);
        self.deliver_backlog(handle, events);
    }

    fn deliver_backlog(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        match &mut connection.want {
            Receive::Pause => {}
            Receive::More => {
                events.extend(
                    connection.backlog.drain(..).map(|chunk| Event::Received(handle, chunk)),
                );
            }
            Receive::Land(..) if connection.backlog.is_empty() => {}
            Receive::Land(buffer, len) => {
                let mut n = 0;
                while let Some(chunk) = connection.backlog.front_mut()
                    && n < *len
                {
                    let part = chunk.len().min(*len - n);
                    buffer.extend_from_slice(&chunk.split_to(part));
                    n += part;
                    if chunk.is_empty() {
                        connection.backlog.pop_front();
                    }
                }
                if let Receive::Land(buffer, _) =
                    std::mem::replace(&mut connection.want, Receive::Pause)
                {
                    events.push(Event::Landed(handle, buffer, n));
                }
            }
        }
        let is_over = connection.input == Input::Ended && connection.backlog.is_empty();
        if is_over && !matches!(connection.want, Receive::Pause) {
            connection.input = Input::Told;
            connection.want = Receive::Pause;
            events.push(Event::InputEnd(handle));
        }
    }

    /// There is something to receive, and no buffer is with the kernel.
    fn receive_now(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        let phase = connection.phase();
        let received = match &mut connection.want {
            Receive::Pause => return,
            Receive::More => {
                receive_some(&connection.socket, self.arena.spare(BLOCK_BYTES / 4, phase))
            }
            Receive::Land(buffer, len) => {
                let room = buffer.missing().min(*len);
                receive_some(&connection.socket, &mut buffer.spare()[..room])
            }
        };
        match received {
            Ok(None) => {}
            Ok(Some(0)) => connection.input = Input::Ended,
            Ok(Some(n)) => match std::mem::replace(&mut connection.want, Receive::Pause) {
                Receive::Land(mut buffer, _) => {
                    connection.count(n);
                    buffer.fill(n);
                    events.push(Event::Landed(handle, buffer, n));
                }
                want => {
                    connection.want = want;
                    let chunk = self.arena.commit(n);
                    self.deliver(handle, chunk, events);
                }
            },
            Err(error) => self.broken(handle, error, events),
        }
    }

    fn sent(&mut self, handle: Handle, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        connection.is_sending = false;
        if connection.stage != Stage::Up {
            return self.release_if_idle(handle, events);
        }
        match result {
            0.. => {
                let bytes = result as usize;
                connection.forget(bytes);
                let done = !connection.has_unsent();
                if done && connection.wants_shutdown {
                    let _ = connection.socket.shutdown(Shutdown::Write);
                }
                events.push(Event::Sent { handle, bytes, done });
                if !done {
                    self.send_on(handle, events);
                }
            }
            error => match -error {
                libc::EINTR | libc::ECANCELED => self.send_on(handle, events),
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => self.retry_later(handle),
                _ => self.broken(handle, os_error(error), events),
            },
        }
    }

    /// The kernel is out of memory; or the socket is full and its peer has ended its own direction: every
    /// poll of a ring then says that there is news (POLLRDHUP), so that no operation can wait for room.
    fn retry_later(&mut self, handle: Handle) {
        self.retries.push(handle);
        self.retry_at.get_or_insert_with(|| now() + self.config.retry_after);
    }

    fn retry(&mut self, events: &mut Vec<Event>) {
        if self.retry_at.is_some_and(|at| now() < at) {
            return;
        }
        self.retry_at = None;
        for _ in 0..self.retries.len() {
            let Some(handle) = self.retries.pop() else { break };
            self.send_on(handle, events);
        }
    }

    fn send_on(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.stage != Stage::Up || connection.is_sending || !connection.has_unsent() {
            return;
        }
        match connection.send() {
            Some(op) => {
                connection.is_sending = true;
                self.begin(Token::Send(handle), op);
            }
            None => self.broken(handle, TransportError::Unsupported, events),
        }
    }

    // ---- receiving ----

    /// Its receive may have to be begun or ended before the kernel is entered.
    fn list(&mut self, handle: Handle) {
        if let Some(connection) = self.connections.get(handle)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.listed.push(handle);
        }
    }

    /// Begins what is to be begun before the kernel is entered.
    fn prepare(&mut self, events: &mut Vec<Event>) {
        // What comes back to the list waits for the next time.
        for _ in 0..self.listed.len() {
            let Some(handle) = self.listed.pop() else { break };
            if let Some(connection) = self.connections.get(handle) {
                connection.is_listed = false;
                if connection.stage == Stage::Up {
                    self.deliver_backlog(handle, events);
                    self.receive_as_wanted(handle);
                }
            }
        }
        if !self.retries.is_empty() {
            self.retry(events);
        }
        if !self.bell_is_armed && !self.is_hosted {
            self.watch_bell();
        }
        if self.gates_closed {
            self.open_gates();
        }
        self.buffers.refill(&mut self.kernel);
    }

    fn receive_as_wanted(&mut self, handle: Handle) {
        let features = self.kernel.features();
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.wants_cancel() {
            connection.begin_cancel();
            return self.cancel(Token::Receive(handle));
        }
        if connection.input != Input::Open || !matches!(connection.receiving, Receiving::Nothing) {
            return;
        }
        let (fd, phase) = (connection.fd(), connection.phase());
        let (receiving, op) = match &mut connection.want {
            Receive::Pause => return,
            _ if !features.provided_buffers => {
                (Receiving::Poll, Op::PollIn { fd, multishot: false })
            }
            Receive::Land(..) => {
                let want = std::mem::replace(&mut connection.want, Receive::Pause);
                let Receive::Land(mut buffer, len) = want else { return };
                connection.begin_bulk();
                let room = buffer.spare();
                let now = room.len().min(len).min(LAND_BYTES) as u32;
                let into = room.as_mut_ptr();
                (Receiving::Landing(buffer, len), Op::Receive { fd, into, len: now })
            }
            Receive::More if phase != 0 => {
                let mut buffer = self.arena.allot(OWN_BYTES, phase);
                let room = buffer.spare();
                let op = Op::Receive { fd, into: room.as_mut_ptr(), len: room.len() as u32 };
                (Receiving::Own(buffer), op)
            }
            Receive::More => {
                let multishot = features.multishot_receive && !connection.is_bulk();
                let receiving = if multishot { Receiving::Multishot } else { Receiving::Provided };
                (receiving, Op::ReceiveProvided { fd, multishot })
            }
        };
        connection.receiving = receiving;
        self.begin(Token::Receive(handle), op);
    }

    // ---- accepting ----

    fn accepted(
        &mut self,
        listener: u32,
        generation: u32,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        // Ours to close, whoever wanted it: success after a cancel happens.
        let accepted = (completion.result >= 0).then(|| {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it. (test: `the_kernel_agrees`)
            Socket::from(unsafe { OwnedFd::from_raw_fd(completion.result) })
        });
        let Some(slot) = self.listeners.get_mut(listener as usize) else { return };
        let Some(listening) = slot.as_mut().filter(|l| l.generation == generation) else { return };
        listening.is_accepting = completion.more;
        match accepted {
            Some(socket) => {
                listening.gate.accepted();
                if set_up_accepted(&socket, &listening.socket).is_ok() {
                    events.push(Event::Accepted(Listener(listener), socket));
                }
            }
            None if listening.is_leaving => {}
            None => {
                let error = std::io::Error::from_raw_os_error(-completion.result);
                if transport_error(&error) == TransportError::Exhausted {
                    listening.gate.exhausted(listening.socket.socket(), now(), &error);
                    self.gates_closed = true;
                    return;
                }
            }
        }
        if listening.is_leaving {
            if !completion.more {
                self.forget_listener(listener, events);
            }
            return;
        }
        self.accept_on(Listener(listener));
    }

    /// Closes a listener of which nothing is in flight, after a look at what still waits.
    fn forget_listener(&mut self, listener: u32, events: &mut Vec<Event>) {
        let slot = self.listeners.get_mut(listener as usize);
        let Some(listening) = slot.and_then(Option::take) else { return };
        self.shed += listening.gate.shed();
        let waiting = std::iter::from_fn(|| listening.socket.accept_waiting());
        events.extend(waiting.map(|socket| Event::Accepted(Listener(listener), socket)));
    }

    fn accept_from(&mut self, socket: ListenSocket) -> Listener {
        let index = self.listeners.iter().position(Option::is_none);
        let index = index.unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        self.listener_generation += 1;
        self.listeners[index] = Some(Listening {
            socket,
            generation: self.listener_generation & 0x0fff_ffff,
            gate: AcceptGate::new(),
            is_accepting: false,
            is_leaving: false,
        });
        let listener = Listener(index as u32);
        self.accept_on(listener);
        listener
    }

    fn accept_on(&mut self, listener: Listener) {
        let multishot = self.kernel.features().multishot_accept;
        let Some(Some(listening)) = self.listeners.get_mut(listener.0 as usize) else { return };
        if listening.is_accepting || listening.is_leaving {
            return;
        }
        listening.is_accepting = true;
        let token = Token::Accept { listener: listener.0, generation: listening.generation };
        let fd = listening.socket.socket().as_raw_fd();
        self.begin(token, Op::Accept { fd, multishot });
    }

    fn open_gates(&mut self) {
        self.gates_closed = false;
        for index in 0..self.listeners.len() {
            let Some(Some(listening)) = self.listeners.get_mut(index) else { continue };
            match listening.gate.closed_for(now()) {
                Some(_) => self.gates_closed = true,
                None => self.accept_on(Listener(index as u32)),
            }
        }
    }

    /// How long until the first closed gate opens, or is found open by the next reap.
    fn gate_timeout(&mut self) -> Option<Duration> {
        if !self.gates_closed {
            return None;
        }
        let now = now();
        let closed = self.listeners.iter_mut().flatten().filter(|l| !l.is_accepting);
        closed.filter(|l| !l.is_leaving).map(|l| l.gate.closed_for(now).unwrap_or_default()).min()
    }

    /// How long until something is due that no operation tells of.
    fn own_timeout(&mut self) -> Option<Duration> {
        let retry = self.retry_at.map(|at| at.saturating_duration_since(now()));
        [self.gate_timeout(), retry].into_iter().flatten().min()
    }

    /// Parks although another loop hosts the engine: nothing in the ring watches the bell any more.
    fn park_hosted(&mut self, timeout: Option<Duration>) {
        if !self.has_something() {
            let timeout = match (timeout, self.own_timeout()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let mut fds = [PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        }
        self.bell.disarm();
        self.bell.drain();
    }

    /// Begins what is to be begun. Whether something can be reaped then.
    fn has_something(&mut self) -> bool {
        let mut events = std::mem::take(&mut self.done);
        self.prepare(&mut events);
        if self.kernel.wants_enter() {
            self.kernel.enter(Some(Duration::ZERO));
        }
        let completion = self.kernel.next();
        let any = completion.is_some() || !events.is_empty() || !self.listed.is_empty();
        if let Some(completion) = completion {
            self.complete(completion, &mut events);
        }
        self.done = events;
        any
    }

    fn watch_bell(&mut self) {
        self.bell_is_armed = true;
        let fd = self.bell.fd().as_raw_fd();
        self.begin(Token::Bell, Op::PollIn { fd, multishot: true });
    }

    // ---- ends ----

    fn broken(&mut self, handle: Handle, error: TransportError, events: &mut Vec<Event>) {
        if let Some(connection) = self.connections.get(handle)
            && connection.stage == Stage::Up
        {
            connection.stage = Stage::Broken;
            // Ends what is still with the kernel.
            let _ = connection.socket.shutdown(Shutdown::Both);
            events.push(Event::Closed(handle, CloseReason::Transport(error)));
        }
    }

    /// Forgets a connection that is to be closed and of which nothing is with the kernel.
    fn release_if_idle(&mut self, handle: Handle, events: &mut Vec<Event>) {
        if let Some(connection) = self.connections.get(handle)
            && connection.stage == Stage::Closing
            && !connection.is_in_flight()
        {
            drop(self.connections.take(handle));
            events.push(Event::Released(handle));
        }
    }

    /// Cancels everything and waits, for a bounded time, until the kernel has given it back.
    fn end(&mut self) {
        let tokens: Vec<Token> = self
            .connections
            .iter_mut()
            .flat_map(|(handle, _)| {
                [Token::Connect(handle), Token::Receive(handle), Token::Send(handle)]
            })
            .chain(self.listeners.iter().enumerate().filter_map(|(index, listening)| {
                let generation = listening.as_ref()?.generation;
                Some(Token::Accept { listener: index as u32, generation })
            }))
            .chain([Token::Bell])
            .collect();
        tokens.into_iter().for_each(|token| self.cancel(token));
        for (_, connection) in self.connections.iter_mut() {
            connection.stage = Stage::Broken;
        }
        self.listeners.iter_mut().flatten().for_each(|listening| listening.is_leaving = true);
        let until = now() + END_TIMEOUT;
        let mut events = Vec::new();
        while self.in_flight > 0 && now() < until {
            self.kernel.enter(Some(Duration::from_millis(20)));
            while let Some(completion) = self.kernel.next() {
                self.complete(completion, &mut events);
            }
        }
    }
}

impl<K: Kernel> Drop for Uring<K> {
    fn drop(&mut self) {
        self.end();
        if self.in_flight > 0 {
            log::warn!("{} operations did not end: their memory is leaked", self.in_flight);
            self.buffers.leak();
            std::mem::forget(std::mem::take(&mut self.connections));
            std::mem::forget(std::mem::take(&mut self.listeners));
            std::mem::forget(self.bell.clone());
        }
    }
}

impl<K: Kernel> Transport for Uring<K> {
    type Socket = Socket;

    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError> {
        Ok(self.accept_from(ListenSocket::bind(address, self.config.listen)?))
    }

    fn local_address(&self, listener: Listener) -> Option<Address> {
        let listening = self.listeners.get(listener.0 as usize)?.as_ref()?;
        Some(listening.socket.address().clone())
    }

    fn unlisten(&mut self, listener: Listener) {
        let Some(Some(listening)) = self.listeners.get_mut(listener.0 as usize) else { return };
        listening.is_leaving = true;
        if !listening.is_accepting {
            let mut done = std::mem::take(&mut self.done);
            self.forget_listener(listener.0, &mut done);
            self.done = done;
            return;
        }
        let generation = listening.generation;
        self.cancel(Token::Accept { listener: listener.0, generation });
    }

    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError> {
        let (socket, is_up) = connect(address)?;
        let stage = if is_up { Stage::Up } else { Stage::Connecting };
        let handle = self.connections.vacant();
        let connection = Connection::new(socket, stage);
        let fd = connection.fd();
        self.connections.fill(handle, connection);
        if is_up {
            self.done.push(Event::Connected(handle));
            self.list(handle);
        } else {
            self.begin(Token::Connect(handle), Op::PollOut { fd });
        }
        Ok(handle)
    }

    fn adopt(&mut self, socket: Socket) -> Result<Handle, TransportError> {
        let handle = self.connections.vacant();
        self.connections.fill(handle, Connection::new(socket, Stage::Up));
        self.list(handle);
        Ok(handle)
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        let Some(connection) = self.connections.get(handle) else {
            batch.clear();
            return false;
        };
        if connection.stage != Stage::Up {
            batch.clear();
            return false;
        }
        let len = batch.len();
        connection.queue(batch);
        let mut events = std::mem::take(&mut self.done);
        let mut is_sent = false;
        self.sends += 1;
        if self.sends_before < self.config.direct_sends {
            match connection.send_now() {
                Ok(sent) if sent == len => is_sent = true,
                // The rest is an operation.
                Ok(0) => self.send_on(handle, &mut events),
                Ok(bytes) => {
                    events.push(Event::Sent { handle, bytes, done: false });
                    self.send_on(handle, &mut events);
                }
                Err(error) => self.broken(handle, error, &mut events),
            }
        } else {
            self.send_on(handle, &mut events);
        }
        self.done = events;
        is_sent
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        if let Some(connection) = self.connections.get(handle) {
            if connection.input == Input::Told && !matches!(how, Receive::Pause) {
                // Whoever asks again is told again.
                connection.input = Input::Ended;
            }
            connection.want = how;
            self.list(handle);
        }
    }

    fn shutdown(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.has_unsent() {
            connection.wants_shutdown = true;
        } else {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get(handle) else { return };
        let was_connecting = connection.stage == Stage::Connecting;
        let is_receiving = !matches!(connection.receiving, Receiving::Nothing);
        let is_sending = connection.is_sending;
        if was_connecting || is_receiving || is_sending {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        connection.stage = Stage::Closing;
        if was_connecting {
            self.cancel(Token::Connect(handle));
        }
        if is_receiving {
            self.cancel(Token::Receive(handle));
        }
        if is_sending {
            self.cancel(Token::Send(handle));
        }
        if !was_connecting {
            let mut events = std::mem::take(&mut self.done);
            self.release_if_idle(handle, &mut events);
            self.done = events;
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.done);
        self.sends_before = std::mem::take(&mut self.sends);
        self.prepare(events);
        if self.kernel.wants_enter() {
            self.kernel.enter(Some(Duration::ZERO));
        }
        for _ in 0..COMPLETIONS_A_REAP {
            let Some(completion) = self.kernel.next() else { break };
            self.complete(completion, events);
        }
        for event in events.iter() {
            if let Event::Released(handle) = event {
                self.connections.reuse(*handle);
            }
        }
    }
}

impl<K: Kernel> Park for Uring<K> {
    type Bell = Doorbell;

    fn arm(&mut self) {
        self.bell.arm();
    }

    fn park(&mut self, timeout: Option<Duration>) {
        if self.is_hosted {
            return self.park_hosted(timeout);
        }
        let mut events = std::mem::take(&mut self.done);
        self.prepare(&mut events);
        let timeout = match (timeout, self.own_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if events.is_empty() {
            self.kernel.enter(timeout);
        }
        self.done = events;
        self.bell.disarm();
    }

    fn bell(&self) -> Doorbell {
        self.bell.clone()
    }
}

impl<K: Kernel> Handover for Uring<K> {
    fn listen_on(&mut self, socket: Socket) -> Result<Listener, TransportError> {
        Ok(self.accept_from(ListenSocket::from_socket(socket)?))
    }

    fn share(&mut self, listener: Listener) -> Result<Socket, TransportError> {
        let listening = self.listeners.get_mut(listener.0 as usize).and_then(Option::as_mut);
        listening.ok_or(TransportError::BadAddress)?.socket.share()
    }
}

impl<K: Kernel> Hosted for Uring<K> {
    /// The ring's own fd does not become readable while its work is deferred to this thread; an eventfd
    /// that is registered with it does.
    fn host(&mut self) -> Result<(), TransportError> {
        if self.is_hosted {
            return Ok(());
        }
        if !self.kernel.notify(self.bell.fd().as_raw_fd()) {
            return Err(TransportError::Unsupported);
        }
        self.is_hosted = true;
        // The other loop sees the bell by itself.
        self.cancel(Token::Bell);
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    fn rest(&mut self) -> bool {
        // In this order: the kernel writes once for all work that is deferred, so what came before the
        // fd was emptied must be seen below.
        self.bell.drain();
        self.bell.arm();
        !self.has_something()
    }

    fn wake(&mut self) {
        self.bell.disarm();
    }

    fn timeout(&mut self) -> Option<Duration> {
        self.own_timeout()
    }
}

/// The reason of core for the result of an operation that failed.
fn os_error(result: i32) -> TransportError {
    transport_error(&std::io::Error::from_raw_os_error(-result))
}

/// Only accept pauses and the end of the engine are counted by the machine's clock.
fn now() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "an engine may ask the machine")]
    std::time::Instant::now()
}
