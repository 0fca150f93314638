//! Settings of one client's connections.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::common::raw::{Listening, opening, read_frame, read_opening};
use crate::common::{KitchenClient, over_every_engine, over_every_pair};
use ringcall::{Bytes, Cause, Client, CloseReason, Config, ServeError, Status};
use ringcall_core::TransportError;
use ringcall_core::frame::Kind;

#[test]
fn a_client_has_limits_of_its_own() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let narrow = Config::new().message_bytes_max(64 << 10);
        let body = Bytes::from(vec![7; 100_000]);
        let cause = |error: ringcall::CallError| error.failure().map(|failure| failure.cause);
        let refused = Some(Cause::Status(Status::REPLY_FAILED));

        let connect = KitchenClient::connect(server.address()).config(narrow.clone());
        let kitchen = pair.secured(connect).wait().unwrap();
        assert_eq!(cause(kitchen.raw(&body).wait().unwrap_err()), refused);
        assert_eq!(kitchen.raw(&body.slice(..60_000)).wait().unwrap().len(), 60_000);
        // On the same shard.
        assert_eq!(pair.kitchen(&server).raw(&body).wait().unwrap().len(), body.len());

        let shard = pair.blocking(&server);
        let connect = shard.shard().connect(server.address()).config(narrow);
        let client = shard.run(connect).unwrap();
        let kitchen = KitchenClient::new(client);
        let end = shard.run(kitchen.raw(&body).into_future());
        assert_eq!(cause(end.unwrap_err()), refused);
        assert_eq!(KitchenClient::new(&shard).raw(&body).wait().unwrap().len(), body.len());
    });
}

#[test]
fn a_client_has_a_keepalive_of_its_own() {
    over_every_engine(|pair| {
        let listening = Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = thread::spawn(move || {
            let mut wire = listening.accept();
            // A client that never asks fails the test rather than hold it up.
            wire.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            read_opening(&mut wire).expect("a HELLO");
            wire.write_all(&opening()).unwrap();
            // By default one comes after fifteen seconds.
            while read_frame(&mut wire).expect("a PING").kind != Kind::Ping as u8 {}
        });
        let pause = Duration::from_millis(20);
        let config = Config::new().ping_interval_min(pause).keepalive_idle(pause, 100);
        let client = Client::connect(&address).transport(pair.client).config(config);
        let client = client.wait().expect("it says HELLO");
        server.join().unwrap();
        drop(client);
    });
}

#[test]
fn settings_that_make_no_sense_let_connecting_fail() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let config = Config::new().in_flight_max(0);
        assert!(matches!(
            config.clone().validate().map_err(ServeError::from),
            Err(ServeError::Config(_))
        ));
        let unsupported = Cause::Closed(CloseReason::Transport(TransportError::Unsupported));
        let connect = Client::connect(server.address()).config(config.clone());
        let error = pair.secured(connect).wait().unwrap_err();
        assert_eq!(error.cause, unsupported);
        let shard = pair.blocking(&server);
        let error = shard.run(shard.shard().connect(server.address()).config(config)).unwrap_err();
        assert_eq!(error.cause, unsupported);
    });
}
