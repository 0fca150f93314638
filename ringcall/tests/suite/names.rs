//! Clients of a host's name: where its addresses come from, and what becomes of clients when they change.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use ringcall::observe::{Event, Observer};
use ringcall::{
    Address, CallOptions, Cause, Client, CloseReason, ConnectionState, Failure, RunningServer,
    Target, TransportError,
};

const WAIT: CallOptions = CallOptions::new().wait_for_ready(true).deadline(Duration::from_secs(20));

/// A name whose addresses a test decides.
#[derive(Clone)]
struct Name {
    addresses: Arc<Mutex<Result<Vec<Address>, String>>>,
    looked: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
}

impl Name {
    fn of(addresses: &[&Address]) -> Name {
        let known = Arc::new(Mutex::new(Ok(Vec::new())));
        let name = Name { addresses: known, looked: Arc::default(), panics: Arc::default() };
        name.now(addresses);
        name
    }

    fn now(&self, addresses: &[&Address]) {
        *self.addresses.lock().unwrap() = Ok(addresses.iter().copied().cloned().collect());
    }

    /// Whoever looks it up does.
    fn panics(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    fn is_lost(&self) {
        self.panics.store(false, Ordering::SeqCst);
        *self.addresses.lock().unwrap() = Err("nobody answers".to_owned());
    }

    fn target(&self) -> Target {
        let name = self.clone();
        Target::looked_up("localhost:7000", move || {
            name.looked.fetch_add(1, Ordering::SeqCst);
            assert!(!name.panics.load(Ordering::SeqCst), "as asked");
            name.addresses.lock().unwrap().clone()
        })
    }

    fn looked(&self) -> u64 {
        self.looked.load(Ordering::SeqCst)
    }
}

/// Where nobody listens, now or by the time that somebody connects.
fn nowhere() -> Address {
    Address::Unix("/nonexistent/nobody.sock".into())
}

fn connect(pair: Pair, target: &Target) -> Result<KitchenClient<Client>, Failure> {
    let client = pair.secured(KitchenClient::connect(target.clone())).wait()?;
    Ok(client.with_options(WAIT))
}

fn is_at(server: &RunningServer) -> impl Fn() -> bool + '_ {
    || server.connections() > 0
}

#[test]
fn its_addresses_are_tried_one_after_another() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let name = Name::of(&[&nowhere(), &nowhere(), server.address()]);
        let kitchen = connect(pair, &name.target()).expect("the third answers");
        kitchen.nothing().wait().unwrap();
        let local = pair.dial(name.target()).expect("the third answers");
        KitchenClient::new(&local).nothing().wait().unwrap();
        assert_eq!(name.looked(), 2, "once for each client");
    });
}

#[test]
fn a_name_is_looked_up_again_when_its_connection_is_lost() {
    over_every_engine(|pair| {
        let ((first, _), (second, _)) = (pair.serve(), pair.serve());
        let name = Name::of(&[first.address()]);
        let kitchen = connect(pair, &name.target()).unwrap();
        kitchen.nothing().wait().unwrap();
        // Nobody is at the old address, or somebody else, who must not be called.
        name.now(&[second.address()]);
        drop(first);
        kitchen.nothing().wait().unwrap();
        eventually("it is at the second", is_at(&second));
        assert_eq!(name.looked(), 2);
    });
}

#[test]
fn a_name_that_cannot_be_looked_up_has_the_addresses_of_before() {
    over_every_engine(|pair| {
        // A port that is free again may be somebody else's by the time it is wanted.
        let pair = Pair { socket: Socket::Unix, ..pair };
        let (server, _) = pair.serve();
        let name = Name::of(&[server.address()]);
        let kitchen = connect(pair, &name.target()).unwrap();
        kitchen.nothing().wait().unwrap();
        name.is_lost();
        let address = server.address().clone();
        drop(server);
        let again = pair.bind_at(&address).service(Cook::default().into_kitchen());
        let _again = pair.start(again);
        kitchen.nothing().wait().unwrap();
        assert!(name.looked() > 1);
    });
}

#[test]
fn a_name_without_addresses_fails_and_is_looked_up_again() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let name = Name::of(&[]);
        let unresolved = CloseReason::Transport(TransportError::Unresolved);
        for fail in [|name: &Name| name.now(&[]), Name::is_lost, Name::panics] {
            fail(&name);
            let error = connect(pair, &name.target()).expect_err("there is no address");
            assert_eq!(error.cause, Cause::Closed(unresolved), "{error}");
            assert!(error.is_safe_to_retry());
        }
        name.is_lost();
        let lazy = pair.secured(KitchenClient::connect(name.target())).lazy().wait().unwrap();
        let error = lazy.nothing().wait().expect_err("there is no address");
        assert_eq!(error.failure().unwrap().cause, Cause::Closed(unresolved), "{error}");
        assert_eq!(lazy.channel().state(), ConnectionState::Broken(unresolved));
        name.now(&[server.address()]);
        lazy.with_options(WAIT).nothing().wait().unwrap();
    });
}

/// A name whose lookup takes as long as the test wants.
fn slow(address: &Address) -> (Target, std::sync::mpsc::Sender<()>, Receiver<()>) {
    let ((go, gone), (begun, begins)) = (channel(), channel());
    let (gone, address) = (Mutex::new(gone), address.clone());
    let target = Target::looked_up("localhost:7000", move || {
        let _ = begun.send(());
        let _ = gone.lock().unwrap().recv();
        Ok(vec![address.clone()])
    });
    (target, go, begins)
}

#[test]
fn neither_callers_nor_shards_wait_for_a_lookup() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let (target, go, begins) = slow(server.address());
        let mut connecting = Box::pin(pair.secured(KitchenClient::connect(target)));
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        begins.recv().unwrap();
        // Another client of the same shard goes on meanwhile.
        pair.kitchen(&server).nothing().wait().unwrap();
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        go.send(()).unwrap();
        let mut found = None;
        eventually("it is found", || {
            if let std::task::Poll::Ready(kitchen) = connecting.as_mut().poll(&mut cx) {
                found = Some(kitchen);
            }
            found.is_some()
        });
        found.unwrap().expect("the server accepts").nothing().wait().unwrap();
        // One that is given up has no connection later, and a shard that ends does not wait for it.
        let (target, go, begins) = slow(server.address());
        let mut connecting = Box::pin(pair.secured(KitchenClient::connect(target)));
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        begins.recv().unwrap();
        drop(connecting);
        go.send(()).unwrap();
        let (target, go, begins) = slow(server.address());
        let shard = pair.shard();
        let mut connecting = Box::pin(shard.connect(target));
        assert!(connecting.as_mut().poll(&mut cx).is_pending());
        shard.turn(ringcall::Wait::Now);
        begins.recv().unwrap();
        drop((connecting, shard));
        go.send(()).unwrap();
        eventually("all are gone", || server.connections() == 0);
    });
}

#[test]
fn observers_are_told_the_address_that_was_found() {
    struct Peers(Mutex<Vec<Option<Address>>>);
    impl Observer for Peers {
        fn observe(&self, event: &Event<'_>) {
            let peer = match event {
                Event::CallBegun(call) | Event::CallEnded(call, _) => call.peer,
                Event::ConnectionEstablished(it) => it.peer,
                _ => return,
            };
            self.0.lock().unwrap().push(peer.cloned());
        }
    }
    over_every_engine(|pair| {
        let ((first, _), (second, _)) = (pair.serve(), pair.serve());
        let name = Name::of(&[&nowhere(), first.address()]);
        let peers = Arc::new(Peers(Mutex::default()));
        let connect = KitchenClient::connect(name.target()).observer(Arc::clone(&peers) as _);
        let kitchen = pair.secured(connect).wait().unwrap().with_options(WAIT);
        kitchen.nothing().wait().unwrap();
        let at = |server: &RunningServer| vec![Some(server.address().clone()); 3];
        assert_eq!(std::mem::take(&mut *peers.0.lock().unwrap()), at(&first));
        name.now(&[second.address()]);
        drop(first);
        eventually("it is at the second", is_at(&second));
        eventually("it knows", || kitchen.channel().state() == ConnectionState::Ready);
        kitchen.nothing().wait().unwrap();
        assert_eq!(*peers.0.lock().unwrap(), at(&second));
    });
}

#[test]
fn the_system_knows_localhost() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let Address::Tcp(address) = server.address() else { return };
        let name = format!("localhost:{}", address.port());
        pair.secured(KitchenClient::connect(&name)).wait().unwrap().nothing().wait().unwrap();
        let wrong = KitchenClient::connect("localhost").wait().expect_err("no port");
        assert!(wrong.to_string().contains("host:7000"), "{wrong}");
    });
}
