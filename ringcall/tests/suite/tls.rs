//! TLS: who is let in, who is not, and that everybody is told why.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::alone::in_its_own_process;
use crate::common::tls::{Authority, Validity, both, self_signed};
use crate::common::{
    Cook, Kitchen, KitchenClient, Pair, Seen, Socket, eventually, order, over_every_engine,
    over_every_pair, over_one_pair,
};
use ringcall::limits::{Limits, Rate};
use ringcall::{
    Access, Address, BlockingClient, Bytes, CallError, CallerKey, Cause, CloseCode, CloseReason,
    Config, Context, Credentials, Expected, Failure, Identity, RunningServer, SendContext, Server,
    ShardConfig, Status, TlsClient, TlsConfigError, TlsFault, TlsIdentity, TlsRoots, TlsServer,
    WithCredentials, same_secret,
};

fn settings(pair: Pair, tls: Option<TlsClient>) -> ShardConfig {
    let mut config = ShardConfig::default();
    config.transport = pair.client;
    config.client_tls = tls;
    config
}

fn connect(pair: Pair, address: &Address, tls: &TlsClient) -> Result<BlockingClient, Failure> {
    BlockingClient::connect_with(address, settings(pair, Some(tls.clone())))
}

fn bind(pair: Pair) -> Server {
    crate::common::bind(pair.socket).transport(pair.server)
}

fn serve(pair: Pair, tls: TlsServer) -> (RunningServer, Arc<Seen>) {
    let cook = Cook::default();
    let seen = Arc::clone(&cook.seen);
    (pair.start(bind(pair).tls(tls).service(cook.into_kitchen())), seen)
}

fn why(error: &(impl Clone + Into<Failure>)) -> CloseReason {
    match error.clone().into().cause {
        Cause::Closed(reason) => reason,
        other => panic!("{other}"),
    }
}

fn status(error: &CallError) -> Status {
    match error {
        CallError::Failed(failure @ Failure { cause: Cause::Status(status), .. }) => {
            assert!(failure.is_safe_to_retry());
            *status
        }
        other => panic!("{other}"),
    }
}

fn port(server: &RunningServer) -> std::net::SocketAddr {
    match server.address() {
        Address::Tcp(address) => *address,
        other => panic!("{other} is no TCP address"),
    }
}

#[test]
fn calls_of_every_size_go_through() {
    over_every_pair(|pair| {
        let (tls, client) = both();
        let (server, _) = serve(pair, tls);
        let client = connect(pair, server.address(), &client).expect("the server accepts");
        let kitchen = KitchenClient::new(&client);
        for id in 0..100 {
            assert_eq!(kitchen.cook(&order(id)).wait().unwrap().to_owned(), order(id));
        }
        for len in [0, 1, 4095, 16_384, 16_385, 100_000, 400_000] {
            let body = Bytes::from(vec![len as u8; len]);
            assert_eq!(*kitchen.raw(&body).wait().unwrap(), body[..], "{len}");
        }
        assert!(client.shard().counters().copied_tls > 0);
        // And perhaps the question for the table of methods.
        assert!(matches!(server.stop().requests_answered, 107 | 108));
    });
}

/// What a client finds wrong with a server.
#[test]
fn h01_a_server_that_cannot_be_trusted_is_left() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let trusting = TlsClient::new(authority.roots()).unwrap();
    let revoking = authority.roots().revoking(authority.revoke(13).as_bytes()).unwrap();
    let revoking = TlsClient::new(revoking).unwrap();
    let named = trusting.clone().server_name("db.example").unwrap();
    let cases = [
        (authority.sign("localhost", Validity::Now), &trusting, None),
        (
            authority.sign("localhost", Validity::Past),
            &trusting,
            Some(TlsFault::CertificateExpired),
        ),
        (
            authority.sign("localhost", Validity::Future),
            &trusting,
            Some(TlsFault::CertificateNotYetValid),
        ),
        (
            authority.sign("other.example", Validity::Now),
            &trusting,
            Some(TlsFault::CertificateWrongName),
        ),
        (authority.sign("localhost", Validity::Now), &named, Some(TlsFault::CertificateWrongName)),
        (authority.sign("db.example", Validity::Now), &named, None),
        (
            stranger.sign("localhost", Validity::Now),
            &trusting,
            Some(TlsFault::CertificateUnknownIssuer),
        ),
        (self_signed("localhost"), &trusting, Some(TlsFault::CertificateUnknownIssuer)),
        (
            authority.sign_numbered("localhost", Validity::Now, 13),
            &revoking,
            Some(TlsFault::CertificateRevoked),
        ),
        (authority.sign_numbered("localhost", Validity::Now, 14), &revoking, None),
    ];
    over_every_pair(|pair| {
        for (signed, client, fault) in &cases {
            let (server, _) = serve(pair, TlsServer::new(signed.identity()).unwrap());
            let connected = connect(pair, server.address(), client);
            match fault {
                None => drop(connected.expect("it can be trusted")),
                Some(fault) => {
                    let error = connected.expect_err("it cannot be trusted");
                    assert_eq!(why(&error), CloseReason::Tls(*fault));
                    assert!(error.to_string().contains("certificate"), "{error}");
                    eventually("the server hears of it", || {
                        server.incidents().handshakes_failed > 0
                    });
                }
            }
        }
    });
}

#[test]
fn g07_with_tls_an_identity_is_still_only_said() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let trusting = TlsClient::new(authority.roots()).unwrap();
    let [a, b] = ["a1", "b7"].map(|text| Identity::new(text).unwrap());
    over_every_pair(|pair| {
        let serve_as = |authority: &Authority, identity: &Identity| {
            let tls = TlsServer::new(authority.sign("localhost", Validity::Now).identity());
            let server = bind(pair).tls(tls.unwrap()).identity(identity.clone());
            pair.start(server.service(Cook::default().into_kitchen()))
        };
        let connect = |server: &RunningServer| {
            let connect = KitchenClient::connect(server.address()).transport(pair.client);
            connect.tls(trusting.clone()).expecting(Expected::new(a.clone()).required()).wait()
        };
        let right = serve_as(&authority, &a);
        connect(&right).unwrap().nothing().wait().unwrap();
        drop(right);
        // A certificate that is trusted is no identity, and the right identity no certificate.
        let wrong = serve_as(&authority, &b);
        assert_eq!(why(&connect(&wrong).unwrap_err()), CloseReason::WrongInstance);
        drop(wrong);
        let untrusted = serve_as(&stranger, &a);
        let error = connect(&untrusted).unwrap_err();
        assert_eq!(why(&error), CloseReason::Tls(TlsFault::CertificateUnknownIssuer));
    });
}

/// What a server finds wrong with a client: the client is told.
#[test]
fn h01_a_client_that_cannot_be_trusted_is_told() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let server = authority.sign("localhost", Validity::Now);
    let clients = [
        (Some(authority.sign("worker", Validity::Now)), None),
        (None, Some(116)),
        (Some(authority.sign("worker", Validity::Past)), Some(45)),
        (Some(stranger.sign("worker", Validity::Now)), Some(48)),
    ];
    over_every_pair(|pair| {
        let tls = TlsServer::mutual(server.identity(), authority.roots()).unwrap();
        let (server, seen) = serve(pair, tls);
        for (signed, alert) in &clients {
            let client = match signed {
                Some(signed) => TlsClient::mutual(authority.roots(), signed.identity()),
                None => TlsClient::new(authority.roots()),
            };
            let connected = connect(pair, server.address(), &client.unwrap());
            match alert {
                None => {
                    let kitchen = connected.map(KitchenClient::new).expect("it can be trusted");
                    kitchen.toss(&1).wait().unwrap();
                    kitchen.nothing().wait().unwrap();
                }
                Some(alert) => {
                    let error = connected.expect_err("it cannot be trusted");
                    assert_eq!(why(&error), CloseReason::Tls(TlsFault::Alert(*alert)), "{error}");
                    assert!(error.to_string().contains("certificate"), "{error}");
                }
            }
        }
        // Of the one that can be.
        assert_eq!(seen.tossed.load(Ordering::SeqCst), 1);
        // On a busy machine one may have tried again meanwhile.
        eventually("the others are counted", || server.incidents().handshakes_failed >= 3);
    });
}

#[test]
fn d15_callers_are_told_apart_by_whom_their_certificates_name() {
    let authority = Authority::new("ours");
    let server = authority.sign("localhost", Validity::Now);
    // The second one is the first, renewed.
    let names = ["worker", "worker", "clerk"];
    let signed = names.map(|name| authority.sign(name, Validity::Now));
    over_one_pair(|pair| {
        let tls = TlsServer::mutual(server.identity(), authority.roots()).unwrap();
        let rate = Rate::new(2, Duration::from_secs(3600)).each(CallerKey::Certificate);
        let server = bind(pair).tls(tls).service(Cook::default().into_kitchen());
        let server = pair.start(server.limits(Limits::default().rate(rate)));
        let clients = signed.each_ref().map(|signed| {
            let client = TlsClient::mutual(authority.roots(), signed.identity()).unwrap();
            KitchenClient::new(connect(pair, server.address(), &client).expect("it can be trusted"))
        });
        let is_served = [0, 1, 0, 1, 2, 2, 2].map(|of: usize| clients[of].nothing().wait().is_ok());
        assert_eq!(is_served, [true, true, false, false, true, true, false]);
        assert_eq!(server.incidents().over_rate, 3);
    });
}

#[test]
fn h01_only_danger_connects_to_anybody() {
    over_one_pair(|pair| {
        let tls = TlsServer::new(self_signed("elsewhere").identity()).unwrap();
        let (server, _) = serve(pair, tls);
        let client = TlsClient::dangerous_without_verification(None).unwrap();
        let client = connect(pair, server.address(), &client).expect("anybody will do");
        KitchenClient::new(&client).nothing().wait().unwrap();
    });
}

/// Something on the way between a client and a server: gets every piece of what goes either way.
struct Way {
    address: Address,
    carried: Arc<[AtomicU64; 2]>,
}

/// What becomes of a piece that came from the client (0) or the server (1), behind so many bytes. Nothing: the
/// way ends.
type Change = dyn Fn(usize, u64, &mut Vec<u8>) + Send + Sync;

impl Way {
    fn to(server: &RunningServer, piece: usize, change: Arc<Change>) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let (to, carried) = (port(server), Arc::<[AtomicU64; 2]>::default());
        let counts = Arc::clone(&carried);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(to) else { return };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let ends = [(&client, &server), (&server, &client)];
                for (way, (from, to)) in ends.into_iter().enumerate() {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (change, counts) = (Arc::clone(&change), Arc::clone(&counts));
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; piece];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            let mut bytes = buffer[..n].to_vec();
                            let before = counts[way].fetch_add(n as u64, Ordering::SeqCst);
                            change(way, before, &mut bytes);
                            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Way { address, carried }
    }
}

#[test]
fn h02_a_handshake_may_come_byte_by_byte() {
    over_every_pair(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let (tls, client) = both();
        let (server, _) = serve(pair, tls);
        let way = Way::to(&server, 1, Arc::new(|_, _, _| {}));
        let client = connect(pair, &way.address, &client).expect("slow is no fault");
        assert_eq!(KitchenClient::new(&client).taste(&order(4)).wait().unwrap(), 4);
    });
}

#[test]
fn h02_a_handshake_that_stalls_has_its_time() {
    over_every_engine(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let config = Config::new().handshake_timeout(Duration::from_millis(150));
        let server = bind(pair).tls(both().0).config(config);
        let server = pair.start(server.service(Cook::default().into_kitchen()));
        // A record of a handshake that says it is longer than what comes.
        let mut stream = TcpStream::connect(port(&server)).unwrap();
        stream.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3]).unwrap();
        assert_eq!(stream.read(&mut [0; 100]).unwrap(), 0);
        eventually("it is counted", || server.incidents().closed_for_time == 1);
        assert_eq!(server.connections(), 0);
    });
}

#[test]
fn h02_floods_before_the_keys_are_bounded() {
    over_one_pair(|pair| {
        let (server, _) = serve(pair, both().0);
        let mut stream = TcpStream::connect(port(&server)).unwrap();
        // A first message of 16 MiB, in whole records.
        let mut record = vec![0x16, 3, 1, 0x40, 0];
        record.extend([1, 255, 255, 255]);
        record.resize(5 + (1 << 14), 0);
        let sent = (0..100).take_while(|_| stream.write_all(&record).is_ok()).count();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100, "{sent} records led to {} bytes", answer.len());
        eventually("the connection is closed", || server.connections() == 0);
        assert_eq!(server.incidents().handshakes_failed, 1);
    });
}

#[test]
fn h03_certificates_change_while_it_serves() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server_of = |authority: &Authority| {
        TlsServer::new(authority.sign("localhost", Validity::Now).identity()).unwrap()
    };
    let client_of = |authority: &Authority| TlsClient::new(authority.roots()).unwrap();
    over_every_pair(|pair| {
        let tls = server_of(&old);
        let (server, _) = serve(pair, tls.clone());
        let first = connect(pair, server.address(), &client_of(&old)).unwrap();
        KitchenClient::new(&first).nothing().wait().unwrap();
        tls.replace(&server_of(&new));
        let second = connect(pair, server.address(), &client_of(&new)).expect("the new one");
        let error = connect(pair, server.address(), &client_of(&old)).expect_err("it is gone");
        assert_eq!(why(&error), CloseReason::Tls(TlsFault::CertificateUnknownIssuer));
        for client in [&first, &second] {
            KitchenClient::new(client).nothing().wait().unwrap();
        }
        // A client's, too, for its next connection.
        let changing = client_of(&old);
        changing.replace(&client_of(&new));
        drop(connect(pair, server.address(), &changing).expect("it trusts the new one now"));
    });
}

#[test]
fn h04_without_tls_at_a_server_with_it() {
    over_every_pair(|pair| {
        let (server, _) = serve(pair, both().0);
        let connected = BlockingClient::connect_with(server.address(), settings(pair, None));
        let error = connected.expect_err("one of them speaks TLS");
        assert_eq!(why(&error), CloseReason::PeerSpeaksTls);
        assert!(error.to_string().contains("Connect::tls"), "{error}");
        eventually("it is counted", || server.incidents().closed_for_protocol >= 1);
        assert!(CloseReason::PeerSpeaksPlaintext.to_string().contains("Connect::tls"));
    });
}

#[test]
fn h04_with_tls_at_a_server_without_it() {
    over_every_pair(|pair| {
        let server = pair.start(bind(pair).service(Cook::default().into_kitchen()));
        let error = connect(pair, server.address(), &both().1).expect_err("one has no TLS");
        assert_eq!(why(&error), CloseReason::Tls(TlsFault::Unanswered));
        assert!(error.to_string().contains("Server::tls"), "{error}");
        eventually("it is counted", || server.incidents().closed_for_protocol >= 1);
    });
}

#[test]
fn h05_connections_are_denied_by_who_makes_them() {
    over_every_pair(|pair| {
        let authority = Authority::new("ours");
        let server = authority.sign("localhost", Validity::Now).identity();
        let tls = TlsServer::mutual_if_offered(server, authority.roots()).unwrap();
        let server = bind(pair).tls(tls).service(Cook::default().into_kitchen());
        let server = pair.start(server.authorize(|connection| {
            let name = connection.peer_identity().map(|peer| peer.dns_names());
            let token = connection.credentials();
            match (name.as_deref(), token) {
                (Some([name]), _) if name == "worker" => Access::Allow,
                (_, Some(token)) if token.matches("open sesame") => Access::Allow,
                (None, None) => Access::unauthenticated("neither certificate nor token"),
                _ => Access::forbidden("somebody else"),
            }
        }));
        let dial = |name: Option<&str>, token: Option<&str>| {
            let tls = match name {
                Some(name) => {
                    let identity = authority.sign(name, Validity::Now).identity();
                    TlsClient::mutual(authority.roots(), identity).unwrap()
                }
                None => TlsClient::new(authority.roots()).unwrap(),
            };
            let mut connect = KitchenClient::connect(server.address()).transport(pair.client);
            if let Some(token) = token {
                connect = connect.credentials(Credentials::new(token).unwrap());
            }
            connect.tls(tls).wait()?.nothing().wait()
        };
        assert!(dial(Some("worker"), None).is_ok() && dial(None, Some("open sesame")).is_ok());
        for (name, token) in
            [(None, None), (Some("nobody"), None), (None, Some("open barley")), (None, Some(""))]
        {
            let error = dial(name, token).expect_err("it may not");
            assert_eq!(why(&error), CloseReason::GoAway(CloseCode::DENIED), "{name:?} {token:?}");
            assert!(error.to_string().contains("credentials"), "{error}");
        }
        assert!(server.incidents().denied >= 4);
    });
}

#[test]
fn h05_calls_are_refused_when_a_token_ends() {
    over_every_pair(|pair| {
        let is_good = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&is_good);
        let server = bind(pair).tls(both().0).service(Cook::default().into_kitchen());
        let server = pair.start(server.authorize_calls(move |call| {
            let token = call.connection().credentials();
            match token.is_some_and(|token| token.matches("token")) {
                _ if call.method() == "test.Kitchen/taste" => Access::forbidden("not this one"),
                true if asked.load(Ordering::SeqCst) => Access::Allow,
                _ => Access::unauthenticated("the token is no longer good"),
            }
        }));
        let connect = KitchenClient::connect(server.address()).transport(pair.client);
        let kitchen = connect.tls(both().1).credentials(Credentials::new("token").unwrap());
        let kitchen = kitchen.wait().unwrap();
        kitchen.nothing().wait().unwrap();
        let error = kitchen.taste(&order(1)).wait().expect_err("not this one");
        let CallError::Failed(failure) = error else { panic!("{error:?}") };
        assert_eq!(failure.cause, Cause::Status(Status::FORBIDDEN));
        is_good.store(false, Ordering::SeqCst);
        assert_eq!(status(&kitchen.nothing().wait().unwrap_err()), Status::UNAUTHENTICATED);
        is_good.store(true, Ordering::SeqCst);
        kitchen.nothing().wait().unwrap();
        // And perhaps the question for the table of methods.
        assert!(matches!(server.stop().requests_answered, 4 | 5));
    });
}

#[test]
fn h05_a_call_has_credentials_of_its_own() {
    over_every_pair(|pair| {
        let server = bind(pair).tls(both().0).service(Cook::default().into_kitchen());
        let server = pair.start(server.authorize_calls(|call| match call.credentials() {
            Some(token) if same_secret(token, b"alice") => Access::Allow,
            Some(_) => Access::forbidden("not alice"),
            None => Access::unauthenticated("nobody"),
        }));
        let client = connect(pair, server.address(), &both().1).unwrap();
        let with = |token: &str| {
            let credentials = Credentials::new(token).unwrap();
            KitchenClient::new(WithCredentials::new(&client, &credentials)).nothing().wait()
        };
        with("alice").unwrap();
        assert_eq!(status(&with("bob").unwrap_err()), Status::FORBIDDEN);
        let nobody = KitchenClient::new(&client).nothing().wait().unwrap_err();
        assert_eq!(status(&nobody), Status::UNAUTHENTICATED);
    });
}

#[test]
fn h05_a_flood_of_refused_calls_ends_its_connection() {
    over_every_pair(|pair| {
        let server = bind(pair).service(Cook::default().into_kitchen());
        let server = pair.start(server.authorize_calls(|_| Access::unauthenticated("never")));
        let kitchen = KitchenClient::connect(server.address()).transport(pair.client);
        let kitchen = kitchen.wait().unwrap();
        let refused = (0..1000)
            .map(|_| kitchen.nothing().wait().expect_err("never"))
            .take_while(|error| {
                matches!(error, CallError::Failed(Failure { cause: Cause::Status(_), .. }))
            })
            .count();
        // The question for the table of methods was refused, too, unless another test has had it answered.
        assert!((63..=64).contains(&refused), "{refused}");
        eventually("it is counted", || server.incidents().denied > 0);
    });
}

#[test]
fn h05_a_hook_that_panics_lets_nobody_in() {
    over_one_pair(|pair| {
        let server = bind(pair).service(Cook::default().into_kitchen());
        let server = pair.start(server.authorize(|_| panic!("as asked")));
        let kitchen = KitchenClient::connect(server.address()).transport(pair.client).wait();
        let error = kitchen.map_err(CallError::from).and_then(|kitchen| kitchen.nothing().wait());
        let error = error.expect_err("nobody");
        assert_eq!(why(&error), CloseReason::GoAway(CloseCode::DENIED));
        drop(server);
    });
}

#[ringcall::service]
trait Who {
    async fn am_i(&self, cx: &Context) -> String;
    #[method(offload)]
    async fn am_i_there(&self, cx: &Context) -> String;
}

#[derive(Clone)]
struct Door;

impl Who for Door {
    async fn am_i(&self, cx: &Context) -> String {
        cx.peer_identity().map_or_else(String::new, |peer| peer.uris().concat())
    }

    async fn am_i_there(&self, cx: &Context) -> String {
        cx.peer_identity().map_or_else(String::new, |peer| peer.dns_names().concat())
    }
}

#[ringcall::service(send)]
trait WhoSent {
    async fn am_i(&self, cx: &SendContext) -> String;
}

impl WhoSent for Door {
    async fn am_i(&self, cx: &SendContext) -> String {
        cx.peer_identity().map_or_else(String::new, |peer| peer.dns_names().concat())
    }
}

#[test]
fn handlers_see_whom_a_certificate_names() {
    over_every_pair(|pair| {
        let authority = Authority::new("ours");
        let server = authority.sign("localhost", Validity::Now).identity();
        let tls = TlsServer::mutual_if_offered(server, authority.roots()).unwrap();
        let server = bind(pair).tls(tls).service(Door.into_who()).service(Door.into_who_sent());
        let server = pair.start(server);
        let identity = authority.sign("worker", Validity::Now).identity();
        let named = TlsClient::mutual(authority.roots(), identity).unwrap();
        let client = connect(pair, server.address(), &named).unwrap();
        let who = WhoClient::new(&client);
        assert_eq!(*who.am_i().wait().unwrap(), *"spiffe://test/worker");
        assert_eq!(*who.am_i_there().wait().unwrap(), *"worker");
        assert_eq!(*WhoSentClient::new(&client).am_i().wait().unwrap(), *"worker");
        let nameless = TlsClient::new(authority.roots()).unwrap();
        let client = connect(pair, server.address(), &nameless).unwrap();
        assert_eq!(*WhoClient::new(&client).am_i().wait().unwrap(), *"");
    });
}

/// Where a client is in what it says, once its connection is established.
fn bytes_of_a_handshake(pair: Pair, server: &RunningServer, client: &TlsClient) -> u64 {
    let way = Way::to(server, 1 << 16, Arc::new(|_, _, _| {}));
    let client = connect(pair, &way.address, client).unwrap();
    KitchenClient::new(&client).toss(&0).wait().unwrap();
    way.carried[0].load(Ordering::SeqCst)
}

#[test]
fn h06_what_is_changed_on_the_way_is_not_delivered() {
    over_every_engine(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let (server, seen) = serve(pair, both().0);
        // In every part of a record but its version, which is ignored.
        let offsets = [0, 3, 4, 5, 20, 60, 80];
        for offset in offsets {
            let at = Arc::new(AtomicU64::new(u64::MAX));
            let changes = Arc::clone(&at);
            let way = Way::to(
                &server,
                1 << 16,
                Arc::new(move |way, before, bytes| {
                    let at = changes.load(Ordering::SeqCst);
                    if way == 1 {
                        return;
                    }
                    if let Some(byte) =
                        at.checked_sub(before).and_then(|at| bytes.get_mut(at as usize))
                    {
                        *byte ^= 0x10;
                    } else if before > at && bytes[0] == 0x16 {
                        // Another handshake: by another connection everything would be heard.
                        bytes.clear();
                    }
                }),
            );
            let client = connect(pair, &way.address, &both().1).unwrap();
            let kitchen = KitchenClient::new(&client);
            // With the second answer all is carried that the client sends of itself.
            kitchen.nothing().wait().unwrap();
            kitchen.nothing().wait().unwrap();
            let carried = way.carried[0].load(Ordering::SeqCst);
            at.store(carried + offset, Ordering::SeqCst);
            for _ in 0..20 {
                let _ = kitchen.toss(&1).wait();
            }
            // Long enough for whatever length a record claims now.
            let behind = kitchen.raw(&Bytes::from(vec![0; 8192])).wait();
            behind.expect_err("nothing is heard behind what was changed");
        }
        // Nothing but what was said, ones, and not all of it.
        assert!(seen.tossed.load(Ordering::SeqCst) < offsets.len() as u64 * 20);
        eventually("it is noticed", || {
            server.incidents().closed_for_protocol == offsets.len() as u64
        });
    });
}

#[test]
fn h06_what_is_sent_again_is_not_delivered() {
    over_every_engine(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let (server, seen) = serve(pair, both().0);
        let established = bytes_of_a_handshake(pair, &server, &both().1);
        let way = Way::to(
            &server,
            1 << 16,
            Arc::new(move |way, before, bytes| {
                if way == 0 && before >= established {
                    bytes.extend_from_within(..);
                }
            }),
        );
        let client = connect(pair, &way.address, &both().1).unwrap();
        let kitchen = KitchenClient::new(&client);
        let _ = kitchen.toss(&1000).wait();
        let _ = kitchen.nothing().wait();
        let _ = kitchen.nothing().wait();
        assert!(seen.tossed.load(Ordering::SeqCst) <= 1000);
        eventually("it is noticed", || server.incidents().closed_for_protocol > 0);
    });
}

#[test]
fn h07_other_protocols_get_no_answer_at_a_tls_port() {
    over_every_engine(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let (server, _) = serve(pair, both().0);
        for opening in
            [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\n", b"SSH-2.0-x\r\n"]
        {
            let mut stream = TcpStream::connect(port(&server)).unwrap();
            stream.write_all(opening).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"");
        }
        eventually("they are counted", || server.incidents().closed_for_protocol == 3);
    });
    let http = CloseReason::UnknownPreface(*b"GET / HT");
    assert!(http.to_string().contains("HTTP"));
}

#[test]
fn an_end_without_goodbye_is_an_error() {
    over_every_pair(|pair| {
        if pair.socket != Socket::Tcp {
            return;
        }
        let (server, _) = serve(pair, both().0);
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        let way = Way::to(
            &server,
            1 << 16,
            Arc::new(move |way, _, bytes| {
                if way == 1 && is_cut.load(Ordering::SeqCst) {
                    bytes.clear();
                }
            }),
        );
        let client = connect(pair, &way.address, &both().1).unwrap();
        let kitchen = KitchenClient::new(&client);
        kitchen.nothing().wait().unwrap();
        cut.store(true, Ordering::SeqCst);
        let error = kitchen.nothing().wait().expect_err("the answer is lost");
        assert!(!error.is_safe_to_retry(), "{error}");
        assert_eq!(why(&error), CloseReason::Tls(TlsFault::Truncated));
    });
}

#[test]
fn settings_that_cannot_be_used_say_what_to_do() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.sign("a", Validity::Now), authority.sign("b", Validity::Now));
    let said = |error: TlsConfigError| error.to_string();
    let missing = TlsIdentity::from_pem_files("/nowhere/cert.pem", "/nowhere/key.pem");
    assert!(said(missing.unwrap_err()).contains("/nowhere/cert.pem"));
    let (one_pem, key_pem) = (one.certificate.as_bytes(), one.key.as_bytes());
    let swapped = TlsIdentity::from_pem(key_pem, one_pem).unwrap_err();
    assert!(said(swapped).contains("BEGIN CERTIFICATE"));
    let keyless = TlsIdentity::from_pem(one_pem, one_pem).unwrap_err();
    assert!(said(keyless).contains("BEGIN PRIVATE KEY"));
    let mixed = TlsIdentity::from_pem(one_pem, other.key.as_bytes()).unwrap();
    let mixed = TlsServer::new(mixed).unwrap_err();
    assert!(matches!(mixed, TlsConfigError::KeyMismatch), "{mixed}");
    assert!(TlsRoots::from_pem(b"nothing").is_err());
    let client = TlsClient::new(authority.roots()).unwrap();
    assert!(said(client.server_name("no name").unwrap_err()).contains("server_name"));
    assert!(authority.roots().revoking(b"nothing").is_err());
}

/// Everything that is logged by this process.
struct Log(Mutex<String>);

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut text = self.0.lock().unwrap();
        text.push_str(&record.args().to_string());
        text.push('\n');
    }

    fn flush(&self) {}
}

#[test]
fn h09_nothing_secret_is_logged_or_shown() {
    // There is one log in a process.
    in_its_own_process(module_path!(), "h09_nothing_secret_is_logged_or_shown", shows_no_secret);
}

fn shows_no_secret() {
    static LOG: Log = Log(Mutex::new(String::new()));
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    const TOKEN: &str = "hunter2-hunter2";
    let authority = Authority::new("ours");
    let signed = authority.sign("localhost", Validity::Now);
    let identity = signed.identity();
    let mut shown = format!("{identity:?} {:?}", authority.roots());
    let tls = TlsServer::new(identity).unwrap();
    let credentials = Credentials::new(TOKEN).unwrap();
    shown += &format!("{tls:?} {credentials:?}");
    over_one_pair(|pair| {
        let (server_tls, client_tls) = (tls.clone(), TlsClient::new(authority.roots()).unwrap());
        let server = bind(pair).tls(server_tls).service(Cook::default().into_kitchen());
        let server = pair.start(
            server
                .authorize(|connection| {
                    assert!(!format!("{connection:?}").contains(TOKEN));
                    Access::Allow
                })
                .authorize_calls(|call| {
                    assert!(!format!("{call:?}").contains(TOKEN));
                    Access::unauthenticated("wrong token")
                }),
        );
        let connect = KitchenClient::connect(server.address()).tls(client_tls);
        let connect = connect.credentials(Credentials::new(TOKEN).unwrap());
        let error = connect.wait().unwrap().nothing().wait().unwrap_err();
        assert_eq!(status(&error), Status::UNAUTHENTICATED);
    });
    let denied = TlsClient::new(Authority::new("other").roots()).unwrap();
    over_one_pair(|pair| {
        let (server, _) = serve(pair, tls.clone());
        shown_error(&connect(pair, server.address(), &denied).unwrap_err());
    });
    let key_lines: Vec<&str> = signed.key.lines().filter(|line| !line.contains("KEY")).collect();
    shown.push_str(&LOG.0.lock().unwrap());
    assert!(shown.contains("wrong token"), "the log is read: {shown}");
    for secret in key_lines.iter().chain(&[TOKEN]) {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn shown_error(error: &Failure) {
    log::error!("{error} {error:?}");
}
