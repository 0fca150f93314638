//! From the errors of rustls to ours.

use ringcall_core::TlsFault;
use rustls::{CertificateError, Error, PeerIncompatible};

pub(crate) fn fault_of(error: &Error) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => certificate_fault(error),
        Error::NoCertificatesPresented => TlsFault::CertificateMissing,
        Error::AlertReceived(alert) => TlsFault::Alert(u8::from(*alert)),
        Error::NoApplicationProtocol => TlsFault::NoCommonProtocol,
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic,
        ) => TlsFault::NoCommonVersion,
        Error::PeerIncompatible(_) => TlsFault::NoCommonSuite,
        Error::DecryptError => TlsFault::Tampered,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord => TlsFault::Malformed,
        _ => TlsFault::Internal,
    }
}

fn certificate_fault(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            TlsFault::CertificateExpired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFault::CertificateNotYetValid
        }
        CertificateError::UnknownIssuer => TlsFault::CertificateUnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFault::CertificateWrongName
        }
        CertificateError::Revoked => TlsFault::CertificateRevoked,
        _ => TlsFault::CertificateBad,
    }
}
