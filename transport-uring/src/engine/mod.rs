//! The engine: operations and what comes of them. [`receiving`], [`direct`], [`sending`], [`writing`],
//! [`accepting`] and [`hosting`] have their parts of it.

mod accepting;
mod config;
mod direct;
mod hosting;
mod receiving;
mod sending;
mod writing;

use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use ringcall_buf::{Arena, BLOCK_BYTES};
use ringcall_core::{
    Address, Batch, CloseReason, Handle, Listener, Memory, Receive, Transport, TransportError,
    TransportEvent, Write, Written,
};
use ringcall_net::{
    Doorbell, Hot, ListenSocket, Listeners, Slots, Tally, connect, transport_error,
};
use socket2::Socket;

use self::accepting::Accepting;
pub use self::config::UringConfig;
use self::writing::Writing;
use crate::buffers::Buffers;
use crate::connection::{Connection, Input, Receiving, Stage};
use crate::{Completion, Features, Kernel, Op, Refusal, Ring, Token};

type Event = TransportEvent<Socket>;

/// How many completions one reap takes, so that a turn ends.
const COMPLETIONS_A_REAP: usize = 4096;
/// Behind a wait a reap that has received so many bytes leaves the rest to the next one: what answers them leaves
/// meanwhile, so that the other side need not wait until the last is read. Whoever looks on without waiting takes less
/// at a time anyway.
const BYTES_A_REAP: usize = 32 * 1024;
/// How long a dropped engine waits for its operations to end before it leaks what they use.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The io_uring engine of one thread.
#[derive(Debug)]
pub struct Uring<K: Kernel = Ring> {
    kernel: K,
    bell: Doorbell,
    bell_is_armed: bool,
    /// Another loop waits for the bell's fd, which the kernel writes to as well.
    is_hosted: bool,
    /// Since the last reap.
    has_waited: bool,
    config: UringConfig,
    arena: Arena,
    buffers: Buffers,
    connections: Slots<Connection>,
    /// Writes to files that are with the kernel.
    writings: Slots<Writing>,
    is_ending: bool,
    listeners: Listeners<Accepting>,
    tally: Arc<Tally>,
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
    hot: Hot,
    /// Operations that are with the kernel, cancels not counted.
    in_flight: usize,
}

impl Uring {
    /// An engine without sockets; receive memory comes from `memory`. What the ring uses of the kernel
    /// is what [`Features::probe`] has found. Where there is too little memory to lock, the ring is
    /// smaller than asked for: [`config`](Uring::config) says how large it is.
    ///
    /// # Errors
    /// When a ring cannot be set up here.
    pub fn new(memory: &Memory, features: Features, config: UringConfig) -> Result<Uring, Refusal> {
        let refusal = |error: std::io::Error| Refusal::Os(error.raw_os_error().unwrap_or(0));
        let set_up = |config: &UringConfig| {
            Ring::new(features, config.entries, config.buffers_max.next_power_of_two())
        };
        let (ring, mut config) = config.as_large_as_possible(set_up).map_err(refusal)?;
        config.buffers_max = ring.buffers().unwrap_or(config.buffers_max);
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
        let tally = Arc::new(Tally::default());
        let mut engine = Uring {
            kernel,
            bell: Doorbell::new()?,
            bell_is_armed: false,
            is_hosted: false,
            has_waited: false,
            config,
            arena: Arena::new(pool, BLOCK_BYTES),
            buffers: Buffers::new(pool, config.buffer_bytes, config.buffers, limit),
            connections: Slots::new(),
            writings: Slots::new(),
            is_ending: false,
            listeners: Listeners::new(Arc::clone(&tally)),
            tally,
            listener_generation: 0,
            listed: Vec::new(),
            retries: Vec::new(),
            retry_at: None,
            done: Vec::new(),
            sends: 0,
            sends_before: 0,
            hot: Hot::default(),
            in_flight: 0,
        };
        engine.buffers.refill(&mut engine.kernel);
        engine.watch_bell();
        Ok(engine)
    }

    /// Its settings, which may be less than what was asked for.
    #[must_use]
    pub fn config(&self) -> &UringConfig {
        &self.config
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

    /// What it has met so far.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
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
            Token::Write(writing) => self.written(writing, completion.result, events),
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
        self.reopen();
        self.buffers.refill(&mut self.kernel);
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

    /// Lets the places of those of whom these tell that they are released be used again.
    fn reuse_released(&mut self, told: &[Event]) {
        for event in told {
            if let Event::Released(handle) = event {
                self.connections.reuse(*handle);
            }
        }
    }

    /// Cancels everything and waits, for a bounded time, until the kernel has given it back.
    fn end(&mut self) {
        let tokens: Vec<Token> =
            self.connections
                .iter_mut()
                .flat_map(|(handle, _)| {
                    [Token::Connect(handle), Token::Receive(handle), Token::Send(handle)]
                })
                .chain(self.listeners.iter_mut().map(|(Listener(listener), listening)| {
                    Token::Accept { listener, generation: listening.state.generation }
                }))
                .chain(self.writings.iter_mut().map(|(writing, _)| Token::Write(writing)))
                .chain([Token::Bell])
                .collect();
        tokens.into_iter().for_each(|token| self.cancel(token));
        for (_, connection) in self.connections.iter_mut() {
            connection.stage = Stage::Broken;
        }
        self.listeners.iter_mut().for_each(|(_, listening)| listening.state.is_leaving = true);
        self.is_ending = true;
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
            std::mem::forget(std::mem::take(&mut self.writings));
            std::mem::forget(std::mem::take(&mut self.listeners));
            std::mem::forget(self.bell.clone());
        }
    }
}

impl<K: Kernel> Transport for Uring<K> {
    type Socket = Socket;

    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError> {
        let socket = ListenSocket::bind(address, self.config.listen)?;
        Ok(self.accept_from(socket))
    }

    fn local_address(&self, listener: Listener) -> Option<Address> {
        self.listeners.local_address(listener)
    }

    fn unlisten(&mut self, listener: Listener) {
        self.leave(listener);
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
        self.send_batch(handle, batch)
    }

    fn can_file(&self) -> bool {
        true
    }

    fn write(&mut self, handle: Handle, write: Write) -> Option<Written> {
        self.begin_write(handle, write)
    }

    fn receive_unaligned(&mut self, handle: Handle) {
        if let Some(connection) = self.connections.get(handle) {
            connection.be_unaligned();
        }
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        if let Some(connection) = self.connections.get(handle) {
            if connection.input == Input::Told && !matches!(how, Receive::Pause) {
                // Whoever asks again is told again.
                connection.input = Input::Ended;
            }
            if let Receive::Land(_, len) = &how {
                connection.window.expect(&connection.socket, *len);
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
        let told = events.len();
        events.append(&mut self.done);
        self.reuse_released(&events[told..]);
        self.sends_before = std::mem::take(&mut self.sends);
        self.prepare(events);
        if self.receive_directly(events) {
            return;
        }
        if self.kernel.wants_enter() {
            self.kernel.enter(Some(Duration::ZERO));
            self.hot.look();
        }
        let before = events.len();
        let has_waited = std::mem::take(&mut self.has_waited);
        let mut left = if has_waited { BYTES_A_REAP } else { usize::MAX };
        for _ in 0..COMPLETIONS_A_REAP {
            if left == 0 {
                break;
            }
            let Some(completion) = self.kernel.next() else { break };
            let told = events.len();
            self.complete(completion, events);
            left = events[told..].iter().fold(left, |left, event| match event {
                Event::Received(_, chunk) => left.saturating_sub(chunk.len()),
                _ => left,
            });
        }
        self.choose_hot(&events[before..]);
        self.reuse_released(&events[before..]);
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
