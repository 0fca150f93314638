//! A [`Transport`] over the simulated network. It speaks both dialects: that of readiness, where a reap
//! reads what is there and a send often ends at once; and that of completion, where operations complete
//! late, short, cancelled, without memory, and their buffers come back when they do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use ringcall_core::{
    Address, Batch, Chunk, ChunkMut, CloseReason, Handle, Listener, Memory, Receive, Segment,
    Transport, TransportError, TransportEvent,
};

use crate::clock::{MICROS, MILLIS, Time};
use crate::knobs::Fault;
use crate::net::{Connected, LinkId, Net, Readable};
use crate::rng::Rng;

/// The most that one receive brings.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024 - 16;
/// How many receives of a socket the kernel has at most.
const RECEIVES_MAX: usize = 4;
/// How soon an operation is tried again for which the kernel had no memory.
const RETRY_AFTER: Time = 10 * MILLIS;

/// How a transport works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Readiness,
    Completion,
}

impl Dialect {
    pub(crate) fn draw(rng: &mut Rng) -> Dialect {
        rng.pick(&[Dialect::Readiness, Dialect::Completion])
    }
}

/// The sockets of one life of a node.
#[derive(Debug)]
pub struct SimTransport {
    net: Rc<RefCell<Net>>,
    node: usize,
    memory: Memory,
    dialect: Dialect,
    sockets: Vec<Option<Socket>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// How many things it has told.
    pub(crate) told: u64,
    /// Its process has ended.
    is_dead: bool,
}

#[derive(Debug)]
struct Socket {
    stage: Stage,
    link: LinkId,
    end: usize,
    want: Receive,
    has_ended: bool,
    received: u64,
    /// Receives that have completed, and when that is noticed.
    completed: VecDeque<(Time, Chunk)>,
    /// What came when nobody wanted it.
    backlog: VecDeque<Chunk>,
    unsent: VecDeque<Segment>,
    /// When the operations that are under way can complete.
    send_at: Time,
    receive_at: Time,
    wants_shutdown: bool,
    release_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Up,
    Broken,
    Closing,
}

/// An accepted connection that nobody has adopted.
#[derive(Debug)]
pub struct Accepted(LinkId);

type Event = TransportEvent<Accepted>;

impl SimTransport {
    pub(crate) fn new(
        net: Rc<RefCell<Net>>,
        node: usize,
        memory: Memory,
        dialect: Dialect,
    ) -> SimTransport {
        SimTransport {
            net,
            node,
            memory,
            dialect,
            sockets: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            told: 0,
            is_dead: false,
        }
    }

    /// Which connection of the network it is, and which end of it.
    pub(crate) fn link(&self, handle: Handle) -> Option<(LinkId, usize)> {
        self.socket(handle).map(|socket| (socket.link, socket.end))
    }

    /// The node at the other end.
    pub(crate) fn peer_of(&self, link: LinkId, end: usize) -> usize {
        self.net.borrow().links[link].nodes[1 - end]
    }

    /// The process ends, and its machine closes its sockets; or the machine does, and nobody is told. Whatever
    /// is asked of it afterwards comes to nothing.
    pub fn die(&mut self, silently: bool) {
        self.is_dead = true;
        let mut net = self.net.borrow_mut();
        net.ports[self.node].is_listening = false;
        let waiting = std::mem::take(&mut net.ports[self.node].accept_queue);
        let open = self.sockets.iter().flatten().filter(|socket| socket.stage != Stage::Closing);
        let open: Vec<_> = open.map(|socket| (socket.link, socket.end)).collect();
        for (link, end) in open.into_iter().chain(waiting.into_iter().map(|link| (link, 1))) {
            net.links[link].is_disturbed = true;
            // What it had not sent is lost.
            net.links[link].is_cut = true;
            if silently { net.vanish(link, end) } else { net.close(link, end) }
        }
    }

    /// An accepted connection that nobody wants.
    pub fn turn_away(&mut self, accepted: Accepted) {
        self.net.borrow_mut().close(accepted.0, 1);
    }

    fn socket(&self, handle: Handle) -> Option<&Socket> {
        let is_it = self.generations.get(handle.index as usize) == Some(&handle.generation);
        self.sockets.get(handle.index as usize)?.as_ref().filter(|_| is_it)
    }

    fn socket_mut(&mut self, handle: Handle) -> Option<&mut Socket> {
        let is_it = self.generations.get(handle.index as usize) == Some(&handle.generation)
            && !self.is_dead;
        self.sockets.get_mut(handle.index as usize)?.as_mut().filter(|_| is_it)
    }

    fn open(&mut self, stage: Stage, link: LinkId, end: usize) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.generations.push(0);
            self.sockets.len() as u32 - 1
        });
        self.generations[index as usize] += 1;
        self.sockets[index as usize] = Some(Socket {
            stage,
            link,
            end,
            want: Receive::More,
            has_ended: false,
            received: 0,
            completed: VecDeque::new(),
            backlog: VecDeque::new(),
            unsent: VecDeque::new(),
            send_at: 0,
            receive_at: 0,
            wants_shutdown: false,
            release_at: 0,
        });
        let mut net = self.net.borrow_mut();
        let now = net.now;
        net.turn_at(now + MICROS, self.node);
        Handle { index, generation: self.generations[index as usize] }
    }

    fn look_at(&mut self, index: usize, events: &mut Vec<Event>) {
        let Some(socket) = &mut self.sockets[index] else { return };
        let handle = Handle { index: index as u32, generation: self.generations[index] };
        let mut net = self.net.borrow_mut();
        let net = &mut *net;
        let look = Look { handle, node: self.node, dialect: self.dialect, memory: &self.memory };
        let outcome = match socket.stage {
            Stage::Connecting => look.connect(socket, net, events),
            Stage::Up => {
                look.send(socket, net, events).and_then(|()| look.receive(socket, net, events))
            }
            Stage::Broken => Ok(()),
            Stage::Closing if socket.release_at <= net.now => {
                self.sockets[index] = None;
                self.free.push(index as u32);
                return events.push(Event::Released(handle));
            }
            Stage::Closing => return net.turn_at(socket.release_at, self.node),
        };
        if let Err(error) = outcome {
            socket.stage = Stage::Broken;
            socket.unsent.clear();
            socket.want = Receive::Pause;
            events.push(Event::Closed(handle, CloseReason::Transport(error)));
        }
    }
}

/// One look at a socket.
struct Look<'a> {
    handle: Handle,
    node: usize,
    dialect: Dialect,
    memory: &'a Memory,
}

impl Look<'_> {
    fn connect(
        &self,
        socket: &mut Socket,
        net: &mut Net,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        match net.links[socket.link].connected {
            Connected::At(at) if at <= net.now => {
                if net.is_reset(socket.link, socket.end) {
                    return Err(TransportError::Reset);
                }
                socket.stage = Stage::Up;
                events.push(Event::Connected(self.handle));
                net.turn_at(net.now + MICROS, self.node);
                Ok(())
            }
            Connected::Refused(at) if at <= net.now => Err(TransportError::Refused),
            _ => Ok(()),
        }
    }

    /// Goes on with what was not sent, as far as there is room.
    fn send(
        &self,
        socket: &mut Socket,
        net: &mut Net,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        let handle = self.handle;
        if socket.unsent.is_empty() || socket.send_at > net.now {
            return Ok(());
        }
        let bytes = write(socket, net, self.dialect, self.node)?;
        let done = socket.unsent.is_empty();
        if done && socket.wants_shutdown {
            net.shutdown(socket.link, socket.end);
        }
        if bytes > 0 || done {
            events.push(Event::Sent { handle, bytes, done });
        }
        Ok(())
    }

    fn receive(
        &self,
        socket: &mut Socket,
        net: &mut Net,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        let readable = match net.readable(socket.link, socket.end) {
            Ok(readable) => readable,
            Err(_) => return Err(TransportError::Reset),
        };
        match self.dialect {
            Dialect::Readiness => self.receive_now(socket, net, readable, events),
            Dialect::Completion => {
                self.complete(socket, net, readable);
                self.tell(socket, net, readable, events);
            }
        }
        Ok(())
    }

    /// Reads what is there, once.
    fn receive_now(
        &self,
        socket: &mut Socket,
        net: &mut Net,
        readable: Readable,
        events: &mut Vec<Event>,
    ) {
        match (readable, &socket.want) {
            (_, Receive::Pause) | (Readable::Nothing | Readable::Later(_), _) => {}
            (Readable::End, _) => {
                socket.want = Receive::Pause;
                events.push(Event::InputEnd(self.handle));
            }
            (Readable::Bytes(n), Receive::More) => {
                let chunk = self.take_chunk(socket, net, n);
                events.push(Event::Received(self.handle, chunk));
            }
            (Readable::Bytes(n), Receive::Land(..)) => self.land(socket, net, n, events),
        }
    }

    /// What the kernel does with the operations that it has.
    fn complete(&self, socket: &mut Socket, net: &mut Net, readable: Readable) {
        let Readable::Bytes(n) = readable else { return };
        // A receive into a body's memory begins when nothing else is under way.
        let may = matches!(socket.want, Receive::More) && socket.completed.len() < RECEIVES_MAX;
        if !may {
            return;
        }
        if socket.receive_at > net.now {
            return net.turn_at(socket.receive_at, self.node);
        }
        if self.is_put_off(socket, net) {
            return;
        }
        let chunk = self.take_chunk(socket, net, n);
        let mut at = net.now;
        if net.strikes(Fault::LateCompletion) {
            at += net.rng.log_uniform(MICROS, 20 * MILLIS);
            net.turn_at(at, self.node);
        }
        let last = socket.completed.back().map_or(0, |(at, _)| *at);
        socket.completed.push_back((at.max(last), chunk));
    }

    /// Tells what has completed, as far as it is wanted.
    fn tell(
        &self,
        socket: &mut Socket,
        net: &mut Net,
        readable: Readable,
        events: &mut Vec<Event>,
    ) {
        if socket.completed.len() == RECEIVES_MAX {
            // Then none was begun for what is readable: it is when one of them has been told.
            let first = socket.completed.front().map_or(0, |(at, _)| *at);
            net.turn_at(first.max(net.now) + MICROS, self.node);
        }
        while let Some((at, _)) = socket.completed.front()
            && *at <= net.now
        {
            let (_, chunk) = socket.completed.pop_front().expect("just seen");
            socket.backlog.push_back(chunk);
        }
        match &mut socket.want {
            Receive::Pause => {}
            Receive::More => {
                let handle = self.handle;
                events.extend(socket.backlog.drain(..).map(|chunk| Event::Received(handle, chunk)));
            }
            Receive::Land(buffer, len) if !socket.backlog.is_empty() => {
                let n = fill_from(&mut socket.backlog, buffer, *len);
                self.landed(socket, n, events);
            }
            Receive::Land(..) => {
                if let (Readable::Bytes(n), true) = (readable, socket.completed.is_empty()) {
                    if socket.receive_at > net.now {
                        net.turn_at(socket.receive_at, self.node);
                    } else if !self.is_put_off(socket, net) {
                        self.land(socket, net, n, events);
                    }
                }
            }
        }
        let is_over = readable == Readable::End
            && socket.backlog.is_empty()
            && socket.completed.is_empty()
            && !matches!(socket.want, Receive::Pause);
        if is_over && !std::mem::replace(&mut socket.has_ended, true) {
            socket.want = Receive::Pause;
            events.push(Event::InputEnd(self.handle));
        }
    }

    /// Whether an operation was cancelled, or found no memory: it is begun again later.
    fn is_put_off(&self, socket: &mut Socket, net: &mut Net) -> bool {
        let Some(at) = put_off(net, self.node) else { return false };
        socket.receive_at = at;
        true
    }

    fn take_chunk(&self, socket: &mut Socket, net: &mut Net, n: usize) -> Chunk {
        let n = short(net, Fault::ShortReceive, n.min(CHUNK_BYTES));
        let mut phase = (socket.received.wrapping_add(8) % 16) as usize;
        if net.strikes(Fault::Misaligned) {
            phase = (phase + 1) % 16;
        }
        let mut buffer = self.memory.pool().take(n + phase);
        buffer.extend_from_slice(&[0; 16][..phase]);
        net.read(socket.link, socket.end, n, |bytes| buffer.extend_from_slice(bytes));
        socket.received += n as u64;
        // There may be more.
        net.turn_at(net.now + MICROS, self.node);
        let mut chunk = buffer.freeze();
        chunk.advance(phase);
        chunk
    }

    /// Reads into the memory of a body.
    fn land(&self, socket: &mut Socket, net: &mut Net, n: usize, events: &mut Vec<Event>) {
        let Receive::Land(buffer, len) = &mut socket.want else { return };
        let n = short(net, Fault::ShortReceive, n.min(*len).min(buffer.missing()));
        net.read(socket.link, socket.end, n, |bytes| buffer.extend_from_slice(bytes));
        socket.received += n as u64;
        net.turn_at(net.now + MICROS, self.node);
        self.landed(socket, n, events);
    }

    fn landed(&self, socket: &mut Socket, n: usize, events: &mut Vec<Event>) {
        if let Receive::Land(buffer, _) = std::mem::replace(&mut socket.want, Receive::Pause) {
            events.push(Event::Landed(self.handle, buffer, n));
        }
    }
}

fn fill_from(backlog: &mut VecDeque<Chunk>, buffer: &mut ChunkMut, len: usize) -> usize {
    let mut n = 0;
    while let Some(chunk) = backlog.front_mut()
        && n < len
    {
        let part = chunk.split_to(chunk.len().min(len - n));
        buffer.extend_from_slice(&part);
        n += part.len();
        if chunk.is_empty() {
            backlog.pop_front();
        }
    }
    n
}

/// All of it, or a part if that fault strikes.
fn short(net: &mut Net, fault: Fault, n: usize) -> usize {
    if n > 1 && net.strikes(fault) { net.rng.log_uniform(1, n as u64) as usize } else { n }
}

/// When an operation is begun again that was cancelled now, or found no memory, if one of these faults strikes.
fn put_off(net: &mut Net, node: usize) -> Option<Time> {
    let after = if net.strikes(Fault::NoBuffers) {
        RETRY_AFTER
    } else if net.strikes(Fault::Cancelled) {
        MICROS
    } else {
        return None;
    };
    let at = net.now + after;
    net.turn_at(at, node);
    Some(at)
}

/// Writes as far as the network takes it.
fn write(
    socket: &mut Socket,
    net: &mut Net,
    dialect: Dialect,
    node: usize,
) -> Result<usize, TransportError> {
    if net.strikes(Fault::SendError) {
        net.reset(socket.link);
        return Err(TransportError::Os(32));
    }
    if dialect == Dialect::Completion
        && let Some(at) = put_off(net, node)
    {
        socket.send_at = at;
        return Ok(0);
    }
    let all = socket.unsent.iter().map(Segment::len).sum();
    let most = short(net, Fault::ShortSend, all);
    let n = net.write(socket.link, socket.end, &mut socket.unsent, most);
    let n = n.map_err(|_| TransportError::Reset)?;
    if most < all && n > 0 {
        net.turn_at(net.now + MICROS, node);
    }
    Ok(n)
}

fn port_of(address: &Address) -> Result<usize, TransportError> {
    match address {
        Address::Tcp(address) => Ok(usize::from(address.port())),
        _ => Err(TransportError::BadAddress),
    }
}

/// Where a node listens.
pub(crate) fn address(node: usize) -> Address {
    Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, node as u16)))
}

impl Transport for SimTransport {
    type Socket = Accepted;

    fn listen(&mut self, _: &Address) -> Result<Listener, TransportError> {
        if self.is_dead {
            return Err(TransportError::Unsupported);
        }
        self.net.borrow_mut().ports[self.node].is_listening = true;
        Ok(Listener(0))
    }

    fn local_address(&self, _: Listener) -> Option<Address> {
        let net = self.net.borrow();
        let port = &net.ports[self.node];
        (port.is_listening || !port.accept_queue.is_empty()).then(|| address(self.node))
    }

    fn unlisten(&mut self, _: Listener) {
        self.net.borrow_mut().ports[self.node].is_listening = false;
    }

    fn connect(&mut self, address: &Address) -> Result<Handle, TransportError> {
        if self.is_dead {
            return Err(TransportError::Unsupported);
        }
        let to = port_of(address)?;
        if to >= self.net.borrow().ports.len() {
            return Err(TransportError::BadAddress);
        }
        let link = self.net.borrow_mut().connect(self.node, to);
        Ok(self.open(Stage::Connecting, link, 0))
    }

    fn adopt(&mut self, socket: Accepted) -> Result<Handle, TransportError> {
        Ok(self.open(Stage::Up, socket.0, 1))
    }

    fn send(&mut self, handle: Handle, batch: &mut Batch) -> bool {
        let (net, node, dialect) = (Rc::clone(&self.net), self.node, self.dialect);
        let Some(socket) = self.socket_mut(handle).filter(|socket| socket.stage == Stage::Up)
        else {
            batch.clear();
            return false;
        };
        batch.drain_into(&mut socket.unsent);
        let mut net = net.borrow_mut();
        let is_direct = dialect == Dialect::Readiness || net.rng.one_in(2);
        socket.send_at = net.now;
        if !is_direct {
            let late = net.strikes(Fault::LateCompletion);
            let after = if late { net.rng.log_uniform(MICROS, 20 * MILLIS) } else { MICROS };
            socket.send_at = net.now + after;
            net.turn_at(socket.send_at, node);
            return false;
        }
        match write(socket, &mut net, Dialect::Readiness, node) {
            Ok(_) if socket.unsent.is_empty() => true,
            // An error is told by the next reap, as with epoll.
            Ok(_) | Err(_) => {
                let now = net.now;
                net.turn_at(now + MICROS, node);
                false
            }
        }
    }

    fn receive(&mut self, handle: Handle, how: Receive) {
        let (net, node) = (Rc::clone(&self.net), self.node);
        if let Some(socket) = self.socket_mut(handle) {
            // Whoever asks again is told again.
            socket.has_ended = false;
            socket.want = how;
            let mut net = net.borrow_mut();
            let now = net.now;
            net.turn_at(now + MICROS, node);
        }
    }

    fn shutdown(&mut self, handle: Handle) {
        let net = Rc::clone(&self.net);
        let Some(socket) = self.socket_mut(handle) else { return };
        if socket.unsent.is_empty() {
            net.borrow_mut().shutdown(socket.link, socket.end);
        } else {
            socket.wants_shutdown = true;
        }
    }

    fn close(&mut self, handle: Handle) {
        let (net, node, dialect) = (Rc::clone(&self.net), self.node, self.dialect);
        let Some(socket) = self.socket_mut(handle) else { return };
        let mut net = net.borrow_mut();
        net.close(socket.link, socket.end);
        socket.stage = Stage::Closing;
        let mut at = net.now + MICROS;
        if dialect == Dialect::Completion && net.strikes(Fault::LateCompletion) {
            // Its memory stays with the kernel until the last operation has ended.
            at += net.rng.log_uniform(MICROS, 20 * MILLIS);
        } else {
            socket.unsent.clear();
            socket.want = Receive::Pause;
        }
        socket.release_at = at;
        net.turn_at(at, node);
    }

    fn reap(&mut self, events: &mut Vec<Event>) {
        if self.is_dead {
            return;
        }
        let before = events.len();
        while let Some(link) = {
            let node = self.node;
            self.net.borrow_mut().accept(node)
        } {
            events.push(Event::Accepted(Listener(0), Accepted(link)));
        }
        for index in 0..self.sockets.len() {
            self.look_at(index, events);
        }
        self.told += (events.len() - before) as u64;
    }
}
