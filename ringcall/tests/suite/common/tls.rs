//! Certificates for tests, made when they are needed.

use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use ringcall::{TlsClient, TlsIdentity, TlsRoots, TlsServer};

/// An authority and what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Now,
    Past,
    Future,
}

/// A certificate and its key, in PEM.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Signed {
    pub fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).expect("a pair")
    }
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn roots(&self) -> TlsRoots {
        TlsRoots::from_pem(self.pem().as_bytes()).expect("an authority")
    }

    /// A certificate for this name, and `localhost` addresses if it is `localhost`.
    pub fn sign(&self, name: &str, validity: Validity) -> Signed {
        self.sign_numbered(name, validity, 7)
    }

    pub fn sign_numbered(&self, name: &str, validity: Validity, serial: u64) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let params = params(name, validity, serial);
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A list that revokes one serial number.
    pub fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}

/// A certificate that nobody but its owner has signed.
pub fn self_signed(name: &str) -> Signed {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(name, Validity::Now, 1).self_signed(&key).expect("signed");
    Signed { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn params(name: &str, validity: Validity, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    if name == "localhost" {
        for address in ["127.0.0.1", "::1"] {
            let address = address.parse().expect("an address");
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
    }
    let uri = format!("spiffe://test/{name}").try_into().expect("a URI");
    params.subject_alt_names.push(SanType::URI(uri));
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1)),
        Validity::Past => (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 1, 2)),
        Validity::Future => (date_time_ymd(2119, 1, 1), date_time_ymd(2120, 1, 1)),
    };
    params
}

/// Both sides of a connection as most tests have them.
pub fn both() -> (TlsServer, TlsClient) {
    static BOTH: OnceLock<(TlsServer, TlsClient)> = OnceLock::new();
    let (server, client) = BOTH.get_or_init(|| {
        let authority = Authority::new("test");
        let server = authority.sign("localhost", Validity::Now).identity();
        (TlsServer::new(server).unwrap(), TlsClient::new(authority.roots()).unwrap())
    });
    (server.clone(), client.clone())
}
