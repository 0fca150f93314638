//! With certificates.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Access, Server, TlsIdentity, TlsRoots, TlsServer};
use ringcall_cli::Exit;

use crate::served::{ringcall, serve};

/// An authority, and files of it and of a certificate for `localhost`.
struct Certificates {
    ca: String,
    cert: String,
    key: String,
}

impl Certificates {
    fn make(name: &str) -> Certificates {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        let file = |kind: &str, pem: String| {
            let path = format!("{}/{name}-{kind}.pem", env!("CARGO_TARGET_TMPDIR"));
            std::fs::write(&path, pem).unwrap();
            path
        };
        Certificates {
            ca: file("ca", ca.pem()),
            cert: file("cert", cert.pem()),
            key: file("key", key.serialize_pem()),
        }
    }

    fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_pem_files(&self.cert, &self.key).unwrap()
    }
}

#[test]
fn a_server_with_a_certificate_is_called() {
    let bank = Certificates::make("bank");
    let roots = TlsRoots::from_pem_file(&bank.ca).unwrap();
    let server = Server::bind("127.0.0.1:0").service(Interface.into_reflection());
    let server = server.tls(TlsServer::mutual(bank.identity(), roots).unwrap()).start().unwrap();
    let at = server.address().to_string();
    let whole = [
        "--tls",
        "--ca",
        &bank.ca,
        "--cert",
        &bank.cert,
        "--key",
        &bank.key,
        "--tls-name",
        "localhost",
    ];
    let listed = ringcall(&[&["list", &at][..], &whole].concat());
    assert_eq!(listed.exit, Exit::Done, "{listed:?}");
    // The certificate is for a name, and this is an address.
    let unnamed = ringcall(&[&["list", &at][..], &whole[..7]].concat());
    assert!(unnamed.says(Exit::NotConnected).contains("--tls-name"), "{unnamed:?}");
    // The authority is none that browsers trust.
    let unknown = ringcall(&["list", &at, "--tls", "--tls-name", "localhost"]);
    assert!(unknown.says(Exit::NotConnected).contains("--ca FILE"), "{unknown:?}");
    let plain = ringcall(&["list", &at]);
    assert!(plain.says(Exit::NotConnected).contains("add `--tls`"), "{plain:?}");
    let no_file = ringcall(&["list", &at, "--tls", "--ca", "/no/such/file"]);
    assert!(no_file.says(Exit::Misused).contains("/no/such/file"), "{no_file:?}");
}

#[test]
fn a_server_without_one_is_not() {
    let (_server, at) = serve();
    let ran = ringcall(&["list", &at, "--tls"]);
    assert!(ran.says(Exit::NotConnected).contains("leave out `--tls`"), "{ran:?}");
}

#[test]
fn credentials_are_shown() {
    let server = Server::bind("127.0.0.1:0").service(Interface.into_reflection());
    let server = server.authorize(|who| match who.credentials() {
        Some(shown) if shown.matches("secret") => Access::Allow,
        _ => Access::forbidden("who is this"),
    });
    let server = server.start().unwrap();
    let at = server.address().to_string();
    let path = format!("{}/token", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, "secret\n").unwrap();
    assert_eq!(ringcall(&["list", &at, "--credentials", &path]).exit, Exit::Done);
    let ran = ringcall(&["list", &at]);
    assert!(ran.stderr.contains("--credentials"), "{ran:?}");
}
