//! Until both sides have the keys: rustls at work.

use std::sync::Arc;

use ringcall_core::{CloseReason, TlsFault};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError};
use rustls::{CommonState, Error, ServerConfig};

use crate::config::ClientSettings;
use crate::fault::fault_of;
use crate::peer::PeerIdentity;
use crate::traffic::{Kernel, Traffic, has_record};
use crate::{PROTOCOL, TlsClient, TlsConfigError};

/// So much of the other side's messages may wait for their rest, as in rustls.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// So much may arrive before the handshake is done. Chains of certificates are the largest part of one.
const HANDSHAKE_BYTES_MAX: usize = 256 * 1024;

pub(crate) struct Handshake {
    conn: Conn,
    is_verifying: bool,
    /// How much has arrived.
    arrived: usize,
}

enum Conn {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What came of a message of rustls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be more to do.
    On,
    /// The other side said goodbye.
    PeerClosed,
    /// Bytes of the other side are missing.
    Blocked,
    /// The keys are there.
    Done,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// The other side has to go on.
    Going,
    /// The other side said goodbye.
    PeerClosed,
    /// It is done: [`Handshake::finish`] it. What is left of the input, if anything, is a part of a record.
    Done,
}

impl Handshake {
    pub(crate) fn client(client: &TlsClient, host: &str) -> Result<Handshake, TlsConfigError> {
        let ClientSettings { config, is_verifying } = client.current();
        let conn = UnbufferedClientConnection::new(config, client.name_of(host)?)
            .map_err(TlsConfigError::of)?;
        Ok(Handshake { conn: Conn::Client(conn), is_verifying, arrived: 0 })
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Handshake, TlsConfigError> {
        let conn = UnbufferedServerConnection::new(config).map_err(TlsConfigError::of)?;
        Ok(Handshake { conn: Conn::Server(conn), is_verifying: true, arrived: 0 })
    }

    pub(crate) fn is_client(&self) -> bool {
        matches!(self.conn, Conn::Client(_))
    }

    pub(crate) fn has_heard(&self) -> bool {
        self.arrived > 0
    }

    /// Of what comes next, `bytes` are new.
    pub(crate) fn arrives(&mut self, bytes: usize) {
        self.arrived = self.arrived.saturating_add(bytes);
    }

    /// Goes on with what has arrived, which is taken out of `input` as far as it is used. What is to be sent
    /// is appended to `out`, what of the connection's own came along to `plain`.
    pub(crate) fn advance(
        &mut self,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Advance, CloseReason> {
        let mut used = 0;
        let outcome = loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let (discard, step) = self.conn.process(rest, out, plain);
            used += discard;
            match step {
                Ok(Step::On) => {}
                Ok(step) => break Ok(step),
                Err(error) => {
                    // What rustls wants to tell the other side about it. It still has its finger in the
                    // input, so that it must be the same.
                    let rest = input.get_mut(used - discard..).unwrap_or_default();
                    let (_, _) = self.conn.process(rest, out, plain);
                    break Err(CloseReason::Tls(fault_of(&error)));
                }
            }
        };
        input.drain(..used.min(input.len()));
        let step = outcome?;
        if input.len() > WAITING_BYTES_MAX || self.arrived > HANDSHAKE_BYTES_MAX {
            return Err(CloseReason::Tls(TlsFault::TooMuch));
        }
        // A whole record that was not used belongs to a message that rustls still puts together.
        let is_between = !has_record(input);
        Ok(match step {
            Step::PeerClosed => Advance::PeerClosed,
            Step::Done if is_between && !self.conn.common().is_handshaking() => Advance::Done,
            _ => Advance::Going,
        })
    }

    /// Hands the keys over.
    pub(crate) fn finish(self) -> Result<Finished, TlsFault> {
        let common = self.conn.common();
        let speaks_ringcall = common.alpn_protocol() == Some(PROTOCOL);
        let chain = common.peer_certificates().filter(|_| self.is_verifying);
        let peer = chain.and_then(PeerIdentity::new).map(Arc::new);
        let handed_over = match self.conn {
            Conn::Client(conn) => conn
                .dangerous_into_kernel_connection()
                .map(|(secrets, kernel)| (secrets, Kernel::Client(kernel))),
            Conn::Server(conn) => conn
                .dangerous_into_kernel_connection()
                .map(|(secrets, kernel)| (secrets, Kernel::Server(kernel))),
        };
        let (secrets, kernel) = handed_over.map_err(|error| fault_of(&error))?;
        Ok(Finished { traffic: Traffic::new(kernel, secrets)?, peer, speaks_ringcall })
    }
}

/// What a handshake leads to.
pub(crate) struct Finished {
    pub(crate) traffic: Traffic,
    pub(crate) peer: Option<Arc<PeerIdentity>>,
    /// Whether both sides have said so.
    pub(crate) speaks_ringcall: bool,
}

impl Conn {
    fn common(&self) -> &CommonState {
        match self {
            Conn::Client(conn) => conn,
            Conn::Server(conn) => conn,
        }
    }

    /// One step of rustls: how much of the input is used, and what came of it.
    fn process(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Conn::Client(conn) => {
                let status = conn.process_tls_records(input);
                (status.discard, status.state.and_then(|state| take(state, out, plain)))
            }
            Conn::Server(conn) => {
                let status = conn.process_tls_records(input);
                (status.discard, status.state.and_then(|state| take(state, out, plain)))
            }
        }
    }
}

/// Takes from rustls what it has for the other side, or for the connection.
fn take<Data>(
    state: ConnectionState<'_, '_, Data>,
    out: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Result<Step, Error> {
    match state {
        ConnectionState::EncodeTlsData(mut message) => {
            let start = out.len();
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
                message.encode(&mut [])
            {
                out.resize(start + required_size, 0);
                let place = out.get_mut(start..).unwrap_or_default();
                message.encode(place).map_err(|error| Error::General(error.to_string()))?;
            }
            Ok(Step::On)
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Ok(Step::On)
        }
        ConnectionState::ReadTraffic(mut records) => {
            while let Some(record) = records.next_record() {
                plain.extend_from_slice(record?.payload);
            }
            Ok(Step::On)
        }
        ConnectionState::PeerClosed => Ok(Step::PeerClosed),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        ConnectionState::BlockedHandshake | ConnectionState::Closed => Ok(Step::Blocked),
        // Early data, which is never offered, nor taken.
        _ => Err(Error::General("a state that cannot be".to_owned())),
    }
}
