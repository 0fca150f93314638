//! The engine: epoll, its sockets, and what it has to tell.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ringcall_buf::BLOCK_BYTES;
use ringcall_core::{
    Address, Batch, CloseReason, Handle, Listener, Memory, Park, Receive, Transport,
    TransportError, TransportEvent,
};
use ringcall_net::{
    Accepted, Doorbell, Handover, Hosted, Hot, ListenOptions, ListenSocket, Listeners, Slots,
    Tally, connect, transport_error,
};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use socket2::Socket;

use crate::connection::{Connection, Input, Room, Stage, Watching};

type Event = TransportEvent<Socket>;

/// How many readiness events one wait takes.
const EVENTS: usize = 256;
/// How many connections a listener accepts in one turn.
const ACCEPTS: usize = 64;
/// Set in the data of an epoll event that is about a listener; all bits set: the bell.
const LISTENER: u64 = 1 << 63;
const BELL: u64 = u64::MAX;
/// What listeners are watched for: connections, and that there will be none.
const LISTENING: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

/// Settings of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpollConfig {
    /// How to listen.
    pub listen: ListenOptions,
    /// Size of a receive block: at most so much is received in one call, four times as much from a connection that fills
    /// it, within a part of what memory there may be. 64 KiB by default.
    pub receive_bytes: usize,
}

impl Default for EpollConfig {
    fn default() -> EpollConfig {
        EpollConfig { listen: ListenOptions::default(), receive_bytes: BLOCK_BYTES }
    }
}

/// The epoll engine of one thread.
#[derive(Debug)]
pub struct Epoll {
    epoll: OwnedFd,
    bell: Doorbell,
    config: EpollConfig,
    room: Room,
    connections: Slots<Connection>,
    listeners: Listeners<()>,
    tally: Arc<Tally>,
    /// What happened at once, to be told by the next reap.
    done: Vec<Event>,
    ready: Ready,
    /// Whether `ready` was filled by a park and not reaped yet.
    has_ready: bool,
    /// Whether the last wait found something, so that there may be more.
    is_listed: bool,
    hot: Hot,
}

/// Readiness events; their type cannot be shown.
struct Ready(Vec<epoll::Event>);

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events", self.0.len())
    }
}

impl Epoll {
    /// An engine without sockets; receive memory comes from `memory`.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn new(memory: &Memory, config: EpollConfig) -> Result<Epoll, TransportError> {
        let fail = |errno: Errno| transport_error(&errno.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(fail)?;
        let bell = Doorbell::new().map_err(|error| transport_error(&error))?;
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, bell.fd(), data, epoll::EventFlags::IN).map_err(fail)?;
        let tally = Arc::new(Tally::default());
        Ok(Epoll {
            epoll,
            bell,
            config,
            room: Room::new(memory.pool(), config.receive_bytes),
            connections: Slots::new(),
            listeners: Listeners::new(Arc::clone(&tally)),
            tally,
            done: Vec::new(),
            ready: Ready(Vec::with_capacity(EVENTS)),
            has_ready: false,
            is_listed: true,
            hot: Hot::default(),
        })
    }

    /// What it has met so far.
    #[must_use]
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        self.ready.0.clear();
        // Interrupted, or a timeout that the kernel cannot count: the caller looks and waits again.
        let _ = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.ready.0),
            timeout.as_ref(),
        );
        self.has_ready = true;
        self.is_listed = !self.ready.0.is_empty();
        self.hot.look();
    }

    /// Receives from the one connection that something has been coming from. Now and then, and sooner if that has
    /// nothing, epoll must be asked.
    fn receive_directly(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(handle) = self.hot.candidate() else { return false };
        let connection = self.connections.get(handle);
        if !connection.is_some_and(|connection| connection.is_only_received_from()) {
            self.hot.forget();
            return false;
        }
        self.hot.count();
        // What was received is on epoll's list all the same.
        self.is_listed = true;
        let before = events.len();
        self.readable(handle, epoll::EventFlags::IN, events);
        self.watch(handle);
        if events.len() == before {
            self.hot.was_in_vain();
        }
        true
    }

    /// Which connection is hot, after a wait.
    fn choose_hot(&mut self) {
        match &*self.ready.0 {
            [] => {}
            [event] if event.data.u64() & (BELL | LISTENER) == 0 => {
                self.hot.only(handle_of(*event))
            }
            _ => self.hot.forget(),
        }
    }

    // ---- readiness ----

    fn dispatch(&mut self, event: epoll::Event, events: &mut Vec<Event>) {
        let (data, flags) = (event.data.u64(), event.flags);
        if data == BELL {
            return;
        }
        if data & LISTENER != 0 {
            return self.accept(Listener(data as u32), flags, events);
        }
        let handle = handle_of(event);
        // A stale event for a handle that was closed earlier in this turn finds nothing.
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.stage == Stage::Connecting {
            self.connected(handle, events);
        } else {
            if flags.contains(epoll::EventFlags::OUT) {
                self.writable(handle, events);
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.readable(handle, flags, events);
            }
        }
        self.watch(handle);
    }

    fn connected(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        match connection.socket.take_error() {
            Ok(None) => {
                connection.stage = Stage::Up;
                events.push(Event::Connected(handle));
            }
            Ok(Some(error)) | Err(error) => {
                self.broken(handle, transport_error(&error), events);
            }
        }
    }

    fn writable(&mut self, handle: Handle, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        if !connection.is_sending() {
            return;
        }
        match connection.send_on(&self.tally) {
            Ok(bytes) => {
                events.extend(unreadable(handle, connection));
                let done = !connection.is_sending();
                if done && connection.wants_shutdown {
                    let _ = connection.socket.shutdown(Shutdown::Write);
                }
                events.push(Event::Sent { handle, bytes, done });
            }
            Err(error) => self.broken(handle, error, events),
        }
    }

    fn readable(&mut self, handle: Handle, flags: epoll::EventFlags, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.get(handle) else { return };
        match connection.receive(&mut self.room, &self.tally) {
            Ok(Input::Chunk(chunk)) => {
                self.hot.received(chunk.len());
                events.push(Event::Received(handle, chunk));
            }
            Ok(Input::Landed(buffer, n)) => {
                self.hot.forget();
                events.push(Event::Landed(handle, buffer, n));
            }
            Ok(Input::End) => {
                connection.set_receiving(Receive::Pause);
                events.push(Event::InputEnd(handle));
            }
            // A paused connection is told of a reset all the same, or epoll would tell it for ever.
            Ok(Input::Nothing) if flags.contains(epoll::EventFlags::ERR) => {
                let error = connection.socket.take_error().ok().flatten();
                let error = error.map_or(TransportError::Reset, |error| transport_error(&error));
                self.broken(handle, error, events);
            }
            Ok(Input::Nothing) => {
                connection.disturb(flags.contains(epoll::EventFlags::HUP));
            }
            Err(error) => self.broken(handle, error, events),
        }
    }

    fn accept(&mut self, listener: Listener, flags: epoll::EventFlags, events: &mut Vec<Event>) {
        if !self.listeners.is_open(listener) {
            return;
        }
        for _ in 0..ACCEPTS {
            let Some(listening) = self.listeners.get(listener) else { return };
            let accepted = listening.socket.socket().accept().map(|(socket, _)| socket);
            // A unix socket that was shut down says that nobody waits, and is readable for ever.
            let accepted = match accepted {
                Err(_) if flags.contains(epoll::EventFlags::RDHUP) => Err(Errno::INVAL.into()),
                accepted => accepted,
            };
            match self.listeners.accepted(listener, accepted, now()) {
                Accepted::Connection(socket) => events.push(Event::Accepted(listener, socket)),
                Accepted::Useless => {}
                Accepted::Nobody => return,
                Accepted::Closed => return self.watch_listener(listener, false),
            }
        }
    }

    fn reopen(&mut self) {
        while self.listeners.any_closed()
            && let Some(listener) = self.listeners.reopened(now())
        {
            self.watch_listener(listener, true);
        }
    }

    /// How long until the first closed gate opens.
    fn gate_timeout(&mut self) -> Option<Duration> {
        // The machine is not asked for the time in vain.
        if self.listeners.any_closed() { self.listeners.timeout(now()) } else { None }
    }

    fn broken(&mut self, handle: Handle, error: TransportError, events: &mut Vec<Event>) {
        if let Some(connection) = self.connections.get(handle)
            && connection.stage != Stage::Broken
        {
            connection.stage = Stage::Broken;
            events.push(Event::Closed(handle, CloseReason::Transport(error)));
        }
    }

    // ---- interest ----

    /// Tells epoll what the connection waits for, if that has changed.
    fn watch(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get(handle) else { return };
        let wanted = connection.wanted();
        if wanted == connection.watching {
            return;
        }
        let was_registered = std::mem::replace(&mut connection.watching, wanted).registered;
        let (socket, data) = (&connection.socket, data(handle));
        let changed = match (was_registered, wanted.registered) {
            (true, true) => epoll::modify(&self.epoll, socket, data, flags(wanted)),
            (false, true) => epoll::add(&self.epoll, socket, data, flags(wanted)),
            (_, false) => epoll::delete(&self.epoll, socket),
        };
        if let Err(errno) = changed {
            let mut done = std::mem::take(&mut self.done);
            self.broken(handle, transport_error(&errno.into()), &mut done);
            self.done = done;
        }
    }

    fn watch_listener(&mut self, listener: Listener, is_watched: bool) {
        let Some(listening) = self.listeners.get(listener) else { return };
        // That a listener was shut down is told whether it was asked for or not; once, like this.
        let flags = if is_watched { LISTENING } else { epoll::EventFlags::ONESHOT };
        let socket = listening.socket.socket();
        let _ = epoll::modify(&self.epoll, socket, listener_data(listener), flags);
    }

    fn watch_new(&mut self, socket: ListenSocket) -> Result<Listener, TransportError> {
        let listener = self.listeners.add(socket, ());
        let added = self.listeners.get(listener).map(|listening| {
            let (socket, data) = (listening.socket.socket(), listener_data(listener));
            epoll::add(&self.epoll, socket, data, LISTENING)
        });
        if let Some(Err(errno)) = added {
            self.listeners.remove(listener);
            return Err(transport_error(&errno.into()));
        }
        Ok(listener)
    }

    fn register(&mut self, mut connection: Connection) -> Result<Handle, TransportError> {
        let handle = self.connections.vacant();
        connection.watching = connection.wanted();
        let flags = flags(connection.watching);
        epoll::add(&self.epoll, &connection.socket, data(handle), flags)
            .map_err(|errno| transport_error(&errno.into()))?;
        self.connections.fill(handle, connection);
        Ok(handle)
    }
}

impl Transport for Epoll {
    type Socket = Socket;

    fn listen(&mut self, address: &Address) -> Result<Listener, TransportError> {
        self.watch_new(ListenSocket::bind(address, self.config.listen)?)
    }

    fn local_address(&self, listener: Listener) -> Option<Address> {
        self.listeners.local_address(listener)
    }

    fn unlisten(&mut self, listener: Listener) {
        if let Some(listening) = self.listeners.remove(listener) {
            let waiting = std::iter::from_fn(|| listening.socket.accept_waiting());
            self.done.extend(waiting.map(|socket| Event::Accepted(listener, socket)));
            // Closing does not end the interest while others have the socket, too.
            let _ = epoll::delete(&self.epoll, listening.socket.socket());
        }
    }

    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError> {
        let (socket, is_up) = connect(address)?;
        let stage = if is_up { Stage::Up } else { Stage::Connecting };
        let handle = self.register(Connection::new(socket, stage))?;
        if is_up {
            self.done.push(Event::Connected(handle));
        }
        Ok(handle)
    }

    fn adopt(&mut self, socket: Socket) -> Result<Handle, TransportError> {
        self.register(Connection::new(socket, Stage::Up))
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        let Some(connection) = self.connections.get(handle) else {
            batch.clear();
            return false;
        };
        if connection.stage == Stage::Broken {
            batch.clear();
            return false;
        }
        let len = batch.len();
        let sent = connection.send(batch, &self.tally);
        let told = self.done.len();
        self.done.extend(unreadable(handle, connection));
        match sent {
            Ok(true) if self.done.len() > told => {
                self.done.push(Event::Sent { handle, bytes: len, done: true });
                false
            }
            Ok(true) => true,
            Ok(false) => {
                self.watch(handle);
                false
            }
            Err(error) => {
                batch.clear();
                let mut done = std::mem::take(&mut self.done);
                self.broken(handle, error, &mut done);
                self.done = done;
                self.watch(handle);
                false
            }
        }
    }

    fn can_file(&self) -> bool {
        true
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        if let Some(connection) = self.connections.get(handle) {
            connection.set_receiving(how);
            self.watch(handle);
        }
    }

    fn shutdown(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get(handle) else { return };
        if connection.is_sending() {
            connection.wants_shutdown = true;
        } else {
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, handle: Handle) {
        // Dropping the socket closes it and takes it out of epoll; nothing of it can be in flight.
        if self.connections.take(handle).is_some() {
            self.done.push(Event::Released(handle));
        }
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        self.reopen();
        self.room.begin();
        if !self.has_ready && !self.receive_directly(events) {
            self.wait(Some(Duration::ZERO));
        }
        self.has_ready = false;
        self.choose_hot();
        let mut ready = std::mem::take(&mut self.ready.0);
        for event in ready.drain(..) {
            self.dispatch(event, events);
        }
        self.ready.0 = ready;
        for event in self.done.drain(..) {
            if let Event::Released(handle) = event {
                self.connections.reuse(handle);
            }
            events.push(event);
        }
    }
}

impl Park for Epoll {
    type Bell = Doorbell;

    fn arm(&mut self) {
        self.bell.arm();
    }

    fn park(&mut self, timeout: Option<Duration>) {
        if self.done.is_empty() && !self.has_ready {
            let timeout = match (timeout, self.gate_timeout()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            self.wait(timeout);
        }
        self.bell.disarm();
    }

    fn bell(&self) -> Doorbell {
        self.bell.clone()
    }
}

impl Handover for Epoll {
    fn listen_on(&mut self, socket: Socket) -> Result<Listener, TransportError> {
        self.watch_new(ListenSocket::from_socket(socket)?)
    }

    fn share(&mut self, listener: Listener) -> Result<Socket, TransportError> {
        let listening = self.listeners.get(listener);
        listening.ok_or(TransportError::BadAddress)?.socket.share()
    }
}

impl Hosted for Epoll {
    fn host(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn rest(&mut self) -> bool {
        self.bell.arm();
        // A socket that was readable stays on epoll's list until a wait finds that it is not any more,
        // and while something is on the list the fd of epoll is readable and need not change.
        if self.is_listed && !self.has_ready {
            self.wait(Some(Duration::ZERO));
            self.has_ready = !self.ready.0.is_empty();
        }
        self.done.is_empty() && !self.has_ready
    }

    fn wake(&mut self) {
        self.bell.disarm();
    }

    fn timeout(&mut self) -> Option<Duration> {
        self.gate_timeout()
    }
}

/// Ranges of files that could not be sent since the last time.
fn unreadable(handle: Handle, connection: &mut Connection) -> impl Iterator<Item = Event> {
    std::iter::from_fn(move || {
        let (owner, error) = connection.unsent.pop_unreadable()?;
        Some(Event::Unreadable { handle, owner, error })
    })
}

fn handle_of(event: epoll::Event) -> Handle {
    let data = event.data.u64();
    Handle { index: data as u32, generation: (data >> 32) as u32 }
}

fn data(handle: Handle) -> epoll::EventData {
    // Generations are below 2^31, so this never looks like a listener.
    epoll::EventData::new_u64(u64::from(handle.generation) << 32 | u64::from(handle.index))
}

fn listener_data(listener: Listener) -> epoll::EventData {
    epoll::EventData::new_u64(LISTENER | u64::from(listener.0))
}

fn flags(watching: Watching) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, watching.input);
    flags.set(epoll::EventFlags::OUT, watching.output);
    flags
}

/// Only accept pauses are counted by the machine's clock.
fn now() -> std::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "an engine may ask the machine")]
    std::time::Instant::now()
}
