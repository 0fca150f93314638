//! Connections that are lost, left or silent: they are replaced, and every call ends once with its class.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::alone::only;
use crate::common::raw::{
    Listening, Wire, dial, frame, opening, read_frame, read_opening, read_reply, reply,
};
use crate::common::*;
use ringcall::{
    Address, BlockOn, BlockingClient, Bytes, CallError, CallOptions, Cause, Client, CloseReason,
    Config, ConnectionState, FailureClass, RunningServer, ShardConfig,
};
use ringcall_core::Status;
use ringcall_core::frame::{GoAway, Kind, ReplyHeader};
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(20);
const WAIT: CallOptions = CallOptions::new().wait_for_ready(true).deadline(LONG);

/// A config that notices silence within little more than a second: a machine with a lot to do may make a
/// process wait for a part of that.
fn quick() -> ShardConfig {
    let ms = Duration::from_millis;
    let mut config = ShardConfig::default();
    config.client = Config::new()
        .ping_interval_min(ms(50))
        .keepalive_idle(ms(300), 3)
        .keepalive_busy(ms(450), ms(750));
    config
}

/// A server's settings for it.
fn patient(server: ringcall::Server) -> ringcall::Server {
    server.config(Config::new().ping_interval_min(Duration::ZERO))
}

fn cook_at(pair: Pair, address: &Address) -> RunningServer {
    pair.start(pair.bind_at(address).service(Cook::default().into_kitchen()))
}

fn failure(error: &CallError) -> ringcall::Failure {
    *error.failure().expect("no handler answers with an error here")
}

// ---- servers that stop and come back ----

#[test]
fn a_client_outlives_its_server() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let address = server.address().clone();
        let client = pair.kitchen(&server).with_options(WAIT);
        // A server waits for the goodbye of one that is not turned, so there is one of these in few pairs.
        let is_few = pair.server == pair.client && pair.socket == Socket::Tcp;
        let blocking = is_few.then(|| pair.blocking(&server));
        let local = blocking.as_ref().map(|local| KitchenClient::new(local).with_options(WAIT));
        for _ in 0..3 {
            client.nothing().wait().unwrap();
            local.iter().for_each(|local| drop(local.nothing().wait().unwrap()));
        }
        drop(server);
        eventually("the loss is seen", || {
            !matches!(client.channel().state(), ConnectionState::Ready)
        });
        // Nobody is there: whoever does not wait is told at once, and that it was not sent.
        eventually("an attempt fails", || {
            matches!(client.channel().state(), ConnectionState::Broken(_))
        });
        let error = client.nothing().wait_for_ready(false).wait().unwrap_err();
        assert_eq!(failure(&error).class, FailureClass::NotSent);
        assert!(matches!(failure(&error).cause, Cause::Closed(_)), "{error}");
        // Whoever does waits for the next server at the address.
        let server = thread::spawn(move || {
            block(Duration::from_millis(300));
            cook_at(pair, &address)
        });
        client.nothing().wait().unwrap();
        local.iter().for_each(|local| drop(local.nothing().wait().unwrap()));
        assert_eq!(client.channel().state(), ConnectionState::Ready);
        assert!(blocking.is_none_or(|local| local.state() == ConnectionState::Ready));
        drop(server.join().unwrap());
    });
}

#[test]
fn f07_restarts_fail_no_call_that_waits() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let address = server.address().clone();
        let client = pair.kitchen(&server).with_options(WAIT);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (client, stop, done) = (client.clone(), Arc::clone(&stop), Arc::clone(&done));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        client.simmer(&1).wait().unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut server = Some(server);
        for _ in 0..3 {
            let before = done.load(Ordering::Relaxed);
            eventually("calls go on", || done.load(Ordering::Relaxed) > before + 10);
            server.take().unwrap().stop();
            server = Some(cook_at(pair, &address));
        }
        stop.store(true, Ordering::Relaxed);
        callers.into_iter().for_each(|caller| caller.join().expect("no call failed"));
    });
}

#[test]
fn states_are_told_as_they_change() {
    over_every_plain_pair(|pair| {
        let listening = Listening::new(pair.socket);
        let address = listening.address.clone();
        drop(listening);
        // Nothing happens before the first call.
        let client = pair.secured(Client::connect(&address)).lazy().wait().unwrap();
        assert_eq!(client.state(), ConnectionState::Idle);
        let kitchen = KitchenClient::new(client.clone());
        let error = kitchen.nothing().wait().unwrap_err();
        assert_eq!(failure(&error).class, FailureClass::NotSent);
        assert!(matches!(client.state(), ConnectionState::Broken(_)));
        let server = cook_at(pair, &address);
        client.block_on(client.ready()).unwrap();
        assert_eq!(client.state(), ConnectionState::Ready);
        kitchen.nothing().wait().unwrap();
        let changed = client.changed(ConnectionState::Ready);
        drop(server);
        assert_ne!(client.block_on(changed), ConnectionState::Ready);
    });
}

// ---- goodbyes ----

fn go_away(accepted: u64) -> Vec<u8> {
    let header = GoAway { accepted, code: ringcall_core::CloseCode(0) }.encode();
    frame(Kind::GoAway, 0, 0, &header, b"")
}

fn accept_open(listening: &Listening) -> Wire {
    let mut wire = listening.accept();
    wire.write_all(&opening()).unwrap();
    read_opening(&mut wire).unwrap();
    wire
}

fn read_request(wire: &mut Wire) -> u64 {
    std::iter::from_fn(|| read_frame(wire))
        .find(|frame| frame.kind == Kind::Request as u8)
        .expect("a call")
        .id
}

/// The answer to a call of `raw`.
fn answer(id: u64) -> Vec<u8> {
    reply(id, &ReplyHeader::new(Status::OK), b"answer")
}

/// A server by hand that takes the first of two calls, refuses the second by its GOAWAY, and answers that on
/// the next connection before it answers the first.
fn leaving(listening: &Listening) {
    let mut first = accept_open(listening);
    let ids = [read_request(&mut first), read_request(&mut first)];
    first.write_all(&go_away(1)).unwrap();
    let mut second = accept_open(listening);
    let again = read_request(&mut second);
    second.write_all(&answer(again)).unwrap();
    first.write_all(&answer(ids[0])).unwrap();
    // The client says goodbye to the connection that it has left, when its call is answered.
    while read_frame(&mut first).is_some() {}
    // And makes its next calls on the other.
    let next = read_request(&mut second);
    second.write_all(&answer(next)).unwrap();
}

#[test]
fn f07_calls_that_a_goodbye_refuses_are_made_again() {
    over_every_plain_pair(|pair| {
        let listening = Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = thread::spawn(move || leaving(&listening));
        let client = pair.secured(Client::connect(&address)).wait().unwrap();
        let kitchen = KitchenClient::new(client.clone()).with_options(WAIT);
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let kitchen = kitchen.clone();
                thread::spawn(move || kitchen.raw(&Bytes::from_static(b"x")).wait().map(drop))
            })
            .collect();
        for caller in callers {
            caller.join().unwrap().unwrap();
        }
        kitchen.raw(&Bytes::new()).wait().unwrap();
        server.join().unwrap();
    });
}

#[test]
fn f07_callbacks_and_one_way_calls_are_made_again() {
    over_every_plain_pair(|pair| {
        let listening = Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = thread::spawn(move || {
            let mut first = accept_open(&listening);
            read_request(&mut first);
            first.write_all(&go_away(0)).unwrap();
            let mut second = accept_open(&listening);
            let again = read_request(&mut second);
            second.write_all(&answer(again)).unwrap();
            read_request(&mut second);
            second.write_all(&go_away(1)).unwrap();
        });
        let client = pair.secured(Client::connect(&address)).wait().unwrap();
        let kitchen = KitchenClient::new(client.clone()).with_options(WAIT);
        let (sender, receiver) = std::sync::mpsc::channel();
        kitchen.raw(&Bytes::new()).callback(move |end| sender.send(end.map(drop)).unwrap());
        receiver.recv_timeout(LONG).unwrap().unwrap();
        kitchen.toss(&7).wait().unwrap();
        server.join().unwrap();
    });
}

#[test]
fn f07_calls_that_wait_in_vain_end_at_their_deadline() {
    const SHORT: Duration = Duration::from_millis(50);
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let blocking = pair.blocking(&server);
        let client = pair.secured(Client::connect(server.address())).wait().unwrap();
        let mut state = client.state();
        drop(server);
        // Some wait for the connection, others for the next.
        while state == ConnectionState::Ready {
            state = client.block_on(client.changed(state));
        }
        let options = WAIT.deadline(SHORT);
        let local = KitchenClient::new(&blocking).with_options(options.clone());
        let kitchen = KitchenClient::new(client.clone()).with_options(options);
        let (sender, receiver) = std::sync::mpsc::channel();
        kitchen.raw(&Bytes::new()).callback(move |end| sender.send(end.map(drop)).unwrap());
        let ends = [
            local.nothing().wait().map(drop),
            local.toss(&7).wait(),
            kitchen.nothing().wait().map(drop),
            kitchen.toss(&7).wait(),
            receiver.recv_timeout(LONG).expect("it ends"),
        ];
        for end in ends {
            let failure = failure(&end.unwrap_err());
            assert_eq!((failure.class, failure.cause), (FailureClass::NotSent, Cause::Expired));
        }
    });
}

#[test]
fn d09_a_call_that_may_have_run_is_never_made_again() {
    over_every_plain_pair(|pair| {
        let listening = Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = thread::spawn(move || {
            let mut first = accept_open(&listening);
            read_request(&mut first);
            drop(first);
            // Only the call that follows comes by the next connection.
            let mut second = accept_open(&listening);
            let id = read_request(&mut second);
            second.write_all(&answer(id)).unwrap();
            let rest = read_reply(&mut second);
            assert!(rest.is_none());
        });
        let client = pair.secured(Client::connect(&address)).wait().unwrap();
        let kitchen = KitchenClient::new(client).with_options(WAIT);
        let error = kitchen.raw(&Bytes::new()).wait().unwrap_err();
        assert_eq!(failure(&error).class, FailureClass::Unknown);
        kitchen.raw(&Bytes::new()).wait().unwrap();
        drop(kitchen);
        server.join().unwrap();
    });
}

// ---- silence ----

/// A server in a process of its own.
struct Elsewhere {
    child: Child,
    address: Address,
}

const SERVE: &str = "RINGCALL_TEST_SERVE";

/// Not a test of anything: what the tests below start as another process.
#[test]
fn serves_elsewhere() {
    let Ok(engine) = std::env::var(SERVE) else { return };
    let server = patient(ringcall::Server::bind("127.0.0.1:0"));
    let server = server.transport(engine.parse().unwrap()).service(Cook::default().into_kitchen());
    let server = server.start().unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "serves at {}.", server.address()).unwrap();
    out.flush().unwrap();
    // Until whoever started it ends its input, or it.
    let _ = std::io::stdin().read(&mut [0]);
}

impl Elsewhere {
    fn start(pair: Pair) -> Elsewhere {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(only(module_path!(), "serves_elsewhere"));
        command.env(SERVE, pair.server.to_string()).env_remove("RINGCALL_TRANSPORT");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (mut said, out) = (String::new(), child.stdout.as_mut().unwrap());
        let address = loop {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "the other process has ended: {said}");
            said.push(char::from(byte[0]));
            let address = said.split("serves at ").nth(1).and_then(|rest| rest.strip_suffix(".\n"));
            if let Some(address) = address {
                break address.parse().unwrap();
            }
        };
        Elsewhere { child, address }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn client(&self, pair: Pair) -> BlockingClient {
        let mut config = quick();
        config.transport = pair.client;
        BlockingClient::connect_with(&self.address, config).unwrap()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both engines, over TCP.
fn over_engines(body: impl Fn(Pair) + Sync) {
    over_every_plain_pair(|pair| {
        if pair.socket == Socket::Tcp {
            body(pair);
        }
    });
}

/// A long call during which something happens to the server.
fn call_during(client: &BlockingClient, event: impl FnOnce() + Send) -> ringcall::Failure {
    let kitchen = KitchenClient::new(client);
    thread::scope(|scope| {
        scope.spawn(|| {
            block(crate::common::SOON);
            event();
        });
        let error = kitchen.simmer(&60_000).deadline(LONG).wait().unwrap_err();
        failure(&error)
    })
}

#[test]
fn e06_a_killed_server_ends_its_calls_once() {
    over_engines(|pair| {
        let server = Elsewhere::start(pair);
        let client = server.client(pair);
        let failure = call_during(&client, || server.signal(Signal::KILL));
        assert_eq!(failure.class, FailureClass::Unknown);
        let Cause::Closed(reason) = failure.cause else { panic!("{failure}") };
        assert!(matches!(reason, CloseReason::PeerClosed | CloseReason::Transport(_)), "{reason}");
        // Nobody is there any more, which is told at once.
        let error = KitchenClient::new(&client).nothing().deadline(LONG).wait().unwrap_err();
        assert_eq!(self::failure(&error).class, FailureClass::NotSent);
    });
}

#[test]
fn e25_a_stopped_server_is_given_up_and_found_again() {
    over_engines(|pair| {
        let server = Elsewhere::start(pair);
        let client = server.client(pair);
        let failure = call_during(&client, || server.signal(Signal::STOP));
        assert_eq!(failure.class, FailureClass::Unknown);
        assert_eq!(failure.cause, Cause::Closed(CloseReason::PeerSilent));
        server.signal(Signal::CONT);
        let kitchen = KitchenClient::new(&client).with_options(WAIT);
        kitchen.nothing().wait().unwrap();
    });
}

/// With the settings that everybody has, for half a minute: only when `RINGCALL_SLOW` is set.
#[test]
fn e25_a_server_that_is_stopped_for_half_a_minute() {
    if std::env::var_os("RINGCALL_SLOW").is_none() {
        return crate::common::say(format_args!(
            "skipped: RINGCALL_SLOW is not set, and it takes a minute"
        ));
    }
    over_engines(|pair| {
        let server = Elsewhere::start(pair);
        let mut config = ShardConfig::default();
        config.transport = pair.client;
        let client = BlockingClient::connect_with(&server.address, config).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                server.signal(Signal::STOP);
                block(Duration::from_secs(30));
                server.signal(Signal::CONT);
            });
            block(Duration::from_millis(100));
            let kitchen = KitchenClient::new(&client);
            let error = kitchen.simmer(&60_000).deadline(LONG).wait().unwrap_err();
            assert_eq!(failure(&error).cause, Cause::Closed(CloseReason::PeerSilent));
            assert_eq!(failure(&error).class, FailureClass::Unknown);
            let patience = WAIT.deadline(Duration::from_secs(60));
            KitchenClient::new(&client).with_options(patience).nothing().wait().unwrap();
        });
    });
}

#[test]
fn e25_a_server_that_was_stopped_for_a_moment_goes_on() {
    over_engines(|pair| {
        let server = Elsewhere::start(pair);
        let client = server.client(pair);
        let kitchen = KitchenClient::new(&client);
        thread::scope(|scope| {
            scope.spawn(|| {
                server.signal(Signal::STOP);
                block(Duration::from_millis(50));
                server.signal(Signal::CONT);
            });
            assert_eq!(kitchen.simmer(&300).deadline(LONG).wait().unwrap(), 300);
        });
        assert_eq!(client.shard().connections(), 1);
    });
}

/// Stands between a client and a server until it is told to pass nothing on, without a word to either.
fn hole(socket: Socket, to: &Address) -> (Address, Arc<AtomicBool>) {
    let (listening, to) = (Listening::new(socket), to.clone());
    let (address, is_black) = (listening.address.clone(), Arc::new(AtomicBool::new(false)));
    let black = Arc::clone(&is_black);
    thread::spawn(move || {
        loop {
            let (near, far) = (listening.accept(), dial(&to));
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let black = Arc::clone(&black);
                thread::spawn(move || pass_on(from, to, &black));
            }
        }
    });
    (address, is_black)
}

fn pass_on(mut from: Wire, mut to: Wire, is_black: &AtomicBool) {
    let mut bytes = vec![0; 65_536];
    let mut swallows = false;
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        // What was swallowed once is never made up for.
        swallows |= is_black.load(Ordering::SeqCst);
        if !swallows && to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    if !swallows && !is_black.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        // Nobody hears of the end either.
        block(LONG);
    }
}

#[test]
fn e06_a_black_hole_is_noticed_and_left() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let seen = Arc::clone(&cook.seen);
        let silent = quick().client;
        let server = pair.start(pair.bind().config(silent).service(cook.into_kitchen()));
        let (address, is_black) = hole(pair.socket, server.address());
        let client = BlockingClient::connect_with(&address, pair.connecting(quick())).unwrap();
        let failure = call_during(&client, || is_black.store(true, Ordering::SeqCst));
        assert_eq!(failure.class, FailureClass::Unknown);
        assert_eq!(failure.cause, Cause::Closed(CloseReason::PeerSilent));
        // The other side notices as well, and its handler ends.
        eventually("the handler is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
        is_black.store(false, Ordering::SeqCst);
        KitchenClient::new(&client).with_options(WAIT).nothing().wait().unwrap();
    });
}

#[test]
fn e06_an_idle_client_of_a_black_hole_finds_the_next_server() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let (address, is_black) = hole(pair.socket, server.address());
        let shard = ringcall::Shard::new(pair.connecting(quick())).unwrap();
        let client = shard.block_on(shard.connect(&address)).unwrap();
        is_black.store(true, Ordering::SeqCst);
        let changed = shard.block_on(client.changed(ConnectionState::Ready));
        assert_ne!(changed, ConnectionState::Ready);
        is_black.store(false, Ordering::SeqCst);
        shard.block_on(client.ready()).unwrap();
        let kitchen = KitchenClient::new(client);
        shard.block_on(async { kitchen.nothing().await }).unwrap();
    });
}
