//! A ring that does what a script says: operations complete in any order, late, short, cancelled or not,
//! without buffers, and with completions that nobody expects.
//!
//! It touches an operation's memory when the operation completes, not before, as the kernel may. Under
//! AddressSanitizer an owner that lets go too early is found by that.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "a module of tests")]

pub mod world;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::time::Duration;

use ringcall_uring::{Completion, Features, Kernel, Op, Token};
use socket2::Socket;

/// Where decisions come from: a seed, or the bytes of a fuzzer.
pub trait Decide {
    /// A number below `n`, which is not 0.
    fn below(&mut self, n: u32) -> u32;

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// Decisions from a seed (xorshift64*).
#[derive(Debug)]
pub struct Seed(pub u64);

impl Decide for Seed {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32) % n
    }
}

/// Decisions from bytes; zeroes when they are used up, which stands for the ordinary case.
#[derive(Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Decide for Bytes<'_> {
    fn below(&mut self, n: u32) -> u32 {
        let Some((&first, rest)) = self.0.split_first() else { return n - 1 };
        self.0 = rest;
        u32::from(first) % n
    }
}

/// What a socket's other end has to say, and what it was told.
#[derive(Debug, Default)]
pub struct Peer {
    pub incoming: VecDeque<u8>,
    pub outgoing: Vec<u8>,
    /// After `incoming` comes the end of the stream.
    pub has_ended: bool,
    /// Connections that wait to be accepted.
    pub waiting: VecDeque<RawFd>,
    /// The socket's other end, for what the driver receives by system calls.
    pub far: Option<Socket>,
}

#[derive(Debug)]
struct Outstanding {
    token: u64,
    op: Op,
    is_cancelled: bool,
}

#[derive(Debug)]
pub struct Script<D> {
    pub decide: D,
    pub peers: BTreeMap<RawFd, Peer>,
    features: Features,
    outstanding: Vec<Outstanding>,
    provided: VecDeque<(u16, *mut u8, u32)>,
    unpublished: Vec<(u16, *mut u8, u32)>,
    /// Not visible yet: the completion queue is short.
    overflowed: VecDeque<Completion>,
    ready: VecDeque<Completion>,
    /// From now on everything goes well, so that a test can come to an end.
    pub is_tame: bool,
    pub no_buffers: u64,
    /// How many buffers there are: numbers that were ever provided.
    pub numbers: usize,
}

/// How long the completion queue is.
const QUEUE: usize = 4;
/// So much is in a socket that was polled, and less than the driver has room for.
const POLLED_BYTES: u32 = 4096;

impl<D: Decide> Script<D> {
    pub fn new(decide: D, features: Features) -> Script<D> {
        Script {
            decide,
            peers: BTreeMap::new(),
            features,
            outstanding: Vec::new(),
            provided: VecDeque::new(),
            unpublished: Vec::new(),
            overflowed: VecDeque::new(),
            ready: VecDeque::new(),
            is_tame: false,
            no_buffers: 0,
            numbers: 0,
        }
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    fn tell(&mut self, token: u64, result: i32, buffer: Option<u16>, more: bool) {
        self.overflowed.push_back(Completion { token, result, buffer, more });
    }

    /// Lets one operation go on, if it can.
    fn step(&mut self, index: usize) {
        let Outstanding { token, op, is_cancelled } = &self.outstanding[index];
        let (token, op, is_cancelled) = (*token, *op, *is_cancelled);
        // A cancelled operation may still succeed first.
        if is_cancelled
            && (self.is_tame || !self.decide.one_in(3) || matches!(op, Op::PollIn { .. }))
        {
            self.outstanding.swap_remove(index);
            return self.tell(token, -libc::ECANCELED, None, false);
        }
        let goes_wrong = !self.is_tame && self.decide.one_in(12);
        match op {
            Op::ReceiveProvided { fd, multishot } => self.receive(index, fd, multishot, goes_wrong),
            Op::Receive { fd, into, len } => {
                let (n, is_over) = self.available(fd, len, goes_wrong);
                if n == 0 && !is_over {
                    return;
                }
                self.outstanding.swap_remove(index);
                if goes_wrong && n == 0 {
                    return self.tell(token, -libc::EINTR, None, false);
                }
                self.fill(fd, into, n);
                self.tell(token, n as i32, None, false);
            }
            Op::Send { fd, from, len } => {
                self.outstanding.swap_remove(index);
                self.send(token, fd, &[(from, len as usize)], goes_wrong);
            }
            Op::SendMessage { fd, message } => {
                self.outstanding.swap_remove(index);
                // SAFETY: the driver keeps the message until this completion, which is what is tested.
                let message = unsafe { *message };
                let parts: Vec<_> = (0..message.msg_iovlen)
                    .map(|part| {
                        // SAFETY: as above, the vector.
                        let vector = unsafe { message.msg_iov.wrapping_add(part).read() };
                        (vector.iov_base.cast_const().cast(), vector.iov_len)
                    })
                    .collect();
                self.send(token, fd, &parts, goes_wrong);
            }
            Op::Accept { fd, multishot } => {
                let peer = self.peers.entry(fd).or_default();
                let Some(accepted) = peer.waiting.pop_front() else { return };
                let more = multishot && !is_cancelled && (self.is_tame || !self.decide.one_in(4));
                if !more {
                    self.outstanding.swap_remove(index);
                }
                self.tell(token, accepted, None, more);
            }
            Op::PollIn { fd, multishot: false } => {
                let (n, is_over) = self.available(fd, POLLED_BYTES, goes_wrong);
                if n > 0 || is_over {
                    self.outstanding.swap_remove(index);
                    self.hand_over(fd, n, is_over);
                    self.tell(token, i32::from(libc::POLLIN), None, false);
                }
            }
            Op::Write { fd, from, len, offset } => {
                self.outstanding.swap_remove(index);
                self.write(token, fd, (from, len), offset, goes_wrong);
            }
            Op::PollOut { .. } => {
                self.outstanding.swap_remove(index);
                self.tell(token, i32::from(libc::POLLOUT), None, false);
            }
            // The bell is not rung here; cancels end when they are pushed.
            _ => {}
        }
    }

    /// How much arrives now, and whether nothing will any more.
    fn available(&mut self, fd: RawFd, len: u32, goes_wrong: bool) -> (usize, bool) {
        self.take_back(fd);
        let peer = self.peers.entry(fd).or_default();
        let most = peer.incoming.len().min(len as usize) as u32;
        let is_over = peer.has_ended && most == 0;
        let n = match most {
            0 => 0,
            most if self.is_tame => most,
            // Odd lengths, so that streams lose their alignment.
            most if goes_wrong => 1 + self.decide.below(most.min(20)),
            most => 1 + self.decide.below(most),
        };
        (n as usize, is_over)
    }

    /// Puts what arrives into the socket, where a system call finds it.
    fn hand_over(&mut self, fd: RawFd, n: usize, is_over: bool) {
        let peer = self.peers.entry(fd).or_default();
        let bytes: Vec<u8> = peer.incoming.drain(..n).collect();
        let Some(mut far) = peer.far.as_ref() else { return };
        far.write_all(&bytes).expect("a socket has room for so little");
        if is_over {
            far.shutdown(Shutdown::Write).expect("it is connected");
        }
    }

    /// Takes back what was put there and not taken: operations for the same socket begin with it.
    fn take_back(&mut self, fd: RawFd) {
        let peer = self.peers.entry(fd).or_default();
        if peer.far.is_none() {
            return;
        }
        let mut bytes = [0u8; POLLED_BYTES as usize];
        // SAFETY: the memory is ours, and the driver keeps the socket while an operation is on it.
        let n =
            unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        for &byte in bytes[..n.max(0) as usize].iter().rev() {
            peer.incoming.push_front(byte);
        }
    }

    fn fill(&mut self, fd: RawFd, into: *mut u8, n: usize) {
        let peer = self.peers.entry(fd).or_default();
        for (offset, byte) in peer.incoming.drain(..n).enumerate() {
            // SAFETY: the driver lends this memory until the completion, which is what is tested.
            unsafe { into.wrapping_add(offset).write(byte) };
        }
    }

    fn receive(&mut self, index: usize, fd: RawFd, multishot: bool, goes_wrong: bool) {
        let Outstanding { token, is_cancelled, .. } = self.outstanding[index];
        if self.provided.is_empty() {
            // At once, also when there is no data.
            self.no_buffers += 1;
            self.outstanding.swap_remove(index);
            return self.tell(token, -libc::ENOBUFS, None, false);
        }
        let room = self.provided[0].2;
        let (n, is_over) = self.available(fd, room, goes_wrong);
        if n == 0 && !is_over {
            return;
        }
        if is_over {
            self.outstanding.swap_remove(index);
            // Some kernels name a buffer with the end of the stream.
            let buffer = (self.is_tame || self.decide.one_in(2))
                .then(|| self.provided.pop_front().map(|(number, ..)| number))
                .flatten();
            return self.tell(token, 0, buffer, false);
        }
        let Some((number, into, _)) = self.provided.pop_front() else { return };
        self.fill(fd, into, n);
        let more = multishot && !is_cancelled && (self.is_tame || !self.decide.one_in(5));
        if !more {
            self.outstanding.swap_remove(index);
        }
        self.tell(token, n as i32, Some(number), more);
    }

    fn send(&mut self, token: u64, fd: RawFd, parts: &[(*const u8, usize)], goes_wrong: bool) {
        let len: usize = parts.iter().map(|(_, len)| len).sum();
        if goes_wrong {
            let errors = [libc::EINTR, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
            let error = errors[self.decide.below(4) as usize];
            return self.tell(token, -error, None, false);
        }
        let n = if self.is_tame { len } else { 1 + self.decide.below(len as u32) as usize };
        let mut left = n;
        for &(from, len) in parts {
            for offset in 0..len.min(left) {
                // SAFETY: the driver keeps these bytes until the completion, which is what is tested.
                let byte = unsafe { from.wrapping_add(offset).read() };
                self.peers.entry(fd).or_default().outgoing.push(byte);
            }
            left -= len.min(left);
        }
        self.tell(token, n as i32, None, false);
    }

    /// Writes to a real file, of which nobody but the driver knows.
    fn write(
        &mut self,
        token: u64,
        fd: RawFd,
        (from, len): (*const u8, u32),
        offset: u64,
        goes_wrong: bool,
    ) {
        if goes_wrong {
            let errors = [libc::EINTR, libc::EAGAIN, libc::ECANCELED];
            let error = errors[self.decide.below(3) as usize];
            return self.tell(token, -error, None, false);
        }
        let n = if self.is_tame { len } else { 1 + self.decide.below(len) };
        // SAFETY: the driver keeps file and bytes until this completion, which is what is tested.
        let written = unsafe { libc::pwrite(fd, from.cast(), n as usize, offset as libc::off_t) };
        self.tell(token, written as i32, None, false);
    }

    /// A completion that means nothing to anybody.
    fn tell_nonsense(&mut self) {
        let handle = ringcall_core::Handle {
            index: self.decide.below(4),
            generation: 1000 + self.decide.below(1000),
        };
        let token = match self.decide.below(5) {
            4 => Token::Write(handle).pack(),
            0 => Token::Receive(handle).pack(),
            1 => Token::Send(handle).pack(),
            2 => u64::from(self.decide.below(u32::MAX)) << 32 | 0xffff_ffff,
            _ => Token::Connect(handle).pack(),
        };
        // Never a buffer and never a descriptor: those the kernel does not make up.
        let result = -1 - self.decide.below(100) as i32;
        self.tell(token, result, None, true);
    }
}

impl<D: Decide + std::fmt::Debug> Kernel for Script<D> {
    fn features(&self) -> Features {
        self.features
    }

    fn push(&mut self, token: u64, op: Op) {
        let Op::Cancel { token: target } = op else {
            return self.outstanding.push(Outstanding { token, op, is_cancelled: false });
        };
        let found = self.outstanding.iter_mut().find(|other| other.token == target);
        let result = match found {
            Some(other) => {
                other.is_cancelled = true;
                if self.decide.one_in(2) { 0 } else { -libc::EALREADY }
            }
            None => -libc::ENOENT,
        };
        self.tell(token, result, None, false);
    }

    fn wants_enter(&mut self) -> bool {
        true
    }

    fn enter(&mut self, _: Option<Duration>) {
        let steps = if self.is_tame { 64 } else { self.decide.below(8) };
        for _ in 0..steps {
            if self.outstanding.is_empty() {
                break;
            }
            let index = self.decide.below(self.outstanding.len() as u32) as usize;
            self.step(index);
            if !self.is_tame && self.decide.one_in(16) {
                self.tell_nonsense();
            }
        }
        if self.is_tame {
            for index in (0..self.outstanding.len()).rev() {
                if index < self.outstanding.len() {
                    self.step(index);
                }
            }
        }
        while self.ready.len() < QUEUE
            && let Some(completion) = self.overflowed.pop_front()
        {
            self.ready.push_back(completion);
        }
    }

    fn next(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    fn provide(&mut self, number: u16, into: *mut u8, len: u32) {
        self.numbers = self.numbers.max(usize::from(number) + 1);
        self.unpublished.push((number, into, len));
    }

    fn publish(&mut self) {
        self.provided.extend(self.unpublished.drain(..));
    }

    fn notify(&mut self, _: RawFd) -> bool {
        true
    }
}
