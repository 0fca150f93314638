//! TCP between two processes of one machine: there the kernel copies what is sent at once, what nobody has
//! read yet is memory that both sides have to fetch again, and no network is there to be spared.
//!
//! Measured with calls of a MiB and of 4 KiB, see `docs/PERFORMANCE.md`.

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// So much the kernel takes of what is sent; it doubles this. By default it takes up to 4 MiB, which is more than a
/// core has cache for, and the sender would rather read meanwhile.
const LOOPBACK_SEND_BYTES: usize = 256 * 1024;

/// What BBR is replaced by: every kernel has it, and everybody may use it.
const UNPACED: &[u8] = b"reno";

/// Of how much the other side may send before it is read, within half of what `net.ipv4.tcp_rmem` allows.
const WINDOW_BYTES: libc::c_int = 8 << 20;

/// Who receives as much of a body at a time wants a wide window.
const WIDE_FROM: usize = 128 * 1024;

/// Whether this is a connection of TCP over loopback.
pub(crate) fn is_loopback(socket: &Socket) -> bool {
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    address.is_some_and(|address| address.ip().to_canonical().is_loopback())
}

/// Sets up a connection over loopback.
pub fn set_up_loopback(socket: &Socket) {
    // Options that a kernel does not have, or does not allow, are no reason to fail.
    let _ = socket.set_send_buffer_size(LOOPBACK_SEND_BYTES);
    // BBR spaces out what is sent by the bandwidth that it has seen. Over loopback that is what the processes did a moment
    // ago: a connection that began slowly stays at half of what it could do, for good.
    if socket.tcp_congestion().is_ok_and(|name| name.starts_with(b"bbr")) {
        let _ = socket.set_tcp_congestion(UNPACED);
    }
}

/// A connection's receive window: as the kernel has it, which begins with 64 KiB, or wide from the first large body on.
///
/// The kernel widens it as it is read. Over loopback it often had not after seconds, in which the window closed again and
/// again.
#[derive(Debug, Default)]
pub struct Window {
    is_wide: bool,
}

impl Window {
    /// So many bytes of a body are about to be received at a time.
    #[inline]
    pub fn expect(&mut self, socket: &Socket, len: usize) {
        if len >= WIDE_FROM && !self.is_wide {
            self.is_wide = true;
            if is_loopback(socket) {
                // It is narrower otherwise, and that is all.
                let _ = widen(socket);
            }
        }
    }
}

/// Raising the low-water mark makes the kernel provide for as much, and leaves it to widen the window further, which
/// setting the buffer's size would not. Then nobody waits for so much.
#[cold]
fn widen(socket: &Socket) -> io::Result<()> {
    set_low_water(socket, WINDOW_BYTES)?;
    set_low_water(socket, 1)
}

#[allow(unsafe_code, reason = "no library sets this option")]
fn set_low_water(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    let (value, len) = (&raw const bytes, size_of::<libc::c_int>() as libc::socklen_t);
    let fd = socket.as_raw_fd();
    // SAFETY: the descriptor is the socket's, which outlives the call; `value` points to an integer of `len` bytes,
    // which is only read. (test: `a_large_body_widens_the_window_and_a_byte_is_still_told`)
    let set =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value.cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, poll};

    use ringcall_core::Address;

    use super::*;
    use crate::{ListenOptions, ListenSocket, connect, set_up_accepted};

    fn connected() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (there, Socket::from(listener.accept().unwrap().0))
    }

    #[test]
    fn a_large_body_widens_the_window_and_a_byte_is_still_told() {
        let (mut there, socket) = connected();
        let (before, mut window) = (socket.recv_buffer_size().unwrap(), Window::default());
        window.expect(&socket, WIDE_FROM - 1);
        assert_eq!(socket.recv_buffer_size().unwrap(), before);
        window.expect(&socket, WIDE_FROM);
        let wide = socket.recv_buffer_size().unwrap();
        assert!(wide > before, "{wide} bytes, {before} before");
        there.write_all(&[1]).unwrap();
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
    }

    #[test]
    fn the_kernel_takes_less_of_what_is_sent() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let bound = ListenSocket::bind(&address.parse().unwrap(), ListenOptions::default());
            let listener = bound.unwrap();
            let Address::Tcp(at) = listener.address() else { panic!("it is tcp") };
            let to = Address::Tcp((std::net::Ipv4Addr::LOCALHOST, at.port()).into());
            let (there, _) = connect(&to).unwrap();
            let (accepted, _) = listener.socket().accept().unwrap();
            set_up_accepted(&accepted, &listener).unwrap();
            // Where the machine allows as much; the kernel counts twice what it is asked for.
            let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
            let wanted = LOOPBACK_SEND_BYTES.min(most.trim().parse().unwrap());
            for socket in [there, accepted] {
                assert_eq!(socket.send_buffer_size().unwrap(), 2 * wanted);
            }
        }
        let (_pair, unix) =
            Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        assert!(!is_loopback(&unix));
    }

    #[test]
    fn nobody_is_paced() {
        let (_there, socket) = connected();
        // A machine without BBR paces nobody.
        if socket.set_tcp_congestion(b"bbr").is_err() {
            return;
        }
        set_up_loopback(&socket);
        assert!(socket.tcp_congestion().unwrap().starts_with(UNPACED));
        // What somebody has chosen otherwise is left.
        if socket.set_tcp_congestion(b"cubic").is_ok() {
            set_up_loopback(&socket);
            assert!(socket.tcp_congestion().unwrap().starts_with(b"cubic"));
        }
    }
}
