//! Addresses that cannot be understood are told of, instead of being asked in vain for ever.

use std::time::Duration;

use ringcall::cluster::{Balanced, Clients, Settings};
use ringcall::{Server, Service};
use ringcall_registry::{ConfigWatch, QuotaKeeper, Registrar, RegistrySource};

#[ringcall::service(name = "test.Nothing")]
trait Nothing {
    async fn nothing(&self);
}

#[derive(Clone)]
struct Here;

impl Nothing for Here {
    async fn nothing(&self) {}
}

fn server(service: impl Service + Clone + Send + Sync + 'static) -> Server {
    Server::bind("127.0.0.1:0").service(service)
}

/// Begins with an address that makes sense, so that one after it would be found too late.
const ADDRESSES: [&str; 2] = ["127.0.0.1:7400", "http://registry:7400"];

fn names_it(text: &str) {
    assert!(text.contains("\"http://registry:7400\""), "{text}");
    assert!(text.contains("127.0.0.1:7000"), "it says how one is written: {text}");
}

#[test]
fn a_source_with_an_address_that_cannot_be_understood_does_not_start() {
    let error = RegistrySource::start(ADDRESSES, "quotes").expect_err("it is no address");
    names_it(&error.to_string());
}

#[test]
fn nor_does_a_keeper_of_a_quota() {
    let channel = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let error = QuotaKeeper::start(ADDRESSES[1], "quotes", channel).expect_err("it is no address");
    names_it(&error.to_string());
}

#[test]
fn nor_does_whoever_watches_a_setting() {
    let apply = |_: &str| Ok::<_, String>(());
    let error = ConfigWatch::new(ADDRESSES, "shop").start(apply).expect_err("it is no address");
    names_it(&error.to_string());
    let error = ConfigWatch::new([ADDRESSES[0]], "a\nb").start(apply).expect_err("it is no key");
    assert!(error.to_string().contains(r#""a\nb" is no key"#), "{error}");
}

#[test]
fn nor_does_a_server_that_is_to_be_registered() {
    let registrar = Registrar::new(ADDRESSES, "nothing").patience(Duration::from_millis(200));
    let error = server(Here.into_nothing()).register(registrar).start().expect_err("no address");
    names_it(&error.to_string());
}
