//! When both sides have the keys: records, sealed and opened with the ciphers of rustls.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fmt;

use ringcall_core::TlsFault;
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};

use crate::fault::fault_of;

/// In front of every record: type, version, length.
pub(crate) const HEAD_LEN: usize = 5;
/// The most plaintext that a record may have.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 14;
/// What a sealed record may have beside its plaintext.
const SEALED_EXTRA_MAX: usize = 256;
/// The longest ticket for a later session, as in rustls; it may come together from several records.
const TICKET_BYTES_MAX: usize = 64 * 1024;
/// Records without anything for the connection that may come, more than those with.
const IDLE_RECORDS_MAX: u32 = 64;
/// A key is changed this many records before it would have to be.
const RECORDS_SPARE: u64 = 1 << 10;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const KEY_UPDATE_BYTES: usize = 1;
const ALERT_WARNING: u8 = 1;
const ALERT_FATAL: u8 = 2;

/// What of rustls stays when the keys have been handed over.
pub(crate) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

pub(crate) struct Traffic {
    kernel: Kernel,
    suite: &'static Tls13CipherSuite,
    sealer: Box<dyn MessageEncrypter>,
    sealed: u64,
    /// With how many records a key is used up.
    seal_max: u64,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    /// A message of TLS's own, as far as it is here.
    message: Vec<u8>,
    idle_records: u32,
    /// The other side has asked for another key, once or more: one answer will do, and the next record of
    /// the connection's has to come behind it (RFC 8446, 4.6.3).
    owes_key: bool,
}

/// What a record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// So many bytes of the connection's, where the record's own began behind its head.
    Data(usize),
    /// A message of TLS's own, which is dealt with.
    Own,
    /// The other side sends nothing more.
    Goodbye,
}

/// Whether the bytes begin with a whole record.
pub(crate) fn has_record(bytes: &[u8]) -> bool {
    matches!(record_len(bytes), Ok(Some(len)) if len <= bytes.len())
}

/// Whether a record that has begun is still not whole when `len` bytes of it are here.
pub(crate) fn is_cut(partial: &[u8], len: usize) -> bool {
    matches!(record_len(partial), Ok(Some(whole)) if len < whole)
}

/// How long the record is that the bytes begin with, if that much is here.
fn record_len(bytes: &[u8]) -> Result<Option<usize>, TlsFault> {
    let Some([_, _, _, high, low]) = bytes.first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    match len > RECORD_BYTES_MAX.saturating_add(SEALED_EXTRA_MAX) {
        true => Err(TlsFault::Malformed),
        false => Ok(Some(len.saturating_add(HEAD_LEN))),
    }
}

impl Traffic {
    #[allow(irrefutable_let_patterns, reason = "not if somebody else enables TLS 1.2")]
    pub(crate) fn new(kernel: Kernel, secrets: ExtractedSecrets) -> Result<Traffic, TlsFault> {
        let suite = match &kernel {
            Kernel::Client(kernel) => kernel.negotiated_cipher_suite(),
            Kernel::Server(kernel) => kernel.negotiated_cipher_suite(),
        };
        let SupportedCipherSuite::Tls13(suite) = suite else { return Err(TlsFault::Internal) };
        let ExtractedSecrets { tx: (sealed, tx), rx: (opened, rx) } = secrets;
        Ok(Traffic {
            kernel,
            suite,
            sealer: sealer(suite, tx)?,
            sealed,
            seal_max: suite.common.confidentiality_limit.saturating_sub(RECORDS_SPARE),
            opener: opener(suite, rx)?,
            opened,
            message: Vec::new(),
            idle_records: 0,
            owes_key: false,
        })
    }

    // ---- in ----

    /// Opens the record that `bytes` begin with, in place. Says what it was, and how long it is; `None`
    /// if it is not here whole.
    pub(crate) fn open(&mut self, bytes: &mut [u8]) -> Result<Option<(Opened, usize)>, TlsFault> {
        let Some(len) = record_len(bytes)? else { return Ok(None) };
        let Some(record) = bytes.get_mut(..len) else { return Ok(None) };
        let Some((head, sealed)) = record.split_first_chunk_mut::<HEAD_LEN>() else {
            return Ok(None);
        };
        // Nothing else may come now: what is inside says what it is.
        if u8::from(ContentType::ApplicationData) != head[0] {
            return Err(TlsFault::Malformed);
        }
        let version = ProtocolVersion::TLSv1_2;
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, version, sealed);
        let number = self.opened;
        self.opened = number.checked_add(1).ok_or(TlsFault::Internal)?;
        let plain = self.opener.decrypt(message, number).map_err(|error| fault_of(&error))?;
        let opened = match plain.typ {
            ContentType::ApplicationData if !self.message.is_empty() => {
                return Err(TlsFault::Malformed);
            }
            ContentType::ApplicationData if !plain.payload.is_empty() => {
                self.idle_records = self.idle_records.saturating_sub(1);
                return Ok(Some((Opened::Data(plain.payload.len()), len)));
            }
            ContentType::ApplicationData => Opened::Own,
            ContentType::Alert => alerted(plain.payload)?,
            ContentType::Handshake => {
                self.message.extend_from_slice(plain.payload);
                Opened::Own
            }
            _ => return Err(TlsFault::Malformed),
        };
        self.idle_records = self.idle_records.saturating_add(1);
        if self.idle_records > IDLE_RECORDS_MAX {
            return Err(TlsFault::TooMuch);
        }
        self.take_messages()?;
        Ok(Some((opened, len)))
    }

    /// Deals with the messages of TLS's own that have arrived.
    fn take_messages(&mut self) -> Result<(), TlsFault> {
        let message = std::mem::take(&mut self.message);
        let mut rest = &message[..];
        while let Some(&kind) = rest.first() {
            // Before any more of it is kept.
            let len_max = self.len_max(kind)?;
            let Some(([_, a, b, c], behind)) = rest.split_first_chunk::<4>() else { break };
            let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            if len > len_max {
                return Err(TlsFault::TooMuch);
            }
            let Some((payload, behind)) = behind.split_at_checked(len) else { break };
            match &mut self.kernel {
                Kernel::Client(kernel) if kind == NEW_SESSION_TICKET => {
                    kernel.handle_new_session_ticket(payload).map_err(|error| fault_of(&error))?;
                }
                // The keys change with the record: nothing may be behind it.
                _ if kind == KEY_UPDATE && behind.is_empty() => self.key_updated(payload)?,
                _ => return Err(TlsFault::Malformed),
            }
            rest = behind;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    /// How long a message of this kind may be, if it may come at all.
    fn len_max(&self, kind: u8) -> Result<usize, TlsFault> {
        match (kind, &self.kernel) {
            (NEW_SESSION_TICKET, Kernel::Client(_)) => Ok(TICKET_BYTES_MAX),
            (KEY_UPDATE, _) => Ok(KEY_UPDATE_BYTES),
            _ => Err(TlsFault::Malformed),
        }
    }

    fn key_updated(&mut self, payload: &[u8]) -> Result<(), TlsFault> {
        let is_asked = match payload {
            [0] => false,
            [1] => true,
            _ => return Err(TlsFault::Malformed),
        };
        let updated = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_rx_secret(),
            Kernel::Server(kernel) => kernel.update_rx_secret(),
        };
        let (opened, secrets) = updated.map_err(|error| fault_of(&error))?;
        self.opener = opener(self.suite, secrets)?;
        self.opened = opened;
        self.owes_key |= is_asked;
        Ok(())
    }

    // ---- out ----

    /// Whether the other side waits for another key.
    #[inline]
    pub(crate) fn owes_key(&self) -> bool {
        self.owes_key
    }

    /// Seals a record: at most [`RECORD_BYTES_MAX`]. If the key is used up or owed, its successor is announced
    /// in `out`, which goes first.
    pub(crate) fn seal(
        &mut self,
        payload: OutboundChunks<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Vec<u8>, TlsFault> {
        if self.owes_key || self.sealed >= self.seal_max {
            self.update_key(false, out)?;
        }
        self.seal_as(ContentType::ApplicationData, payload)
    }

    fn seal_as(
        &mut self,
        typ: ContentType,
        payload: OutboundChunks<'_>,
    ) -> Result<Vec<u8>, TlsFault> {
        let number = self.sealed;
        self.sealed = number.checked_add(1).ok_or(TlsFault::Internal)?;
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.sealer.encrypt(message, number).map_err(|error| fault_of(&error))?;
        Ok(sealed.encode())
    }

    #[cfg(test)]
    pub(crate) fn seal_anything(&mut self, typ: u8, bytes: &[u8]) -> Result<Vec<u8>, TlsFault> {
        self.seal_as(ContentType::from(typ), OutboundChunks::Single(bytes))
    }

    #[cfg(test)]
    pub(crate) fn change_key_after(&mut self, records: u64) {
        self.seal_max = self.sealed.saturating_add(records);
    }

    /// Tells the other side that what follows has the next key, and perhaps to change its own, too.
    pub(crate) fn update_key(&mut self, asks: bool, out: &mut Vec<u8>) -> Result<(), TlsFault> {
        let message = [KEY_UPDATE, 0, 0, 1, u8::from(asks)];
        out.extend(self.seal_as(ContentType::Handshake, OutboundChunks::Single(&message))?);
        let updated = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_tx_secret(),
            Kernel::Server(kernel) => kernel.update_tx_secret(),
        };
        let (sealed, secrets) = updated.map_err(|error| fault_of(&error))?;
        self.sealer = sealer(self.suite, secrets)?;
        self.sealed = sealed;
        self.owes_key = false;
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn say_goodbye(&mut self, out: &mut Vec<u8>) -> Result<(), TlsFault> {
        self.say(ALERT_WARNING, AlertDescription::CloseNotify, out)
    }

    /// Says why the connection is over.
    pub(crate) fn refuse(&mut self, fault: TlsFault, out: &mut Vec<u8>) {
        let alert = match fault {
            TlsFault::Alert(_) => return,
            TlsFault::Tampered => AlertDescription::BadRecordMac,
            TlsFault::NoCommonProtocol => AlertDescription::NoApplicationProtocol,
            TlsFault::Internal => AlertDescription::InternalError,
            _ => AlertDescription::UnexpectedMessage,
        };
        // If even that cannot be sealed, the connection just ends.
        let _ = self.say(ALERT_FATAL, alert, out);
    }

    fn say(
        &mut self,
        level: u8,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsFault> {
        let message = [level, u8::from(alert)];
        out.extend(self.seal_as(ContentType::Alert, OutboundChunks::Single(&message))?);
        Ok(())
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys are secret.
        f.debug_struct("Traffic")
            .field("sealed", &self.sealed)
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}

fn alerted(alert: &[u8]) -> Result<Opened, TlsFault> {
    let [_, alert] = alert else { return Err(TlsFault::Malformed) };
    match AlertDescription::from(*alert) {
        AlertDescription::CloseNotify => Ok(Opened::Goodbye),
        AlertDescription::UserCanceled => Ok(Opened::Own),
        _ => Err(TlsFault::Alert(*alert)),
    }
}

fn sealer(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, TlsFault> {
    let (key, iv) = parts(secrets)?;
    Ok(suite.aead_alg.encrypter(key, iv))
}

fn opener(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, TlsFault> {
    let (key, iv) = parts(secrets)?;
    Ok(suite.aead_alg.decrypter(key, iv))
}

fn parts(
    secrets: ConnectionTrafficSecrets,
) -> Result<(rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv), TlsFault> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(TlsFault::Internal),
    }
}
