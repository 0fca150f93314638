//! Where io_uring is forbidden: the filter that a container's seccomp profile would be. Alone in its
//! process, because the filter stays and the probe is asked once.

use std::io;

use ringcall::{
    BlockingClient, ServeError, Server, Shard, ShardConfig, TransportChoice, View,
    transport_fallbacks,
};

#[ringcall::service]
trait Doubler {
    async fn double(&self, number: View<u64>) -> u64;
}

struct Twice;

impl Doubler for Twice {
    async fn double(&self, number: View<u64>) -> u64 {
        number.to_native() * 2
    }
}

/// From here on this thread, and those that it starts, get EPERM from `io_uring_setup`.
fn forbid_io_uring() -> io::Result<()> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // The number of the system call is the first word of what a filter sees.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers only. (test: this one)
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program lives until the call returns, and the kernel copies it. (test: this one)
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[test]
fn e10_where_io_uring_is_forbidden_epoll_serves_and_says_why() {
    if std::env::var_os("RINGCALL_TRANSPORT").is_some() {
        return; // It has been decided otherwise.
    }
    forbid_io_uring().expect("a filter may be set without rights");
    let server = Server::bind("127.0.0.1:0").service(Twice.into_doubler()).start().unwrap();
    let transport = server.transport();
    assert_eq!(transport.name, "epoll");
    assert!(transport.reason.contains("forbidden"), "{transport}");
    assert!(transport.reason.contains("kernel.io_uring_disabled"), "{transport}");
    assert_eq!(transport_fallbacks(), 1);

    let client = BlockingClient::connect(server.address()).unwrap();
    let doubled = DoublerClient::new(&client).double(&21).wait().unwrap();
    assert_eq!(doubled.to_native(), 42);
    assert_eq!(transport_fallbacks(), 2);

    let mut config = ShardConfig::default();
    config.transport = TransportChoice::Uring;
    match Shard::new(config) {
        Err(ServeError::Engine { reason }) => assert!(reason.contains("forbidden"), "{reason}"),
        other => panic!("io_uring was required and is forbidden: {other:?}"),
    }
}
