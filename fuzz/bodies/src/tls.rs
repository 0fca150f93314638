//! Bytes of a peer in front of TLS: before the handshake, in the middle of it, and when the keys are there.

use std::cell::RefCell;

use ringcall_buf::Pool;
use ringcall_core::{Batch, ByteLayer};
use ringcall_tls::{Tls, TlsClient, TlsIdentity, TlsRoots, TlsServer, Workspace};

/// For `localhost`, signed by itself; the key is as public as this file.
const CERTIFICATE: &str = include_str!("tls/certificate.pem");
const KEY: &str = include_str!("tls/key.pem");

struct World {
    server: TlsServer,
    client: TlsClient,
    pool: Pool,
    workspace: Workspace,
}

impl World {
    fn new() -> World {
        let identity = TlsIdentity::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes());
        let roots = TlsRoots::from_pem(CERTIFICATE.as_bytes()).expect("an authority");
        let pool = Pool::new(1 << 20);
        World {
            server: TlsServer::new(identity.expect("a pair")).expect("it can be used"),
            client: TlsClient::new(roots).expect("it can be used"),
            workspace: Workspace::new(&pool),
            pool,
        }
    }

    fn pair(&self) -> [Tls; 2] {
        [
            Tls::client(&self.client, "localhost", &self.workspace).expect("a name"),
            Tls::server(&self.server, &self.workspace).expect("it can be used"),
        ]
    }

    /// Gives an end bytes in pieces; returns what came out of it, and whether it gave up.
    fn receive(&self, tls: &mut Tls, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let mut failed = false;
        for piece in bytes.chunks(piece) {
            let chunk = self.pool.copy(piece);
            failed |= tls.open(chunk, &mut |plain| out.extend_from_slice(&plain)).is_err();
        }
        (out, failed)
    }
}

/// What an end has to send of its own.
fn sent(tls: &mut Tls) -> Vec<u8> {
    let mut batch = Batch::new(usize::MAX);
    if tls.seal(&mut batch).is_err() {
        return Vec::new();
    }
    let segments = batch.segments().iter().filter_map(|segment| segment.as_slice());
    segments.flat_map(<[u8]>::to_vec).collect()
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// The first two bytes say which end, when, and in which pieces; the rest is what it receives. Nothing of it
/// is ever taken for what the other end said, and a handshake holds little.
pub fn tls(bytes: &[u8]) {
    let Some(([how, piece], rest)) = bytes.split_first_chunk::<2>() else { return };
    let piece = usize::from(*piece) * 8 + 1;
    WORLD.with_borrow(|world| {
        let mut ends = world.pair();
        // So many flights pass before the bytes come.
        for flight in 0..(how >> 1) % 5 {
            let from = usize::from(flight % 2);
            let said = sent(&mut ends[from]);
            world.receive(&mut ends[1 - from], &said, usize::MAX);
        }
        let end = &mut ends[usize::from(how & 1)];
        let was_ready = end.is_ready();
        let (heard, failed) = world.receive(end, rest, piece);
        assert!(heard.is_empty(), "{} bytes were made up", heard.len());
        assert!(was_ready || failed || !end.is_ready(), "the keys were guessed");
        assert!(sent(end).len() < 1 << 16, "a stranger is told much");
        if failed {
            let (heard, _) = world.receive(end, rest, piece);
            assert!(heard.is_empty() && sent(end).is_empty(), "it goes on after its end");
        }
    });
}
