//! Who this side is, and whom it trusts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, danger::DangerousClientConfigBuilder};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::PROTOCOL;

/// A certificate, with those that lead to its authority, and its private key.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// From PEM text: the certificate first, then those that lead to its authority; and the key, in PKCS#8,
    /// PKCS#1 or SEC1.
    ///
    /// # Errors
    /// When there is no certificate or no key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<TlsIdentity, TlsConfigError> {
        TlsIdentity::read(TlsSource::Memory, chain, TlsSource::Memory, key)
    }

    /// From PEM files, as [`from_pem`](TlsIdentity::from_pem).
    ///
    /// # Errors
    /// When a file cannot be read, or there is no certificate or no key in it.
    pub fn from_pem_files(
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<TlsIdentity, TlsConfigError> {
        let (chain, key) = (chain.as_ref(), key.as_ref());
        let (chain_text, key_text) = (read(chain)?, read(key)?);
        let source = |path: &Path| TlsSource::File(path.to_owned());
        TlsIdentity::read(source(chain), &chain_text, source(key), &key_text)
    }

    /// From DER: the certificate first, then those that lead to its authority; and the key, in PKCS#8,
    /// PKCS#1 or SEC1.
    ///
    /// # Errors
    /// When the key is of no form that is known.
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<TlsIdentity, TlsConfigError> {
        let key = PrivateKeyDer::try_from(key)
            .map_err(|_| TlsConfigError::NoKey { source: TlsSource::Memory })?;
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Ok(TlsIdentity { chain, key })
    }

    fn read(
        chain_source: TlsSource,
        chain: &[u8],
        key_source: TlsSource,
        key: &[u8],
    ) -> Result<TlsIdentity, TlsConfigError> {
        let chain = certificates(&chain_source, chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsConfigError::NoKey { source: key_source },
            _ => TlsConfigError::BadPem { source: key_source },
        })?;
        Ok(TlsIdentity { chain, key })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is secret.
        write!(f, "TlsIdentity({} certificates)", self.chain.len())
    }
}

/// The authorities whose signatures this side trusts, and what they have revoked.
#[derive(Clone)]
pub struct TlsRoots {
    store: RootCertStore,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl TlsRoots {
    /// The authorities in PEM text.
    ///
    /// # Errors
    /// When there is none in it, or one is malformed.
    pub fn from_pem(text: &[u8]) -> Result<TlsRoots, TlsConfigError> {
        TlsRoots::read(&TlsSource::Memory, text)
    }

    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, there is none in it, or one is malformed.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<TlsRoots, TlsConfigError> {
        let path = path.as_ref();
        TlsRoots::read(&TlsSource::File(path.to_owned()), &read(path)?)
    }

    /// Those that browsers trust, as of when this was built: for servers with names of the public internet.
    #[cfg(feature = "web-roots")]
    #[must_use]
    pub fn web() -> TlsRoots {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        TlsRoots { store: roots, revoked: Vec::new() }
    }

    fn read(source: &TlsSource, text: &[u8]) -> Result<TlsRoots, TlsConfigError> {
        let mut roots = TlsRoots { store: RootCertStore::empty(), revoked: Vec::new() };
        for certificate in certificates(source, text)? {
            let added = roots.store.add(certificate);
            added.map_err(|_| TlsConfigError::BadPem { source: source.clone() })?;
        }
        Ok(roots)
    }

    /// Adds other authorities.
    #[must_use]
    pub fn and(mut self, others: TlsRoots) -> TlsRoots {
        self.store.extend(others.store.roots);
        self.revoked.extend(others.revoked);
        self
    }

    /// Refuses what the revocation lists in this PEM text name. Certificates of authorities without a list
    /// are refused then, too.
    ///
    /// # Errors
    /// When there is no list in it.
    pub fn revoking(mut self, lists: &[u8]) -> Result<TlsRoots, TlsConfigError> {
        let before = self.revoked.len();
        for list in CertificateRevocationListDer::pem_slice_iter(lists) {
            let list = list.map_err(|_| TlsConfigError::BadPem { source: TlsSource::Memory })?;
            self.revoked.push(list);
        }
        match self.revoked.len() > before {
            true => Ok(self),
            false => Err(TlsConfigError::NoRevocationList),
        }
    }
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsRoots({} authorities)", self.store.len())
    }
}

/// How a server speaks TLS. Clones are the same, also after [`replace`](TlsServer::replace).
#[derive(Clone)]
pub struct TlsServer(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsServer {
    /// Shows this certificate, and takes any client.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or are of a kind that is not known.
    pub fn new(identity: TlsIdentity) -> Result<TlsServer, TlsConfigError> {
        TlsServer::build(identity, None)
    }

    /// Shows this certificate, and takes only clients with a certificate of these authorities: mutual TLS.
    ///
    /// # Errors
    /// As [`new`](TlsServer::new), or when `clients` are none.
    pub fn mutual(identity: TlsIdentity, clients: TlsRoots) -> Result<TlsServer, TlsConfigError> {
        TlsServer::build(identity, Some((clients, true)))
    }

    /// The same, but clients may be without a certificate, too; then they have no identity.
    ///
    /// # Errors
    /// As [`mutual`](TlsServer::mutual).
    pub fn mutual_if_offered(
        identity: TlsIdentity,
        clients: TlsRoots,
    ) -> Result<TlsServer, TlsConfigError> {
        TlsServer::build(identity, Some((clients, false)))
    }

    fn build(
        identity: TlsIdentity,
        clients: Option<(TlsRoots, bool)>,
    ) -> Result<TlsServer, TlsConfigError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsConfigError::of)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some((roots, required)) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store), provider)
                        .with_crls(roots.revoked);
                let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier
                    .build()
                    .map_err(|error| TlsConfigError::Roots { reason: error.to_string() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let built = builder.with_single_cert(identity.chain, identity.key);
        let mut config = built.map_err(TlsConfigError::of)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_secret_extraction = true;
        Ok(TlsServer(Arc::new(RwLock::new(Arc::new(config)))))
    }

    /// Connections that are accepted from now on are as `next` says: with its certificate and its idea of
    /// clients. Those that there are go on as they began; sessions of before are not resumed.
    pub fn replace(&self, next: &TlsServer) {
        let next = next.current();
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = next;
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

/// How a client speaks TLS. Clones are the same, also after [`replace`](TlsClient::replace); a
/// [`server_name`](TlsClient::server_name) is each clone's own.
#[derive(Clone)]
pub struct TlsClient {
    settings: Arc<RwLock<ClientSettings>>,
    name: Option<ServerName<'static>>,
}

/// What is replaced, all at once.
#[derive(Clone)]
pub(crate) struct ClientSettings {
    pub(crate) config: Arc<ClientConfig>,
    /// Servers have to prove who they are.
    pub(crate) is_verifying: bool,
}

impl TlsClient {
    /// Connects to servers with a certificate of these authorities, for the name that is connected to.
    ///
    /// # Errors
    /// When there are no authorities.
    pub fn new(roots: TlsRoots) -> Result<TlsClient, TlsConfigError> {
        TlsClient::build(Some(roots), None)
    }

    /// The same, and shows this certificate to servers that ask for one: mutual TLS.
    ///
    /// # Errors
    /// Also when certificate and key do not belong together, or are of a kind that is not known.
    pub fn mutual(roots: TlsRoots, identity: TlsIdentity) -> Result<TlsClient, TlsConfigError> {
        TlsClient::build(Some(roots), Some(identity))
    }

    /// Connects to anybody who speaks TLS: **whoever is on the way reads and changes everything**. For tests.
    ///
    /// # Errors
    /// When certificate and key do not belong together, or are of a kind that is not known.
    pub fn dangerous_without_verification(
        identity: Option<TlsIdentity>,
    ) -> Result<TlsClient, TlsConfigError> {
        TlsClient::build(None, identity)
    }

    fn build(
        roots: Option<TlsRoots>,
        identity: Option<TlsIdentity>,
    ) -> Result<TlsClient, TlsConfigError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsConfigError::of)?;
        let is_verifying = roots.is_some();
        let builder = match roots {
            Some(roots) => {
                let store = Arc::new(roots.store);
                let verifier = WebPkiServerVerifier::builder_with_provider(store, provider)
                    .with_crls(roots.revoked)
                    .build()
                    .map_err(|error| TlsConfigError::Roots { reason: error.to_string() })?;
                builder.with_webpki_verifier(verifier)
            }
            None => DangerousClientConfigBuilder { cfg: builder }
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        };
        let built = match identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key),
            None => Ok(builder.with_no_client_auth()),
        };
        let mut config = built.map_err(TlsConfigError::of)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_secret_extraction = true;
        let settings = ClientSettings { config: Arc::new(config), is_verifying };
        Ok(TlsClient { settings: Arc::new(RwLock::new(settings)), name: None })
    }

    /// Expects servers to be called so, whatever the address that is connected to: a DNS name or an IP
    /// address. It is sent to the server in the clear (SNI), unless it is an IP address.
    ///
    /// # Errors
    /// When it cannot be a name.
    pub fn server_name(mut self, name: &str) -> Result<TlsClient, TlsConfigError> {
        self.name = Some(server_name_of(name)?);
        Ok(self)
    }

    /// Connections that are made from now on are as `next` says, but for its name.
    pub fn replace(&self, next: &TlsClient) {
        let next = next.current();
        *self.settings.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = next;
    }

    pub(crate) fn current(&self) -> ClientSettings {
        self.settings.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The name that a server at this host must have.
    pub(crate) fn name_of(&self, host: &str) -> Result<ServerName<'static>, TlsConfigError> {
        self.name.clone().map_or_else(|| server_name_of(host), Ok)
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("server_name", &self.name)
            .field("is_verifying", &self.current().is_verifying)
            .finish_non_exhaustive()
    }
}

fn server_name_of(name: &str) -> Result<ServerName<'static>, TlsConfigError> {
    let parsed = ServerName::try_from(name.to_owned());
    parsed.map_err(|_| TlsConfigError::Name { name: name.to_owned() })
}

/// The ciphers and key exchanges of ring.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes any certificate whose key its owner has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Where certificates and keys came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsSource {
    /// Text that was given.
    Memory,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsSource::Memory => f.write_str("the PEM text"),
            TlsSource::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is wrong with how TLS was set up. Says what to do, and nothing that is secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file cannot be read.
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There is no certificate where one was expected.
    NoCertificate {
        /// Where.
        source: TlsSource,
    },
    /// There is no private key where one was expected.
    NoKey {
        /// Where.
        source: TlsSource,
    },
    /// There is no revocation list in what was given.
    NoRevocationList,
    /// A section is cut off, or not what it says that it is.
    BadPem {
        /// Where.
        source: TlsSource,
    },
    /// The key is not that of the certificate.
    KeyMismatch,
    /// The authorities cannot be used.
    Roots {
        /// Why not.
        reason: String,
    },
    /// No server can be called so.
    Name {
        /// What was given.
        name: String,
    },
    /// The certificate or the key cannot be used.
    Unusable {
        /// Why not.
        reason: String,
    },
}

impl TlsConfigError {
    pub(crate) fn of(error: Error) -> TlsConfigError {
        match error {
            Error::InconsistentKeys(_) => TlsConfigError::KeyMismatch,
            error => TlsConfigError::Unusable { reason: error.to_string() },
        }
    }
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsConfigError::File { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            TlsConfigError::NoCertificate { source } => write!(
                f,
                "there is no certificate in {source}: it should have a section \
                 `-----BEGIN CERTIFICATE-----`"
            ),
            TlsConfigError::NoKey { source } => write!(
                f,
                "there is no private key in {source}: it should have a section \
                 `-----BEGIN PRIVATE KEY-----`, not encrypted"
            ),
            TlsConfigError::NoRevocationList => f.write_str(
                "there is no revocation list in the PEM text: it should have a section `-----BEGIN X509 CRL-----`",
            ),
            TlsConfigError::BadPem { source } => {
                write!(f, "{source} is damaged: a section of it cannot be read")
            }
            TlsConfigError::KeyMismatch => f.write_str(
                "the private key does not belong to the certificate: were the files of two certificates mixed up?",
            ),
            TlsConfigError::Roots { reason } => {
                write!(f, "the authorities to trust cannot be used: {reason}")
            }
            TlsConfigError::Name { name } => write!(
                f,
                "{name:?} is no name of a server: give a DNS name or an IP address with `TlsClient::server_name`"
            ),
            TlsConfigError::Unusable { reason } => {
                write!(f, "the certificate or the key cannot be used: {reason}")
            }
        }
    }
}

impl std::error::Error for TlsConfigError {}

fn read(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    std::fs::read(path).map_err(|error| TlsConfigError::File { path: path.to_owned(), error })
}

fn certificates(
    source: &TlsSource,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate =
            certificate.map_err(|_| TlsConfigError::BadPem { source: source.clone() })?;
        found.push(certificate);
    }
    match found.is_empty() {
        true => Err(TlsConfigError::NoCertificate { source: source.clone() }),
        false => Ok(found),
    }
}
