//! Connections over a scripted ring: what their users and peers do, and what must hold.

use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use ringcall_core::{
    Batch, CloseReason, Handle, Memory, MemoryLimits, ObjectError, Receive, Segment, SendQueue,
    Transport, TransportEvent, Written,
};
use ringcall_net::SharedFile;
use ringcall_uring::{Features, Uring, UringConfig};
use socket2::{Domain, Socket, Type};

use super::{Decide, Peer, Script};

const FILE_LEN: usize = 3000;

fn content() -> Vec<u8> {
    (0..FILE_LEN).map(|i| (i / 7) as u8).collect()
}

/// A file with this content, and without a name.
pub fn file(content: &[u8]) -> SharedFile {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringcall-s-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    (&file).write_all(content).unwrap();
    SharedFile::new(file).unwrap()
}

/// A connection as its user sees it.
pub struct User {
    handle: Handle,
    fd: i32,
    /// The peer's end, so that the socket is a real one.
    other: Socket,
    /// What it will have received and sent in the end.
    expected: Vec<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Bytes of a batch that the transport holds.
    sending: Option<usize>,
    is_landing: bool,
    is_paused: bool,
    has_ended: bool,
    is_closing: bool,
    is_released: bool,
}

pub struct World<D: Decide + Debug> {
    pub engine: Uring<Script<D>>,
    pub memory: Memory,
    pub decide: D,
    pub users: Vec<User>,
    batch: Batch,
    /// Ranges of it are sent.
    file: SharedFile,
    pub written: Vec<Written>,
    pub events: Vec<TransportEvent<Socket>>,
}

impl<D: Decide + Debug> World<D> {
    /// `decide` says what is done, `script` what comes of it.
    pub fn new(decide: D, script: D, features: Features) -> World<D> {
        let memory = Memory::new(MemoryLimits::default());
        let script = Script::new(script, features);
        let mut config = UringConfig::default();
        config.buffer_bytes = 512;
        config.buffers = 2;
        config.buffers_max = 8;
        config.direct_sends = 0;
        config.retry_after = std::time::Duration::ZERO;
        let engine = Uring::over(script, &memory, config).unwrap();
        World {
            engine,
            memory,
            decide,
            users: Vec::new(),
            batch: Batch::new(1 << 20),
            file: file(&content()),
            written: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn open(&mut self) {
        let (ours, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        ours.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        let fd = ours.as_raw_fd();
        // The number may have been another connection's.
        let far = Some(other.try_clone().unwrap());
        self.engine.kernel_mut().peers.insert(fd, Peer { far, ..Peer::default() });
        let handle = self.engine.adopt(ours).unwrap();
        assert!(self.users.iter().all(|user| user.is_released || user.handle != handle));
        self.users.push(User {
            handle,
            fd,
            other,
            expected: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            sending: None,
            is_landing: false,
            is_paused: false,
            has_ended: false,
            is_closing: false,
            is_released: false,
        });
    }

    /// One random thing that a user or a peer does.
    pub fn act(&mut self) {
        if self.users.len() < 6 && self.decide.one_in(8) {
            return self.open();
        }
        let living: Vec<usize> =
            (0..self.users.len()).filter(|&i| !self.users[i].is_closing).collect();
        if living.is_empty() {
            return self.open();
        }
        let index = living[self.decide.below(living.len() as u32) as usize];
        match self.decide.below(10) {
            0..=3 => self.peer_sends(index),
            4..=6 => self.send(index),
            7 => self.pause_or_resume(index),
            8 if self.decide.one_in(6) => self.close(index),
            9 if self.decide.one_in(6) => {
                let fd = self.users[index].fd;
                self.engine.kernel_mut().peers.entry(fd).or_default().has_ended = true;
            }
            _ => {}
        }
    }

    pub fn peer_sends(&mut self, index: usize) {
        let len = 1 + self.decide.below(2000) as usize;
        self.peer_sends_bytes(index, len);
    }

    pub fn peer_sends_bytes(&mut self, index: usize, len: usize) {
        let first = self.decide.below(256) as u8;
        let bytes: Vec<u8> = (0..len).map(|i| first.wrapping_add((i / 3) as u8)).collect();
        let user = &mut self.users[index];
        let peer = self.engine.kernel_mut().peers.entry(user.fd).or_default();
        if !peer.has_ended {
            peer.incoming.extend(&bytes);
            user.expected.extend(&bytes);
        }
    }

    fn send(&mut self, index: usize) {
        if self.users[index].sending.is_some() {
            return;
        }
        for _ in 0..1 + self.decide.below(5) {
            let len = 1 + self.decide.below(700) as usize;
            if self.decide.one_in(4) {
                self.push_range(index, len);
                continue;
            }
            let bytes = vec![self.decide.below(256) as u8; len];
            self.users[index].sent.extend(&bytes);
            self.batch.push(Segment::Local(self.memory.pool().copy(&bytes)));
        }
        let len = self.batch.len();
        let user = &mut self.users[index];
        if !self.engine.send(user.handle, &mut self.batch) {
            user.sending = Some(len);
        }
        assert!(self.batch.is_empty());
        self.take_direct();
    }

    /// A range of the file, which may end before the range does: then come zeros.
    fn push_range(&mut self, index: usize, len: usize) {
        let offset = self.decide.below(FILE_LEN as u32) as usize;
        let mut bytes = content();
        bytes.resize(FILE_LEN + len, 0);
        self.users[index].sent.extend(&bytes[offset..offset + len]);
        self.batch.push(Segment::External(self.file.range(offset as u64, len)));
    }

    /// What was sent by system calls is at the real sockets' other ends. Operations for the same connection
    /// begin behind it.
    fn take_direct(&mut self) {
        for user in &mut self.users {
            let mut bytes = [0; 64 * 1024];
            while let Ok(n @ 1..) = user.other.read(&mut bytes) {
                let peer = self.engine.kernel_mut().peers.entry(user.fd).or_default();
                peer.outgoing.extend(&bytes[..n]);
            }
        }
    }

    fn pause_or_resume(&mut self, index: usize) {
        let user = &mut self.users[index];
        if user.is_landing {
            return;
        }
        let how = match (user.is_paused, self.decide.below(3)) {
            (false, 0) => Receive::Pause,
            (_, 1) => {
                user.is_landing = true;
                let len = 1 + self.decide.below(3000) as usize;
                // More room than is wanted: the body goes on in another frame.
                Receive::Land(self.memory.pool().take(len + 100), len)
            }
            _ => Receive::More,
        };
        user.is_paused = matches!(how, Receive::Pause);
        self.engine.receive(user.handle, how);
    }

    fn close(&mut self, index: usize) {
        self.users[index].is_closing = true;
        self.engine.close(self.users[index].handle);
    }

    pub fn reap(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.engine.reap(&mut events);
        for event in events.drain(..) {
            self.take(event);
        }
        self.events = events;
        self.take_direct();
    }

    pub fn handle(&self, index: usize) -> Handle {
        self.users[index].handle
    }

    fn user(&mut self, handle: Handle) -> &mut User {
        let user = self.users.iter_mut().find(|user| user.handle == handle);
        let user = user.expect("events are about connections that exist");
        assert!(!user.is_released, "nothing comes after Released");
        user
    }

    fn take(&mut self, event: TransportEvent<Socket>) {
        match event {
            TransportEvent::Received(handle, chunk) => {
                let user = self.user(handle);
                assert!(!user.is_paused && !user.is_landing && !user.has_ended);
                user.received.extend_from_slice(&chunk);
            }
            TransportEvent::Landed(handle, buffer, n) => {
                let user = self.user(handle);
                assert!(user.is_landing && n > 0 && buffer.filled_len() == n);
                user.received.extend_from_slice(buffer.filled());
                user.is_landing = false;
                self.engine.receive(handle, Receive::More);
            }
            TransportEvent::InputEnd(handle) => {
                let user = self.user(handle);
                user.has_ended = true;
                user.is_landing = false;
            }
            TransportEvent::Sent { handle, bytes, done } => {
                let user = self.user(handle);
                let left = user.sending.expect("something was being sent") - bytes;
                assert_eq!(done, left == 0);
                user.sending = (!done).then_some(left);
            }
            TransportEvent::Closed(handle, reason) => {
                self.user(handle);
                panic!("nothing is broken here: {reason:?}", reason = reason as CloseReason);
            }
            TransportEvent::Unreadable { handle, error, .. } => {
                assert_eq!(error, ObjectError::Ended);
                assert!(self.user(handle).sending.is_some(), "told before the batch is done");
            }
            TransportEvent::Written(_, written) => self.written.push(written),
            TransportEvent::Released(handle) => {
                let user = self.user(handle);
                assert!(user.is_closing);
                user.is_released = true;
            }
            // Nobody adopts it, so it is closed.
            TransportEvent::Accepted(..) => {}
            other => panic!("not expected: {other:?}"),
        }
    }

    /// Everything goes well from here on: whatever is under way comes to its end.
    pub fn settle(&mut self) {
        self.engine.kernel_mut().is_tame = true;
        for index in 0..self.users.len() {
            let user = &mut self.users[index];
            if !user.is_closing && !user.is_landing {
                user.is_paused = false;
                self.engine.receive(user.handle, Receive::More);
            }
        }
        for _ in 0..400 {
            self.reap();
        }
        for user in &self.users {
            if user.is_closing {
                assert!(user.is_released, "a closed connection is released");
                assert!(user.expected.starts_with(&user.received));
                continue;
            }
            let peer = &self.engine.kernel_mut().peers[&user.fd];
            assert!(user.received == user.expected, "what was sent arrives, once and in order");
            assert_eq!(user.has_ended, peer.has_ended);
            assert!(user.sending.is_none());
            assert!(peer.outgoing == user.sent, "what is sent leaves in order");
        }
    }
}
