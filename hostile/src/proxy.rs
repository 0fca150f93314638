//! A proxy in user space that does to a byte stream what networks do: delay, chunks, changed bytes, a reset at any
//! byte, a freeze, a trickle.
//!
//! What happens to a connection follows from the seed, its number and its direction, so that a failure can be
//! repeated as far as bytes go; when they are read is up to the machine.
#![expect(clippy::disallowed_methods, reason = "its threads may sleep: they are the network")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringcall_core::{Entropy, SplitMix64};
use rustix::net::sockopt::set_socket_linger;

/// What is done to connections that are made from now on. Each knob alone; `None` is not at all.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Faults {
    /// Each piece is held back for this long, and what is behind it, too.
    pub delay: Option<Duration>,
    /// Pieces have 1 to so many bytes.
    pub chunk_bytes: Option<usize>,
    /// One byte in so many is changed, on average.
    pub corrupt_one_in: Option<u64>,
    /// Both directions are reset behind one of the first so many bytes of either.
    pub reset_within: Option<u64>,
    /// Behind one of the first so many bytes of a direction nothing goes on for so long.
    pub freeze: Option<(u64, Duration)>,
    /// So many bytes a second at most; 1 is a trickle.
    pub bytes_per_s: Option<u64>,
}

/// A proxy in front of one address; dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    seed: u64,
    faults: Mutex<Faults>,
    /// To cut them off.
    links: Mutex<Vec<Weak<Link>>>,
    made: AtomicU64,
    is_over: AtomicBool,
}

impl Proxy {
    /// Listens at a port of its own on this machine, and connects to `target` for each connection.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(target: SocketAddr, seed: u64) -> io::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            seed,
            faults: Mutex::default(),
            links: Mutex::default(),
            made: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Ok(Proxy { shared, address, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Faults of the connections that are made from now on; those that there are keep theirs.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().expect(UNPOISONED) = faults;
    }

    /// How many connections were made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.links().len()
    }

    /// Ends all connections that are open.
    pub fn cut(&self) {
        for link in self.links() {
            link.ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.shared.links.lock().expect(UNPOISONED).iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.cut();
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            // Out of descriptors, or gone again: the next one may do.
            if client.and_then(|client| self.relay(client)).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// A thread for each direction.
    fn relay(self: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(self.target)?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(NOTICED_WITHIN))?;
        }
        let link = Arc::new(Link { ends: [client, server], is_reset: AtomicBool::new(false) });
        {
            let mut links = self.links.lock().expect(UNPOISONED);
            links.retain(|link| link.strong_count() > 0);
            links.push(Arc::downgrade(&link));
        }
        let faults = self.faults.lock().expect(UNPOISONED).clone();
        for from in 0..2 {
            let rng = SplitMix64::new(self.seed ^ (number << 1) ^ from as u64);
            let mut way = Way::new(Arc::clone(&link), from, faults.clone(), rng);
            thread::spawn(move || way.run());
        }
        Ok(())
    }
}

const UNPOISONED: &str = "nobody panics with it";
/// How long a write that is stuck may not notice that its connection was reset.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);

/// Both sockets of a connection. They close when both directions are done with them.
#[derive(Debug)]
struct Link {
    ends: [TcpStream; 2],
    is_reset: AtomicBool,
}

impl Link {
    /// RST to both sides, which a socket with linger 0 sends when it is closed.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::Relaxed);
        for end in &self.ends {
            let _ = set_socket_linger(end, Some(Duration::ZERO));
            // Says nothing, but wakes whoever reads.
            let _ = end.shutdown(Shutdown::Read);
        }
    }

    fn is_reset(&self) -> bool {
        self.is_reset.load(Ordering::Relaxed)
    }
}

/// One direction of a connection.
struct Way {
    link: Arc<Link>,
    from: usize,
    faults: Faults,
    rng: SplitMix64,
    passed: u64,
    reset_at: Option<u64>,
    freeze_at: Option<u64>,
    corrupt_at: Option<u64>,
}

impl Way {
    fn new(link: Arc<Link>, from: usize, faults: Faults, mut rng: SplitMix64) -> Way {
        let mut mark = |within: Option<u64>| within.map(|within| 1 + rng.below(within));
        let reset_at = mark(faults.reset_within);
        let freeze_at = mark(faults.freeze.map(|(within, _)| within));
        let corrupt_at = mark(faults.corrupt_one_in.map(|one_in| one_in * 2));
        Way { link, from, faults, rng, passed: 0, reset_at, freeze_at, corrupt_at }
    }

    /// Until either side has ended, or is to be reset.
    fn run(&mut self) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let piece = self.piece(buffer.len());
            let Ok(len @ 1..) = (&self.link.ends[self.from]).read(&mut buffer[..piece]) else {
                break;
            };
            self.pause(len as u64);
            self.corrupt(&mut buffer[..len]);
            if self.forward(&buffer[..len]).is_err() {
                break;
            }
            self.passed += len as u64;
            if self.reset_at == Some(self.passed) {
                return self.link.reset();
            }
        }
        if !self.link.is_reset() {
            let _ = self.link.ends[1 - self.from].shutdown(Shutdown::Write);
        }
    }

    /// How many bytes to read at most: pieces end where something is to happen.
    fn piece(&mut self, most: usize) -> usize {
        let chunk = self.faults.chunk_bytes.map(|bytes| 1 + self.rng.below(bytes as u64));
        let tenth = self.faults.bytes_per_s.map(|bytes| (bytes / 10).max(1));
        let ahead = |mark: Option<u64>| mark?.checked_sub(self.passed).filter(|left| *left > 0);
        let marks = [ahead(self.reset_at), ahead(self.freeze_at)];
        let limits = [chunk, tenth].into_iter().chain(marks).flatten();
        limits.min().map_or(most, |least| most.min(least as usize))
    }

    fn pause(&mut self, len: u64) {
        if let Some(delay) = self.faults.delay {
            thread::sleep(delay);
        }
        if let Some(rate) = self.faults.bytes_per_s {
            thread::sleep(Duration::from_secs_f64(len as f64 / rate as f64));
        }
        if let (Some(at), Some((_, time))) = (self.freeze_at, self.faults.freeze)
            && self.passed >= at
        {
            self.freeze_at = None;
            thread::sleep(time);
        }
    }

    fn corrupt(&mut self, bytes: &mut [u8]) {
        let (Some(one_in), Some(at)) = (self.faults.corrupt_one_in, &mut self.corrupt_at) else {
            return;
        };
        while let Some(byte) = at.checked_sub(self.passed).and_then(|at| bytes.get_mut(at as usize))
        {
            *byte ^= 1 << self.rng.below(8);
            *at += 1 + self.rng.below(one_in * 2);
        }
    }

    fn forward(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.link.ends[1 - self.from]).write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.link.is_reset() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
