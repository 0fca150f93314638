//! Both sides stream: whoever is in a room says lines and hears those of the others.
//!
//! ```text
//! $ cargo run --release --example chat
//! nobody may enter an empty room name: a room has a name
//! ann hears 6 lines, the last "bob: line 2"
//! bob hears 6 lines, the last "bob: line 2"
//! the server ends in order: true
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use ringcall::{
    CallError, Context, Items, Server, SlowConsumer, Stream, Subscription, Topic, View,
};

#[ringcall::message]
struct Entry {
    room: String,
    name: String,
}

#[ringcall::message]
#[derive(Clone)]
struct Line {
    by: String,
    text: String,
}

#[ringcall::message]
#[derive(Debug)]
struct NoName;

impl std::fmt::Display for NoName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a room has a name")
    }
}

#[ringcall::service]
trait Chat {
    async fn talk(
        &self,
        cx: &Context,
        entry: Entry,
        said: Items<View<String>>,
    ) -> Result<impl Stream<Item = Line>, NoName>;
}

/// One a shard, so the rooms need no lock.
#[derive(Default)]
struct Rooms(RefCell<HashMap<String, Topic<Line>>>);

/// What one guest hears; what the guest says is published on the way.
struct Guest {
    name: String,
    said: Option<Items<View<String>>>,
    room: Topic<Line>,
    heard: Subscription<Line>,
}

impl Stream for Guest {
    type Item = Line;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Line>> {
        let this = self.get_mut();
        while let Some(said) = &mut this.said {
            match Pin::new(said).poll_next(cx) {
                Poll::Ready(Some(text)) => {
                    let line = Line { by: this.name.clone(), text: text.to_string() };
                    // Never refused: a guest who does not listen misses the oldest lines.
                    let _ = this.room.publish(line);
                }
                // This guest says nothing any more, and listens on.
                Poll::Ready(None) => this.said = None,
                Poll::Pending => break,
            }
        }
        Pin::new(&mut this.heard).poll_next(cx)
    }
}

impl Chat for Rooms {
    async fn talk(
        &self,
        cx: &Context,
        entry: Entry,
        said: Items<View<String>>,
    ) -> Result<impl Stream<Item = Line>, NoName> {
        if entry.room.is_empty() {
            return Err(NoName);
        }
        let mut rooms = self.0.borrow_mut();
        let room = rooms.entry(entry.room);
        let room = room.or_insert_with(|| Topic::new(256, SlowConsumer::DropOldest)).clone();
        // A server that ends closes its rooms.
        let heard = room.subscribe().until(cx.draining());
        Ok(Guest { name: entry.name, said: Some(said), room, heard })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server =
        Server::bind("127.0.0.1:0").service_per_shard(|_| Rooms::default().into_chat()).start()?;
    let chat = ChatClient::connect(server.address()).wait()?;

    let nowhere = Entry { room: String::new(), name: "eve".into() };
    let (_, mut heard) = chat.talk(&nowhere).wait()?;
    match heard.next_wait() {
        Some(Err(CallError::App(error))) => {
            println!("nobody may enter an empty room name: {error}");
        }
        _ => return Err("entered".into()),
    }

    let enter = |name: &str| chat.talk(&Entry { room: "lobby".into(), name: name.into() }).wait();
    let (mut ann, mut ann_hears) = enter("ann")?;
    let (mut bob, mut bob_hears) = enter("bob")?;
    // To hear oneself is to be in the room.
    let mut lines: [Vec<String>; 2] = Default::default();
    for number in 0..3 {
        for sender in [&mut ann, &mut bob] {
            sender.send_wait(&format!("line {number}"))?;
            for (lines, hears) in lines.iter_mut().zip([&mut ann_hears, &mut bob_hears]) {
                let line = hears.next_wait().ok_or("the room is closed")??;
                lines.push(format!("{}: {}", line.by, line.text));
            }
        }
    }
    for (name, lines) in ["ann", "bob"].iter().zip(&lines) {
        println!("{name} hears {} lines, the last {:?}", lines.len(), lines[lines.len() - 1]);
    }
    // Both are in the room still.
    let report = server.drain();
    println!("the server ends in order: {}", report.is_clean());
    for hears in [&mut ann_hears, &mut bob_hears] {
        assert!(hears.next_wait().is_none(), "the room is closed");
    }
    Ok(())
}
