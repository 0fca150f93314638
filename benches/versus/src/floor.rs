//! The floor: bytes there and back over bare sockets, as many as ringcall puts on the wire, and as many
//! at a time. What a framework takes beyond this is its own.

#![expect(clippy::disallowed_methods, reason = "measures")]

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use ringcall::WaitPolicy;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::SockRef;

use crate::Result;
use crate::cases::Case;
use crate::meter::{self, Measured, Watch, mismatch};
use crate::ours::wire_bytes;
use crate::payload::{COMPARED_WHOLE_MAX, bytes, compare_bytes};
use crate::subjects::announce;

/// The most that one receive takes. Smaller than what is in flight, so that both sides work at the same
/// time instead of in turns.
fn receive_bytes(frame: usize) -> usize {
    (16 * frame).clamp(32 << 10, (64 << 10).max(frame / 4))
}

/// What is sent, over and over: few enough bytes to stay in the cache, and not as many as a whole number
/// of frames.
const PATTERN_BYTES: usize = (16 << 10) - 8;
const SEND_PARTS_MAX: usize = 16;

pub(crate) fn serve(case: &Case, wait: WaitPolicy) -> Result<()> {
    let size = receive_bytes(wire_bytes(case.message)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(&[listener.local_addr()?], "tcp")?;
    let mut links = Vec::new();
    for _ in 0..case.connections {
        let (socket, _) = listener.accept()?;
        set_up(&socket, size)?;
        links.push(Echo { socket, buffer: vec![0; size], start: 0, end: 0 });
    }
    match drive(&mut links, wait, || false) {
        Err(error) if error.is::<Gone>() => Ok(()),
        other => other,
    }
}

pub(crate) fn call(
    case: &Case,
    wait: WaitPolicy,
    servers: &[SocketAddr],
    watch: Watch,
) -> Result<Measured> {
    let frame = wire_bytes(case.message)?;
    let mut links = Vec::new();
    for index in 0..case.connections {
        let socket = TcpStream::connect(servers[0])?;
        set_up(&socket, receive_bytes(frame))?;
        links.push(Calls::new(socket, frame, case, index));
    }
    meter::begin(case, watch)?;
    let now = Instant::now();
    for link in &mut links {
        link.send(now)?;
    }
    drive(&mut links, wait, meter::is_over)?;
    meter::finish()
}

// ---- the loop of both sides ----

trait Link {
    fn socket(&self) -> &TcpStream;

    /// Whether there is something that could not be sent yet.
    fn has_more(&self) -> bool;

    /// Receives what is there, or waits for something if it may, and sends what is to be sent. Says
    /// whether there was anything to receive.
    fn turn(&mut self, flags: RecvFlags) -> Result<bool>;
}

fn drive<L: Link>(links: &mut [L], wait: WaitPolicy, is_over: impl Fn() -> bool) -> Result<()> {
    match links {
        [link] => drive_one(link, wait, is_over),
        links => drive_many(links, wait, is_over),
    }
}

/// Without asking which socket is ready: there is one.
fn drive_one<L: Link>(link: &mut L, wait: WaitPolicy, is_over: impl Fn() -> bool) -> Result<()> {
    while !is_over() {
        if wait == WaitPolicy::Spin {
            link.turn(RecvFlags::DONTWAIT)?;
        } else if !link.has_more() {
            link.turn(RecvFlags::empty())?;
        } else if !link.turn(RecvFlags::DONTWAIT)? && link.has_more() {
            let both = PollFlags::IN | PollFlags::OUT;
            poll(&mut [PollFd::new(link.socket(), both)], None)?;
        }
    }
    Ok(())
}

fn drive_many<L: Link>(
    links: &mut [L],
    wait: WaitPolicy,
    is_over: impl Fn() -> bool,
) -> Result<()> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, link) in links.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&ready, link.socket(), data, epoll::EventFlags::IN)?;
    }
    let mut events = Vec::with_capacity(links.len());
    let now = Default::default();
    let timeout = if wait == WaitPolicy::Spin { Some(&now) } else { None };
    while !is_over() {
        events.clear();
        epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), timeout)?;
        for event in &events {
            let link = &mut links[event.data.u64() as usize];
            link.turn(RecvFlags::DONTWAIT)?;
            // Small frames, one at a time on each socket: there is always room for them.
            while link.has_more() {
                link.turn(RecvFlags::DONTWAIT)?;
            }
        }
    }
    Ok(())
}

/// As ringcall has its sockets over loopback. The kernel does not have them so by itself, so a floor with the kernel's own
/// would lie above the house.
fn set_up(socket: &TcpStream, receive_bytes: usize) -> Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    ringcall_net::set_up_loopback(&socket);
    ringcall_net::Window::default().expect(&socket, receive_bytes);
    Ok(())
}

/// How many bytes, or none if it would have to wait.
fn unless_blocked(done: rustix::io::Result<usize>) -> Result<usize> {
    match done {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        // It has left while replies were on their way.
        Err(Errno::CONNRESET | Errno::PIPE) => Err(Gone.into()),
        other => Ok(other?),
    }
}

fn receive(socket: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> Result<usize> {
    match recv(socket, buffer, flags) {
        Ok((0, _)) => Err(Gone.into()),
        other => unless_blocked(other.map(|(len, _)| len)),
    }
}

/// The other side has ended the connection.
#[derive(Debug)]
struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side has gone")
    }
}

impl std::error::Error for Gone {}

// ---- the server ----

/// Sends what it receives, while it receives more: a ring, so that both directions flow at once.
struct Echo {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What is to be sent begins and ends here, counted without end.
    start: usize,
    end: usize,
}

impl Link for Echo {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn has_more(&self) -> bool {
        self.start < self.end
    }

    fn turn(&mut self, flags: RecvFlags) -> Result<bool> {
        let size = self.buffer.len();
        if self.start == self.end {
            // The front of the buffer is in the cache.
            (self.start, self.end) = (0, 0);
        }
        let at = self.end % size;
        let room = (size - (self.end - self.start)).min(size - at);
        let received = match room {
            0 => 0,
            _ => receive(&self.socket, &mut self.buffer[at..at + room], flags)?,
        };
        self.end += received;
        if self.has_more() {
            let at = self.start % size;
            let len = (self.end - self.start).min(size - at);
            let sent = send(&self.socket, &self.buffer[at..at + len], SendFlags::DONTWAIT);
            self.start += unless_blocked(sent)?;
        }
        Ok(received > 0)
    }
}

// ---- the client ----

/// Keeps so many frames in flight.
struct Calls {
    socket: TcpStream,
    frame: usize,
    in_flight: u64,
    pattern: Vec<u8>,
    /// Bytes, counted without end.
    sent: u64,
    received: u64,
    /// When frames that are in flight and timed were sent.
    timed: VecDeque<(u64, Instant)>,
    stride: u64,
    buffer: Vec<u8>,
}

impl Calls {
    fn new(socket: TcpStream, frame: usize, case: &Case, index: usize) -> Calls {
        Calls {
            socket,
            frame,
            in_flight: case.in_flight as u64,
            pattern: bytes(PATTERN_BYTES, index),
            sent: 0,
            received: 0,
            timed: VecDeque::new(),
            stride: case.stride(),
            buffer: vec![0; receive_bytes(frame)],
        }
    }

    /// How many bytes may have been sent by now.
    fn allowed(&self) -> u64 {
        let frame = self.frame as u64;
        (self.received / frame + self.in_flight) * frame
    }

    /// So many bytes of the stream from somewhere on, in parts.
    fn expected(&self, from: u64, mut len: usize) -> impl Iterator<Item = &[u8]> {
        let mut at = (from % PATTERN_BYTES as u64) as usize;
        std::iter::from_fn(move || {
            let part = &self.pattern[at..PATTERN_BYTES.min(at + len)];
            (at, len) = (0, len - part.len());
            (!part.is_empty()).then_some(part)
        })
    }

    fn send(&mut self, now: Instant) -> Result<()> {
        let len = (self.allowed() - self.sent) as usize;
        let mut parts = [IoSlice::new(&[]); SEND_PARTS_MAX];
        let mut count = 0;
        for (part, bytes) in parts.iter_mut().zip(self.expected(self.sent, len)) {
            *part = IoSlice::new(bytes);
            count += 1;
        }
        let mut none = SendAncillaryBuffer::default();
        let sent = sendmsg(&self.socket, &parts[..count], &mut none, SendFlags::DONTWAIT);
        let before = self.sent.div_ceil(self.frame as u64);
        self.sent += unless_blocked(sent)? as u64;
        let begun = before..self.sent.div_ceil(self.frame as u64);
        let timed = begun.filter(|number| number.is_multiple_of(self.stride));
        self.timed.extend(timed.map(|number| (number, now)));
        Ok(())
    }

    /// Compares what arrived with what was sent.
    fn compare(&self, len: usize) -> Result<()> {
        let mut reply = &self.buffer[..len];
        for sent in self.expected(self.received, len) {
            let (part, rest) = reply.split_at(sent.len());
            reply = rest;
            // As for everybody else: large messages are not compared byte by byte.
            match self.frame <= COMPARED_WHOLE_MAX {
                true if part != sent => return Err(mismatch()),
                true => {}
                false => compare_bytes(part, sent)?,
            }
        }
        Ok(())
    }
}

impl Link for Calls {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn has_more(&self) -> bool {
        self.sent < self.allowed()
    }

    fn turn(&mut self, flags: RecvFlags) -> Result<bool> {
        let len = receive(&self.socket, &mut self.buffer, flags)?;
        if len > 0 {
            self.compare(len)?;
            let before = self.received / self.frame as u64;
            self.received += len as u64;
            let ended = self.received / self.frame as u64;
            let now = Instant::now();
            let latencies = std::iter::from_fn(|| {
                let (number, start) = *self.timed.front()?;
                (number < ended).then(|| {
                    self.timed.pop_front();
                    now - start
                })
            });
            meter::done_many(ended - before, latencies, now);
        }
        if self.has_more() {
            self.send(Instant::now())?;
        }
        Ok(len > 0)
    }
}
