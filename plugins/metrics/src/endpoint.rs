//! A page for Prometheus, on a listener of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Metrics;

/// How long somebody may take to ask and to read the answer, all in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a question may be.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Answers `GET /metrics` with what was counted, on a thread and a listener of its own, until it is dropped.
///
/// Nothing listens unless a program asks for it, and then for callers on this machine only: the page tells who
/// calls what. One question is answered at a time, within a second, whoever asks.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens at an address of this machine that others do not reach: `127.0.0.1:9090`, or port 0 for any.
    ///
    /// # Errors
    /// When the address is not a loopback address, see [`exposed`](Endpoint::exposed), or cannot be used.
    pub fn start(metrics: &Metrics, at: impl ToSocketAddrs) -> io::Result<Endpoint> {
        let addresses: Vec<SocketAddr> = at.to_socket_addrs()?.collect();
        if let Some(public) = addresses.iter().find(|address| !address.ip().is_loopback()) {
            let why = format!("{public} can be reached by others: `Endpoint::exposed` allows that");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Endpoint::listen(metrics, TcpListener::bind(&addresses[..])?)
    }

    /// The same at any address. Whoever reaches it can read it: keep it inside.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn exposed(metrics: &Metrics, at: impl ToSocketAddrs) -> io::Result<Endpoint> {
        Endpoint::listen(metrics, TcpListener::bind(at)?)
    }

    fn listen(metrics: &Metrics, listener: TcpListener) -> io::Result<Endpoint> {
        let address = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (metrics, ended) = (metrics.clone(), Arc::clone(&is_over));
        let thread = thread::Builder::new()
            .name("ringcall-metrics".into())
            .spawn(move || serve(&listener, &metrics, &ended))?;
        Ok(Endpoint { address, is_over, thread: Some(thread) })
    }

    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Whoever waits for a connection gets one.
        let mut wake = self.address;
        if wake.ip().is_unspecified() {
            wake.set_ip(if wake.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        let woken = TcpStream::connect_timeout(&wake, PATIENCE);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, metrics: &Metrics, is_over: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if is_over.load(Ordering::Acquire) {
            return;
        }
        let answered = match accepted {
            Ok((stream, _)) => answer(stream, metrics),
            Err(error) => {
                // Without a descriptor left the next one fails as well, at once and until somebody closes one.
                pause();
                Err(error)
            }
        };
        if let Err(error) = answered {
            log::debug!("a question for metrics was not answered: {error}");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which is no shard")]
fn pause() {
    thread::sleep(PAUSE);
}

/// A connection that is given up when its time is over, however often something comes or goes in between.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    #[expect(clippy::disallowed_methods, reason = "sockets know no other time than the machine's")]
    fn new(stream: TcpStream) -> Timed {
        Timed { stream, until: Instant::now() + PATIENCE }
    }

    #[expect(clippy::disallowed_methods, reason = "sockets know no other time than the machine's")]
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer(stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut stream = Timed::new(stream);
    let mut request = [0; REQUEST_BYTES_MAX];
    let mut len = 0;
    while len < request.len() {
        let read = stream.read(&mut request[len..])?;
        len += read;
        if read == 0 || request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let request = &request[..len];
    let (status, body) = if !request.ends_with(b"\r\n\r\n") {
        ("400 Bad Request", String::new())
    } else if request.starts_with(b"GET /metrics ") {
        ("200 OK", metrics.snapshot().to_string())
    } else {
        ("404 Not Found", String::new())
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes())?;
    stream.stream.shutdown(Shutdown::Write)
}
