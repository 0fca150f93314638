//! Mutual TLS: a server that takes only clients of its own authority, and asks itself which of them may do
//! what; and a certificate that is changed while it serves.
//!
//! ```text
//! $ cargo run --release --example tls
//! "reader" opens the safe: the caller may not do this (refused)
//! "keeper" opens the safe: "gold", handed to spiffe://bank/keeper
//! a stranger: TLS: the peer does not trust whoever signed this side's certificate (not sent)
//! the certificate was changed; who had connected before goes on: "gold", handed to spiffe://bank/keeper
//! who connects now sees the new one: "gold", handed to spiffe://bank/keeper
//! ```
//!
//! Certificates are made here, with `rcgen`. Those of a real service come from files:
//! `TlsIdentity::from_pem_files("server.pem", "server.key")` and `TlsRoots::from_pem_file("authority.pem")`.

use std::error::Error;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use ringcall::{Access, Context, Failure, Server, TlsClient, TlsIdentity, TlsRoots, TlsServer};

#[ringcall::service(name = "bank.Safe")]
trait Safe {
    async fn look(&self) -> String;
    async fn open(&self, cx: &Context) -> String;
}

#[derive(Clone)]
struct Cellar;

impl Safe for Cellar {
    async fn look(&self) -> String {
        "a door".to_owned()
    }

    async fn open(&self, cx: &Context) -> String {
        // Who it is has been proved by its certificate.
        let names = cx.peer_identity().map(|peer| peer.uris()).unwrap_or_default();
        format!("\"gold\", handed to {}", names.join(", "))
    }
}

/// Whoever signs certificates for the bank.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Authority, Box<dyn Error>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Authority(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn roots(&self) -> Result<TlsRoots, Box<dyn Error>> {
        Ok(TlsRoots::from_pem(self.0.pem().as_bytes())?)
    }

    /// A certificate for a host, which is also somebody by its URI.
    fn sign(&self, host: &str, who: &str) -> Result<TlsIdentity, Box<dyn Error>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.subject_alt_names.push(SanType::URI(format!("spiffe://bank/{who}").try_into()?));
        let certificate = params.signed_by(&key, &self.0)?.pem();
        Ok(TlsIdentity::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes())?)
    }

    fn server(&self) -> Result<TlsServer, Box<dyn Error>> {
        Ok(TlsServer::mutual(self.sign("localhost", "server")?, self.roots()?)?)
    }

    fn client(&self, who: &str, trusted: &Authority) -> Result<TlsClient, Box<dyn Error>> {
        let client = TlsClient::mutual(trusted.roots()?, self.sign("client", who)?)?;
        // The address below is a number: this is the name that the server must have.
        Ok(client.server_name("localhost")?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let bank = Authority::new("bank")?;
    let tls = bank.server()?;
    let server = Server::bind("127.0.0.1:0").service(Cellar.into_safe()).tls(tls.clone());
    let server = server.authorize_calls(|call| {
        let who = call.connection().peer_identity().map(|peer| peer.uris()).unwrap_or_default();
        match call.method() {
            "bank.Safe/open" if !who.contains(&"spiffe://bank/keeper".to_owned()) => {
                Access::forbidden("only the keeper opens the safe")
            }
            _ => Access::Allow,
        }
    });
    let server = server.start()?;
    let connect = |client| SafeClient::connect(server.address()).tls(client).wait();

    let reader = connect(bank.client("reader", &bank)?)?;
    assert_eq!(*reader.look().wait()?, *"a door");
    let refused = reader.open().wait().expect_err("it may look, not open");
    println!("\"reader\" opens the safe: {refused}");

    let keeper = connect(bank.client("keeper", &bank)?)?;
    println!("\"keeper\" opens the safe: {}", &*keeper.open().wait()?);

    let stranger: Result<_, Failure> =
        connect(Authority::new("elsewhere")?.client("keeper", &bank)?);
    println!("a stranger: {}", stranger.err().ok_or("nobody knows this stranger")?);

    // Another authority from now on: a new certificate for the server, and other clients.
    let next = Authority::new("bank, since today")?;
    tls.replace(&next.server()?);
    let gold = keeper.open().wait()?;
    println!("the certificate was changed; who had connected before goes on: {}", &*gold);
    let newcomer = connect(next.client("keeper", &next)?)?;
    println!("who connects now sees the new one: {}", &*newcomer.open().wait()?);
    Ok(())
}
