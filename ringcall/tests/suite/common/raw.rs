//! The other side of a connection as bytes on a socket, and a network that treats them badly.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use ringcall::Address;
use ringcall_core::frame::{
    ArchiveFormat, Hello, InstanceId, Kind, PREFACE, ReplyHeader, RequestHeader,
};
use ringcall_core::{Codec, MessageId, Side, method_id};
use rustix::net::sockopt;

use super::{Socket, socket_path};

/// A connected socket of either kind: the standard library's stream only reads, writes and shuts down.
pub type Wire = TcpStream;

pub fn dial(address: &Address) -> Wire {
    match address {
        Address::Tcp(address) => TcpStream::connect(address).unwrap(),
        Address::Unix(path) => OwnedFd::from(UnixStream::connect(path).unwrap()).into(),
        other => panic!("{other}"),
    }
}

/// A connection whose handshake is done.
pub fn dial_open(address: &Address) -> Wire {
    let mut wire = dial(address);
    wire.write_all(&opening()).unwrap();
    read_opening(&mut wire).expect("the server's HELLO");
    wire
}

/// A listening socket of either kind.
pub struct Listening {
    pub address: Address,
    fd: OwnedFd,
}

impl Listening {
    pub fn new(socket: Socket) -> Listening {
        match socket {
            Socket::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                Listening { address: listener.local_addr().unwrap().into(), fd: listener.into() }
            }
            Socket::Unix => {
                let path = socket_path();
                let fd = UnixListener::bind(&path).unwrap().into();
                Listening { address: Address::Unix(path.to_str().unwrap().into()), fd }
            }
        }
    }

    /// For a server that goes on with it.
    pub fn listener(&self) -> OwnedFd {
        self.fd.try_clone().unwrap()
    }

    pub fn accept(&self) -> Wire {
        rustix::net::accept(&self.fd).unwrap().into()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Closes with a reset instead of an end.
pub fn reset(wire: Wire) {
    sockopt::set_socket_linger(&wire, Some(Duration::ZERO)).unwrap();
}

// ---- frames ----

/// A frame as it is read.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u64,
    pub header: Vec<u8>,
    pub body: Vec<u8>,
}

pub fn frame(kind: Kind, flags: u8, id: u64, header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (header.len() + body.len()) as u32;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend([kind as u8, flags]);
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(id.to_le_bytes());
    bytes.extend([header, body].concat());
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

/// A preface and a HELLO.
pub fn opening() -> Vec<u8> {
    opening_that_reads(0)
}

/// The same of somebody who reads bodies that are compressed so.
pub fn opening_that_reads(compressions: u8) -> Vec<u8> {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        archive: ArchiveFormat::STANDARD,
        compressions,
        in_flight_max: 1024,
        features: 0,
        codecs: 3,
        message_bytes_max: 4 << 20,
        calls_window: 8 << 20,
        replies_window: 8 << 20,
        stream_window: 1 << 20,
        table_digest: 0,
        instance: InstanceId::default(),
    };
    [&PREFACE[..], &frame(Kind::Hello, 0, 0, &hello.encode(), b"")].concat()
}

/// The id of the client's call with this number; each has its own slot.
pub fn id(number: u32) -> u64 {
    MessageId::new(Side::Client, 1, number).to_wire()
}

/// A RAW call with ten seconds left.
pub fn request(number: u32, method: &str, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        method: method_id(method),
        in_signature: 0,
        out_signature: 0,
        deadline_us: 10_000_000,
        codec: Codec::RAW,
        compression: 0,
        priority: 0,
        attempt: 0,
    };
    frame(Kind::Request, 0, id(number), &header.encode(), body)
}

pub fn reply(id: u64, header: &ReplyHeader, body: &[u8]) -> Vec<u8> {
    frame(Kind::Reply, 0, id, &header.encode(), body)
}

/// `None` at the end of the stream.
pub fn read_frame(wire: &mut impl Read) -> Option<Frame> {
    let mut head = [0; 16];
    wire.read_exact(&mut head).ok()?;
    let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
    let header_len = usize::from(u16::from_le_bytes([head[6], head[7]]));
    let mut rest = vec![0; length.next_multiple_of(16)];
    wire.read_exact(&mut rest).ok()?;
    Some(Frame {
        kind: head[4],
        flags: head[5],
        id: u64::from_le_bytes(head[8..].try_into().unwrap()),
        header: rest[..header_len].to_vec(),
        body: rest[header_len..length].to_vec(),
    })
}

pub fn read_opening(wire: &mut impl Read) -> Option<Frame> {
    wire.read_exact(&mut [0; 8]).ok()?;
    read_frame(wire).filter(|frame| frame.kind == Kind::Hello as u8)
}

/// The next reply; frames of other kinds are skipped.
pub fn read_reply(wire: &mut impl Read) -> Option<Frame> {
    std::iter::from_fn(|| read_frame(wire)).find(|frame| frame.kind == Kind::Reply as u8)
}

/// Everything up to the end of the stream, or its reset.
pub fn read_rest(wire: &mut Wire) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = wire.read_to_end(&mut all);
    all
}

// ---- a network ----

/// Stands between one client and a server, and passes at most `piece` bytes on at a time. Returns where
/// to connect to.
pub fn narrow_path(socket: Socket, to: &Address, piece: usize) -> Address {
    let (listening, to) = (Listening::new(socket), to.clone());
    let address = listening.address.clone();
    thread::spawn(move || {
        let (near, far) = (listening.accept(), dial(&to));
        if socket == Socket::Tcp {
            for wire in [&near, &far] {
                wire.set_nodelay(true).unwrap();
            }
        }
        let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let back = thread::spawn(move || pass_on(back.0, back.1, piece));
        pass_on(near, far, piece);
        back.join().unwrap();
    });
    address
}

fn pass_on(mut from: Wire, mut to: Wire, piece: usize) {
    let mut bytes = vec![0; piece];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
