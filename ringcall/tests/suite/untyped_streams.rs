//! Streams of methods whose types a program does not have.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Pair, eventually, over_every_pair};
use crate::streams::serve;
use ringcall::{
    AnyChannel, AnyStream, BlockOn, CallError, Cause, Client, Codec, Failure, RunningServer,
    SharedBody, Status, Streams, UntypedCall, UntypedItems, UntypedReply, UntypedSender,
};

const LONG: Duration = Duration::from_secs(60);
/// More than a window has.
const MANY: u16 = 3000;

fn connect(pair: Pair, server: &RunningServer) -> AnyChannel {
    AnyChannel::new(pair.secured(Client::connect(server.address())).wait().unwrap())
}

type Ends = (UntypedSender<AnyStream>, UntypedItems<AnyStream>);

/// Opens a method of the press with an argument in MessagePack.
fn open(channel: &AnyChannel, method: &str, argument: &[u8], streams: Streams) -> Ends {
    let method = format!("test.Press/{method}");
    let call = UntypedCall::new(channel, &method, Codec::MESSAGEPACK, argument.to_vec()).unwrap();
    call.deadline(LONG).open_wait(streams).unwrap()
}

fn number(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![0xcd, high, low]
}

/// `{"from": …, "to": …}`
fn range(from: u16, to: u16) -> Vec<u8> {
    [b"\x82\xa4from".as_slice(), &number(from), b"\xa2to", &number(to)].concat()
}

/// `{"number": …, "text": …}`
fn line(at: u8, text: &str) -> Vec<u8> {
    let text_len = 0xa0 | text.len() as u8;
    [b"\x82\xa6number".as_slice(), &[at], b"\xa4text", &[text_len], text.as_bytes()].concat()
}

/// The next item.
fn next(items: &mut UntypedItems<AnyStream>) -> UntypedReply<SharedBody> {
    items.next_wait().expect("there is another one").expect("it is no error")
}

fn cause(error: CallError<UntypedReply<SharedBody>>) -> Cause {
    match error {
        CallError::Failed(Failure { cause, .. }) => cause,
        CallError::App(error) => panic!("expected a failure: {error:?}"),
    }
}

#[test]
fn a_server_streams_by_names() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let (mut none, mut items) = open(&channel, "print", &range(3, 3 + MANY), Streams::Out);
        for at in 3..3 + MANY {
            let item = next(&mut items);
            assert_eq!(item.codec, Codec::MESSAGEPACK);
            let text = format!("line {at}");
            assert!(item.body.ends_with(text.as_bytes()), "{at}: {:?}", &item.body[..]);
        }
        assert!(items.next_wait().is_none());
        assert!(items.next_wait().is_none(), "it stays over");
        assert!(items.metadata().is_some() && items.end_metadata().is_some());
        let refused = none.send_wait(number(7)).unwrap_err();
        assert_eq!(refused, Failure::not_sent(Cause::StreamEnded));
        server.stop();
    });
}

#[test]
fn an_error_comes_in_place_of_a_stream_and_in_the_middle_of_it() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let (_, mut items) = open(&channel, "print", &range(3, 2), Streams::Out);
        let Some(Err(CallError::App(error))) = items.next_wait() else { panic!("backwards") };
        assert_eq!(&error.body[..], b"\xa9Backwards");
        assert!(items.next_wait().is_none());

        let (_, mut items) = open(&channel, "break_after", &number(2), Streams::Out);
        assert_eq!((&next(&mut items).body[..], &next(&mut items).body[..]), (&[0][..], &[1][..]));
        let Some(Err(CallError::App(error))) = items.next_wait() else { panic!("after two") };
        assert_eq!(&error.body[..], b"\x81\xa5After\x02");
        server.stop();
    });
}

#[test]
fn the_beginning_is_awaited_and_loses_nothing() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        let channel = connect(pair, &server);
        // It has begun, though there is no item and never will be.
        let (_, mut items) = open(&channel, "silent", b"\xc0", Streams::Out);
        assert!(items.metadata().is_none());
        items.begin_wait().expect("it begins");
        items.begin_wait().expect("it has begun");
        assert!(items.metadata().is_some());
        drop(items);

        let (_, mut items) = open(&channel, "print", &range(3, 5), Streams::Out);
        items.begin_wait().expect("it begins");
        assert!(next(&mut items).body.ends_with(b"line 3"));
        items.begin_wait().expect("it has begun");
        assert!(next(&mut items).body.ends_with(b"line 4"));
        assert!(items.next_wait().is_none());
        items.begin_wait().expect("it is over");
        // A stream of nothing has begun, too.
        let (_, mut items) = open(&channel, "print", &range(3, 3), Streams::Out);
        items.begin_wait().expect("it begins");
        assert!(items.next_wait().is_none());

        // What comes in its place is given once.
        let (_, mut items) = open(&channel, "print", &range(3, 2), Streams::Out);
        let Err(CallError::App(error)) = items.begin_wait() else { panic!("backwards") };
        assert_eq!(&error.body[..], b"\xa9Backwards");
        assert!(items.next_wait().is_none() && items.begin_wait().is_ok());
        let (_, mut items) = open(&channel, "prin", &[1], Streams::Out);
        let refused = items.begin_wait().unwrap_err();
        assert_eq!(cause(refused), Cause::Status(Status::UNKNOWN_METHOD));

        // One reply is kept, and an error in its place is not.
        let (mut sender, mut items) = open(&channel, "sum", &[1], Streams::In);
        sender.send_wait(vec![2]).unwrap();
        sender.end();
        items.begin_wait().expect("it replies");
        items.begin_wait().expect("it has replied");
        assert_eq!(&next(&mut items).body[..], &[3]);
        assert!(items.next_wait().is_none());
        let (mut sender, mut items) = open(&channel, "sum", &[1], Streams::In);
        sender.send_wait(vec![13]).unwrap();
        let Err(CallError::App(error)) = items.begin_wait() else { panic!("13 is none") };
        assert_eq!(&error.body[..], b"\x81\xa5After\x01");
        eventually("all are over", || seen.dropped.load(Ordering::SeqCst) == 2);
        server.stop();
    });
}

#[test]
fn a_caller_streams_by_names() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        let channel = connect(pair, &server);
        let (mut sender, mut items) = open(&channel, "sum", &[1], Streams::In);
        for _ in 0..MANY {
            sender.send_wait(number(2)).unwrap();
        }
        sender.end();
        let reply = next(&mut items);
        assert_eq!(&reply.body[..], &number(2 * MANY + 1)[..]);
        assert!(items.next_wait().is_none() && items.end_metadata().is_some());
        assert_eq!(seen.read.load(Ordering::SeqCst), u64::from(MANY));

        // The server ends it early: the other half says how.
        let (mut sender, mut items) = open(&channel, "sum", &[1], Streams::In);
        let sent = (0..).find_map(|_| sender.send_wait(vec![13]).err()).unwrap();
        assert_eq!(sent.cause, Cause::StreamEnded);
        let Some(Err(CallError::App(error))) = items.next_wait() else { panic!("13 is none") };
        assert_eq!(&error.body[..], b"\x81\xa5After\x01");
        server.stop();
    });
}

#[test]
fn both_stream_by_names_and_bytes_stay_what_they_are() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let (mut sender, mut items) = open(&channel, "echo", b"\xa1N", Streams::Both);
        for at in 0..100 {
            sender.send_wait(line(at, "x")).unwrap();
            assert_eq!(&next(&mut items).body[..], &line(at, "N: x")[..]);
        }
        drop(sender);
        assert!(items.next_wait().is_none());

        let (mut sender, mut items) = open(&channel, "blobs", b"\xc0", Streams::Both);
        let blob = vec![7; 100_000];
        channel.block_on(sender.send_as(Codec::RAW, blob.clone())).unwrap();
        let item = next(&mut items);
        assert_eq!((item.codec, &item.body[..]), (Codec::RAW, &blob[..]));
        server.stop();
    });
}

#[test]
fn whoever_drops_what_comes_gives_the_call_up() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        let channel = connect(pair, &server);
        let (_, mut items) =
            open(&channel, "break_after", &[0xcf, 1, 0, 0, 0, 0, 0, 0, 0], Streams::Out);
        next(&mut items);
        drop(items);
        eventually("its stream is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
        server.stop();
    });
}

#[test]
fn what_cannot_be_streamed_so_says_why() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let failed = |method, argument: &[u8], streams| {
            let (_, mut items) = open(&channel, method, argument, streams);
            cause(items.next_wait().expect("it is told").unwrap_err())
        };
        let refused = Cause::Status;
        assert_eq!(failed("prin", &[1], Streams::Out), refused(Status::UNKNOWN_METHOD));
        assert_eq!(failed("unary", &[1], Streams::Out), refused(Status::BAD_REQUEST));
        assert_eq!(failed("three", b"\xc0", Streams::In), refused(Status::BAD_REQUEST));
        assert_eq!(failed("print", &[1], Streams::Out), refused(Status::BAD_BODY));
        let (mut sender, mut items) = open(&channel, "sum", &[1], Streams::In);
        sender.send_wait(b"\xa1S".to_vec()).unwrap();
        let told = cause(items.next_wait().expect("it is told").unwrap_err());
        assert_eq!(told, refused(Status::BAD_ITEM));
        server.stop();
    });
}

#[test]
fn a_stream_that_does_not_begin_in_time_ends_with_that() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let method = "test.Press/late";
        let call = UntypedCall::new(&channel, method, Codec::MESSAGEPACK, number(60_000)).unwrap();
        let late = call.deadline(Duration::from_millis(30)).open_wait(Streams::Out);
        let late = match late {
            Ok((_, mut items)) => cause(items.next_wait().expect("it is told").unwrap_err()),
            Err(failure) => failure.cause,
        };
        assert!(crate::common::has_expired(late), "{late:?}");
        server.stop();
    });
}

#[test]
fn who_waits_for_room_is_told_when_the_call_is_given_up() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let channel = connect(pair, &server);
        let (mut sender, items) = open(&channel, "echo", b"\xa1N", Streams::Both);
        let sending = std::thread::spawn(move || {
            // Nobody takes what comes back, so there is no room for long.
            let failed = (0..20_000u32).find_map(|_| sender.send_wait(line(1, "x")).err());
            (failed.expect("it is told").cause, sender)
        });
        eventually("a reply has begun", || items.call().block_on(async { true }));
        drop(items);
        let (told, mut sender) = sending.join().unwrap();
        assert_eq!(told, Cause::StreamEnded);
        let again = sender.send_wait(line(1, "x")).unwrap_err();
        assert_eq!(again.cause, Cause::StreamEnded);
        drop(sender);
        // Whichever way it is opened, of two that do not go together the server says so.
        for (method, streams) in
            [("echo", Streams::In), ("echo", Streams::Out), ("sum", Streams::Both)]
        {
            let (_sender, mut items) = open(&channel, method, b"\xa1N", streams);
            let told = cause(items.next_wait().expect("it is told").unwrap_err());
            assert_eq!(told, Cause::Status(Status::BAD_REQUEST), "{method} {streams:?}");
            assert!(items.next_wait().is_none(), "once");
        }
        server.stop();
    });
}
