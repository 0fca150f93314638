//! Who is at the other side.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// Whom the other side's certificate names. There is one only of certificates that were verified.
pub struct PeerIdentity {
    chain: Vec<CertificateDer<'static>>,
}

impl PeerIdentity {
    pub(crate) fn new(chain: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let identity = PeerIdentity { chain };
        identity.leaf().is_some().then_some(identity)
    }

    fn leaf(&self) -> Option<EndEntityCert<'_>> {
        self.chain.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok())
    }

    /// Its certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    /// The certificates that it sent along with its own, in DER.
    pub fn intermediates(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().skip(1).map(|certificate| &**certificate)
    }

    /// The subject of its certificate: the inside of a DER `Name`.
    #[must_use]
    pub fn subject(&self) -> Vec<u8> {
        self.leaf().map(|leaf| leaf.subject().to_vec()).unwrap_or_default()
    }

    /// The serial number of its certificate, as it stands there: big endian.
    #[must_use]
    pub fn serial(&self) -> Vec<u8> {
        self.leaf().map(|leaf| leaf.serial().to_vec()).unwrap_or_default()
    }

    /// The DNS names among its subject's alternative names.
    #[must_use]
    pub fn dns_names(&self) -> Vec<String> {
        self.leaf()
            .map(|leaf| leaf.valid_dns_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// The URIs among them, such as `spiffe://company/service`.
    #[must_use]
    pub fn uris(&self) -> Vec<String> {
        self.leaf()
            .map(|leaf| leaf.valid_uri_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity")
            .field("dns_names", &self.dns_names())
            .field("uris", &self.uris())
            .finish_non_exhaustive()
    }
}
