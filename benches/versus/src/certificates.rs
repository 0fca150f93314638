//! What both sides of a subject with TLS know: made by the process that starts them, left in their environment.

use std::process::Command;

use ringcall::{TlsClient, TlsIdentity, TlsRoots, TlsServer};

use crate::Result;

const CERTIFICATE: &str = "VERSUS_CERTIFICATE";
const KEY: &str = "VERSUS_KEY";

/// A certificate for `localhost` that its own authority is, and its key, both in PEM.
pub(crate) struct Certificates {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certificates {
    pub(crate) fn new() -> Result<Certificates> {
        let key = rcgen::KeyPair::generate()?;
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Certificates { certificate, key: key.serialize_pem() })
    }

    /// Gives them to a process that is to be started.
    pub(crate) fn give(&self, command: &mut Command) {
        command.env(CERTIFICATE, &self.certificate).env(KEY, &self.key);
    }

    /// What this process was given.
    pub(crate) fn given() -> Result<Certificates> {
        Ok(Certificates { certificate: std::env::var(CERTIFICATE)?, key: std::env::var(KEY)? })
    }

    pub(crate) fn server(&self) -> Result<TlsServer> {
        let (certificate, key) = (self.certificate.as_bytes(), self.key.as_bytes());
        Ok(TlsServer::new(TlsIdentity::from_pem(certificate, key)?)?)
    }

    pub(crate) fn client(&self) -> Result<TlsClient> {
        let roots = TlsRoots::from_pem(self.certificate.as_bytes())?;
        Ok(TlsClient::new(roots)?.server_name("localhost")?)
    }
}
