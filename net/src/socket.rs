//! How sockets are made and set up.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use ringcall_core::{Address, TransportError};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::loopback;

/// A connection whose peer's machine does not acknowledge data for so long is given up (gRPC A18).
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// How to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenOptions {
    /// How many connections may wait to be accepted.
    pub backlog: i32,
    /// Whether several sockets may listen at one address, so that the kernel spreads connections.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions { backlog: 1024, reuse_port: false }
    }
}

/// A listening socket. Takes the file of a unix socket away when it is dropped, unless it is shared.
#[derive(Debug)]
pub struct ListenSocket {
    socket: Socket,
    address: Address,
    /// Others listen on the same socket: what is done to it is done to theirs.
    is_shared: bool,
}

impl ListenSocket {
    /// Listens, without blocking.
    ///
    /// # Errors
    /// When the address is in use or not usable here. The file that a dead process left behind for a
    /// unix socket is replaced.
    pub fn bind(address: &Address, options: ListenOptions) -> Result<ListenSocket, TransportError> {
        let (socket, to) = new_socket(address)?;
        let bind = || -> io::Result<Address> {
            if let Address::Tcp(_) = address {
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(options.reuse_port)?;
            }
            match socket.bind(&to) {
                Err(error) if is_stale(address, &error) => {
                    std::fs::remove_file(path(address))?;
                    socket.bind(&to)?;
                }
                bound => bound?,
            }
            socket.listen(options.backlog)?;
            match socket.local_addr()?.as_socket() {
                Some(local) => Ok(Address::Tcp(local)),
                None => Ok(address.clone()),
            }
        };
        let address = bind().map_err(|error| transport_error(&error))?;
        Ok(ListenSocket { socket, address, is_shared: false })
    }

    /// Goes on with a socket that listens already: handed over by another process, or by whoever started
    /// this one.
    ///
    /// # Errors
    /// When it is not a listening stream socket, or of a family that is not known here.
    pub fn from_socket(socket: Socket) -> Result<ListenSocket, TransportError> {
        let check = || -> io::Result<Option<Address>> {
            let address = socket.local_addr()?;
            let address = match (address.as_socket(), address.as_pathname()) {
                (Some(tcp), _) => Some(Address::Tcp(tcp)),
                (None, Some(path)) => path.to_str().map(|path| Address::Unix(path.to_owned())),
                (None, None) => None,
            };
            socket.set_nonblocking(true)?;
            socket.set_cloexec(true)?;
            let is_stream = socket.r#type()? == Type::STREAM;
            Ok(address.filter(|_| is_stream))
        };
        let address = check().map_err(|error| transport_error(&error))?;
        let is_listening = socket.is_listener().unwrap_or(false);
        match address.filter(|_| is_listening) {
            Some(address) => Ok(ListenSocket { socket, address, is_shared: true }),
            None => Err(TransportError::BadAddress),
        }
    }

    /// Another descriptor of the same socket, for a successor. From then on what waits to be accepted is
    /// the successor's, and so is the file of a unix socket.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn share(&mut self) -> Result<Socket, TransportError> {
        let socket = self.socket.try_clone().map_err(|error| transport_error(&error))?;
        self.is_shared = true;
        Ok(socket)
    }

    /// Whether others may listen on the same socket.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The next connection that waits already, set up; `None` if there is none, or if it is left to
    /// those who share the socket.
    pub fn accept_waiting(&self) -> Option<Socket> {
        if self.is_shared {
            return None;
        }
        loop {
            match self.socket.accept() {
                Ok((socket, _)) if set_up_accepted(&socket, self).is_ok() => return Some(socket),
                Ok(_) => {}
                // One that died while it waited.
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return None,
            }
        }
    }

    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address
            && !self.is_shared
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether an address cannot be bound only because of a file whose socket nobody listens on.
fn is_stale(address: &Address, error: &io::Error) -> bool {
    let Address::Unix(path) = address else { return false };
    let is_socket = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    error.kind() == io::ErrorKind::AddrInUse
        && is_socket
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn path(address: &Address) -> &Path {
    match address {
        Address::Unix(path) => Path::new(path),
        _ => Path::new(""),
    }
}

/// Begins to connect, without blocking. Says whether the connection is established already.
///
/// # Errors
/// When it cannot even be tried.
pub fn connect(address: &Address) -> Result<(Socket, bool), TransportError> {
    let (socket, to) = new_socket(address)?;
    set_up(&socket, address);
    match socket.connect(&to) {
        Ok(()) => Ok((socket, true)),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            Ok((socket, false))
        }
        Err(error) => Err(transport_error(&error)),
    }
}

/// Sets up a socket that was accepted.
///
/// # Errors
/// When it cannot be made non-blocking.
pub fn set_up_accepted(socket: &Socket, listener: &ListenSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    set_up(socket, listener.address());
    Ok(())
}

fn set_up(socket: &Socket, address: &Address) {
    if let Address::Tcp(at) = address {
        // Frames are coalesced above, so waiting for more only adds latency. Options that a kernel
        // does not have are no reason to fail.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        // Who listens at all addresses is asked for the connection's.
        let ip = at.ip().to_canonical();
        if ip.is_loopback() || (ip.is_unspecified() && loopback::is_loopback(socket)) {
            loopback::set_up_loopback(socket);
        }
    }
}

fn new_socket(address: &Address) -> Result<(Socket, SockAddr), TransportError> {
    let (domain, to) = match address {
        Address::Tcp(tcp) => (Domain::for_address(*tcp), SockAddr::from(*tcp)),
        Address::Unix(path) => {
            // Fails when the path is longer than a socket address can hold.
            (Domain::UNIX, SockAddr::unix(path).map_err(|_| TransportError::BadAddress)?)
        }
        _ => return Err(TransportError::Unsupported),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None);
    Ok((socket.map_err(|error| transport_error(&error))?, to))
}

/// The reason of core for an error of the system.
#[must_use]
pub fn transport_error(error: &io::Error) -> TransportError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => TransportError::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted => TransportError::Reset,
        io::ErrorKind::TimedOut => TransportError::TimedOut,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => TransportError::Unreachable,
        io::ErrorKind::AddrInUse => TransportError::AddressInUse,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::InvalidInput => TransportError::BadAddress,
        io::ErrorKind::PermissionDenied => TransportError::PermissionDenied,
        io::ErrorKind::OutOfMemory => TransportError::Exhausted,
        _ if is_exhausted(error) => TransportError::Exhausted,
        _ => TransportError::Os(error.raw_os_error().unwrap_or(0)),
    }
}

/// Whether accepting failed because of the connection, so that the next one may be accepted: accept(2) passes on
/// what is wrong with its network. That a firewall or a policy says no (EPERM, EACCES) is said before one is taken.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    let reason = transport_error(error);
    let network =
        [Errno::PROTO, Errno::NOPROTOOPT, Errno::HOSTDOWN, Errno::NONET, Errno::OPNOTSUPP];
    error.kind() == io::ErrorKind::Interrupted
        || matches!(
            reason,
            TransportError::Reset | TransportError::Unreachable | TransportError::TimedOut
        )
        || is_one_of(error, &network)
}

fn is_exhausted(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM])
}

fn is_one_of(error: &io::Error, numbers: &[Errno]) -> bool {
    numbers.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// How many connections a process should have at most: half of the file descriptors it may open.
#[must_use]
pub fn connections_max() -> usize {
    let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(soft / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e23_addresses_that_cannot_be_used_say_why() {
        let first = ListenSocket::bind(&"127.0.0.1:0".parse().unwrap(), ListenOptions::default());
        let first = first.unwrap();
        let again = ListenSocket::bind(first.address(), ListenOptions::default());
        assert_eq!(again.unwrap_err(), TransportError::AddressInUse);
        let long = Address::Unix("x".repeat(200));
        let bound = ListenSocket::bind(&long, ListenOptions::default());
        assert_eq!(bound.unwrap_err(), TransportError::BadAddress);
        assert_eq!(connect(&long).unwrap_err(), TransportError::BadAddress);
        let nobody = Address::Unix("/nonexistent/ringcall.sock".into());
        assert_eq!(connect(&nobody).unwrap_err(), TransportError::Refused);
    }

    #[test]
    fn e21_the_file_of_a_dead_listener_is_replaced_and_that_of_a_live_one_is_not() {
        let path = std::env::temp_dir().join(format!("ringcall-net-{}.sock", std::process::id()));
        let address = Address::Unix(path.to_str().unwrap().into());
        let live = ListenSocket::bind(&address, ListenOptions::default()).unwrap();
        let second = ListenSocket::bind(&address, ListenOptions::default());
        assert_eq!(second.unwrap_err(), TransportError::AddressInUse);
        drop(live);
        assert!(!path.exists(), "the file goes with its listener");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed process leaves it");
        ListenSocket::bind(&address, ListenOptions::default()).unwrap();
    }

    #[test]
    fn e21_a_listener_that_was_handed_over_goes_on_and_keeps_its_file() {
        let path = std::env::temp_dir().join(format!("ringcall-hand-{}.sock", std::process::id()));
        let address = Address::Unix(path.to_str().unwrap().into());
        let mut first = ListenSocket::bind(&address, ListenOptions::default()).unwrap();
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let second = ListenSocket::from_socket(first.share().unwrap()).unwrap();
        assert_eq!((second.address(), second.is_shared()), (&address, true));
        assert!(first.accept_waiting().is_none(), "it is the successor's");
        drop(first);
        let _later = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(second.socket().accept().is_ok() && second.socket().accept().is_ok());
        std::fs::remove_file(path).unwrap();
        let no_listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let taken = ListenSocket::from_socket(no_listener);
        assert_eq!(taken.unwrap_err(), TransportError::BadAddress);
    }

    #[test]
    fn what_waits_is_accepted() {
        let local = "127.0.0.1:0".parse().unwrap();
        let listener = ListenSocket::bind(&local, ListenOptions::default()).unwrap();
        let Address::Tcp(to) = listener.address() else { panic!("it is tcp") };
        let clients = [(); 3].map(|()| std::net::TcpStream::connect(to).unwrap());
        let accepted = std::iter::from_fn(|| listener.accept_waiting());
        assert_eq!(accepted.count(), clients.len());
    }
}
