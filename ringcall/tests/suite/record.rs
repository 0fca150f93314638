//! Connections are recorded while a program runs, and replayed from what was recorded.

use std::io::Write as _;

use crate::common::raw;
use ringcall::record::{ConnectionRecorder, Keep, RecordSettings};
use ringcall::{Bytes, Client, RunningServer, Server, Shard, ShardConfig, TransportChoice};
use ringcall_core::record::{Record, Replay};

#[ringcall::service]
trait Echo {
    async fn echo(&self, body: Bytes) -> Bytes;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, body: Bytes) -> Bytes {
        body
    }
}

const ENGINES: [TransportChoice; 2] = [TransportChoice::Auto, TransportChoice::Epoll];
const SECRET: &[u8] = b"nobody must read this";

fn recorder() -> ConnectionRecorder {
    ConnectionRecorder::new(RecordSettings::new(Keep::First(8 << 20)))
}

fn start(engine: TransportChoice, recorder: &ConnectionRecorder) -> RunningServer {
    let server = Server::bind("127.0.0.1:0").service(Mirror.into_echo()).transport(engine);
    server.shards(2).record(recorder).start().unwrap()
}

fn replay(bytes: &[u8]) -> u64 {
    let record = Record::parse(bytes).unwrap();
    let mut replay = Replay::new(&record, 1 << 30).unwrap();
    let mut steps = 0;
    for step in record.steps() {
        replay.step(&step.unwrap()).unwrap();
        steps += 1;
    }
    steps
}

#[test]
fn what_a_server_records_is_replayed() {
    for engine in ENGINES {
        let recorder = recorder();
        let server = start(engine, &recorder);
        let clients: Vec<_> = (0..3)
            .map(|_| EchoClient::<Client>::connect(server.address()).wait().unwrap())
            .collect();
        for size in [20, 5000, 300_000, 3_000_000] {
            for client in &clients {
                let body = Bytes::from(SECRET.repeat(1 + size / SECRET.len()));
                assert_eq!(client.echo(&body).wait().unwrap()[..], body[..]);
            }
        }
        let records = server.records();
        assert_eq!(records.len(), 3);
        for record in &records {
            assert!(record.reason.is_none() && record.peer.is_some());
            assert!(replay(&record.bytes) > 20);
            assert!(!record.bytes.windows(SECRET.len()).any(|window| window == SECRET));
        }
        drop(clients);
        server.drain();
        assert!(recorder.take().is_empty(), "these have ended well");
    }
}

#[test]
fn a_connection_that_ends_with_an_error_leaves_its_record() {
    for engine in ENGINES {
        let recorder = recorder();
        let server = start(engine, &recorder);
        let mut wire = raw::dial_open(server.address());
        wire.write_all(&[0xff; 64]).unwrap();
        raw::read_rest(&mut wire);
        let mut records = Vec::new();
        crate::common::eventually("there is a record", || {
            records.extend(recorder.take());
            !records.is_empty()
        });
        let reason = records[0].reason.unwrap();
        assert!(reason.is_protocol_error(), "{reason}");
        replay(&records[0].bytes);
        assert!(Record::parse(&records[0].bytes).unwrap().note.contains(&reason.to_string()));
    }
}

#[test]
fn a_shard_records_what_it_opens() {
    for engine in ENGINES {
        let server = start(engine, &recorder());
        let mut config = ShardConfig::default();
        (config.transport, config.recorder) = (engine, Some(recorder()));
        let shard = Shard::new(config).unwrap();
        let client = shard.block_on(async { shard.connect(server.address()).await }).unwrap();
        let echo = EchoClient::new(client);
        for _ in 0..10 {
            shard.block_on(async { echo.echo(&Bytes::from_static(SECRET)).await }).unwrap();
        }
        let records = shard.records();
        assert_eq!(records.len(), 1);
        assert!(replay(&records[0].bytes) > 20);
    }
}

#[test]
fn one_connection_in_some_is_recorded_or_those_of_an_address() {
    let few = recorder().one_in(3);
    let server = start(TransportChoice::Auto, &few);
    let connect = |server: &RunningServer| {
        let clients: Vec<_> = (0..7)
            .map(|_| EchoClient::<Client>::connect(server.address()).wait().unwrap())
            .collect();
        let numbers: Vec<_> = server.records().iter().map(|record| record.number).collect();
        drop(clients);
        numbers
    };
    let mut numbers = connect(&server);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 3, 6]);
    let others = recorder().peer("192.0.2.1".parse().unwrap());
    assert!(connect(&start(TransportChoice::Auto, &others)).is_empty());
    let these = recorder().peer("127.0.0.1".parse().unwrap());
    assert_eq!(connect(&start(TransportChoice::Auto, &these)).len(), 7);
}
