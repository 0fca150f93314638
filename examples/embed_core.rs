//! The protocol core alone, over a socket that the program moves bytes through itself: no engine, no
//! executor, no thread of ours. The loop that does it is `drive`, below.
//!
//! ```text
//! $ cargo run --release --example embed_core
//! client: established, the server takes 1024 calls at a time
//! server: "HELLO, CORE"
//! client: OK "HELLO, CORE" after 1 call, 0 bytes copied
//! ```

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Batch, Call, CloseReason, Codec, Config, Connection, Event, Instant, Memory, Outcome, Side,
    Status, method_id,
};

/// Moves bytes both ways once, and hands every event to `on_event`. Says whether it goes on.
fn drive<T>(
    socket: &mut UnixStream,
    connection: &mut Connection<T>,
    memory: &Memory,
    now: Instant,
    mut on_event: impl FnMut(&mut Connection<T>, Event<T>),
) -> std::io::Result<bool> {
    let mut batch = Batch::new(64 * 1024);
    connection.poll_transmit(now, &mut batch);
    for segment in batch.segments() {
        let bytes = segment.as_slice().expect("nobody sends files here");
        socket.write_all(bytes)?;
        connection.handle_transmitted(now, bytes.len());
    }
    let mut buffer = memory.pool().take(64 * 1024);
    match socket.read(buffer.spare()) {
        Ok(0) => connection.handle_closed(now, CloseReason::PeerClosed),
        Ok(n) => {
            buffer.fill(n);
            connection.handle_received(now, buffer.freeze());
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    if connection.poll_timeout().is_some_and(|at| at <= now) {
        connection.handle_timeout(now);
    }
    while let Some(event) = connection.poll_event(now) {
        on_event(connection, event);
    }
    Ok(!connection.is_finished())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut near, mut far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let memory = Memory::default();
    let config = Rc::new(Config::new().validate()?);
    // Time is whatever the program says it is: here it counts the rounds of its loop.
    let mut now = Instant::ZERO;
    let mut client = Connection::new(Side::Client, Rc::clone(&config), memory.clone(), now);
    let mut server = Connection::<()>::new(Side::Server, config, memory.clone(), now);

    let shout = Call {
        method: method_id("demo.Shouter/shout"),
        in_signature: 0,
        out_signature: 0,
        deadline: now + Duration::from_secs(1),
        codec: Codec::RAW,
        compression: 0,
        priority: 0,
        attempt: 0,
        flags: 0,
    };
    let mut answered = false;
    while !answered {
        now = now + Duration::from_micros(10);
        drive(&mut near, &mut client, &memory, now, |client, event| match event {
            Event::Established(hello) => {
                println!(
                    "client: established, the server takes {} calls at a time",
                    hello.in_flight_max
                );
                let argument = memory.pool().copy(b"hello, core");
                client.call(now, &shout, &argument, "my ticket").expect("it is established");
            }
            Event::Completed("my ticket", Outcome::Reply(reply)) => {
                let text = String::from_utf8_lossy(&reply.body);
                let counters = client.counters();
                println!(
                    "client: {:?} {text:?} after {} call, {} bytes copied",
                    reply.header.status,
                    counters.calls_made,
                    counters.copied_bytes(),
                );
                answered = true;
            }
            other => println!("client: {other:?}"),
        })?;
        drive(&mut far, &mut server, &memory, now, |server, event| {
            if let Event::Request(request) = event {
                let text = String::from_utf8_lossy(&request.body).to_uppercase();
                println!("server: {text:?}");
                let answer = memory.pool().copy(text.as_bytes());
                let header = ReplyHeader::new(Status::OK);
                server.reply(now, request.id, header, &answer).expect("the caller waits");
            }
        })?;
    }
    Ok(())
}
