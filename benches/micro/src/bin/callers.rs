//! Callers on so many threads, each with one call at a time through the same `Client`: calls a second.
//! `callers THREADS SECONDS`. How much it costs to wake them where they share the cores with client and server.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "measures, and says so")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringcall::{Body, Bytes, Server};

#[ringcall::service(name = "bench.Echo")]
trait Echo {
    async fn echo(&self, body: Body) -> Bytes;
}

struct Mirror;

impl Echo for Mirror {
    async fn echo(&self, body: Body) -> Bytes {
        Bytes::copy_from_slice(&body)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>());
    let (Some(Ok(threads)), Some(Ok(seconds))) = (args.next(), args.next()) else {
        return ExitCode::FAILURE;
    };
    let server = Server::bind("127.0.0.1:0").service(Mirror.into_echo()).start();
    let server = server.expect("it starts");
    let client = EchoClient::connect(server.address()).wait().expect("it connects");
    let (calls, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let body = Bytes::from_static(&[7; 64]);
                while !ends.load(Ordering::Relaxed) {
                    let reply = client.echo(&body).wait().expect("it is answered");
                    assert!(reply.as_ref() == &body[..], "the reply of another call");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(seconds.into()));
        ends.store(true, Ordering::Relaxed);
    });
    let rate = calls.into_inner() as f64 / began.elapsed().as_secs_f64();
    println!("{threads} threads: {rate:.0} calls/s");
    ExitCode::SUCCESS
}
