//! How a client's connections are protected, and what it shows to servers.

use std::fmt;
use std::sync::Arc;

use ringcall_core::frame::{Extension, ExtensionWriter, tag};
use ringcall_core::{
    CREDENTIALS_BYTES_MAX, Channel, CredentialsTooLong, Expected, Extended, Outgoing, Payload,
    StreamChannel,
};
#[cfg(feature = "tls")]
use ringcall_tls::TlsClient;

use super::BlockOn;
use crate::same_secret;

/// What a client shows to prove who it is, a token for example. Never shown in logs.
#[derive(Clone)]
pub struct Credentials(Arc<[u8]>);

impl Credentials {
    /// These bytes.
    ///
    /// # Errors
    /// When they are longer than fits into a HELLO, 3996 bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Credentials, CredentialsTooLong> {
        let bytes = bytes.as_ref();
        match bytes.len() <= CREDENTIALS_BYTES_MAX {
            true => Ok(Credentials(bytes.into())),
            false => Err(CredentialsTooLong),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether they are this secret, compared in [constant time](same_secret).
    #[must_use]
    pub fn matches(&self, secret: impl AsRef<[u8]>) -> bool {
        same_secret(&self.0, secret.as_ref())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} bytes)", self.0.len())
    }
}

/// A channel whose every call shows credentials of its own: for callers that act for others, and for tokens
/// that are renewed. Streams show them when they begin.
///
/// ```no_run
/// # #[ringcall::service] trait Safe { async fn open(&self); }
/// # fn example(safe: SafeClient<ringcall::Client>, token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// use ringcall::{Credentials, WithCredentials};
///
/// let for_alice = WithCredentials::new(safe.channel(), &Credentials::new(token)?);
/// SafeClient::new(for_alice).open().wait()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WithCredentials<C> {
    channel: C,
    extensions: Arc<[u8]>,
}

impl<C> WithCredentials<C> {
    /// Calls of `channel` show these.
    pub fn new(channel: C, credentials: &Credentials) -> WithCredentials<C> {
        let mut writer = ExtensionWriter::new();
        let value = credentials.expose();
        let fits = writer.push(Extension { tag: tag::CREDENTIALS, critical: false, value });
        debug_assert!(fits, "checked when they were made");
        WithCredentials { channel, extensions: writer.finish().into() }
    }

    /// Behind what the message has itself.
    fn extend<P: Payload>(&self, payload: P) -> Extended<P> {
        let extensions = [payload.extensions(), &self.extensions].concat();
        Extended { payload, extensions }
    }
}

impl<C: fmt::Debug> fmt::Debug for WithCredentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithCredentials").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl<C: BlockOn> BlockOn for WithCredentials<C> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.channel.block_on(future)
    }
}

impl<C: Channel> Channel for WithCredentials<C> {
    type Body = C::Body;
    type Pending<'a, P>
        = C::Pending<'a, Extended<P>>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P> {
        self.channel.call(call, self.extend(payload))
    }
}

impl<C: StreamChannel> StreamChannel for WithCredentials<C> {
    type Call = C::Call;
    type Opening<'a, P>
        = C::Opening<'a, Extended<P>>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        self.channel.open(call, self.extend(payload))
    }
}

/// How the connections of one client are protected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Security {
    pub(crate) credentials: Option<Credentials>,
    /// Which instance the server has to be.
    pub(crate) expected: Option<Expected>,
    /// Instead of what its shard's connections have.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsClient>,
    /// What the server must be called, unless the settings for TLS say so.
    #[cfg(feature = "tls")]
    pub(crate) host: String,
}

impl Security {
    /// For the server at this address, as a user has written it.
    pub(crate) fn of_address(text: &str) -> Security {
        #[cfg(not(feature = "tls"))]
        let _ = text;
        Security {
            #[cfg(feature = "tls")]
            host: host(text),
            ..Security::default()
        }
    }
}

/// `db.example` of `db.example:7000`, `::1` of `[::1]:7000`; `localhost` for unix sockets.
#[cfg(feature = "tls")]
fn host(address: &str) -> String {
    if address.starts_with("unix:") {
        return "localhost".to_owned();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h09_credentials_are_not_shown() {
        let credentials = Credentials::new("hunter2").unwrap();
        assert_eq!(format!("{credentials:?}"), "Credentials(7 bytes)");
        let security = Security { credentials: Some(credentials), ..Security::of_address("a:1") };
        assert!(!format!("{security:?}").contains("hunter2"));
        assert!(Credentials::new([0; 3997]).is_err());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn hosts_are_found_in_addresses() {
        for (address, name) in [
            ("db.example:7000", "db.example"),
            ("127.0.0.1:7000", "127.0.0.1"),
            ("[::1]:7000", "::1"),
            ("unix:/tmp/x", "localhost"),
        ] {
            assert_eq!(host(address), name);
        }
    }
}
