//! Calls without futures: a callback runs when the call ends, on the client's own thread.
//!
//! ```text
//! $ cargo run --release --example callback
//! 1000 calls left, this thread goes on
//! 997 greetings, 3 refusals: the first "hello, caller 0", the first refusal: caller 13 is unlucky
//! ```

use std::sync::mpsc;

use ringcall::{CallError, Server, View};

#[ringcall::message]
struct Name {
    name: String,
}

#[ringcall::message]
struct Greeting {
    text: String,
}

#[ringcall::message]
#[derive(Debug)]
struct Unlucky {
    why: String,
}

impl std::fmt::Display for Unlucky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

#[ringcall::service]
trait Greeter {
    async fn greet(&self, name: View<Name>) -> Result<Greeting, Unlucky>;
}

struct Polite;

impl Greeter for Polite {
    async fn greet(&self, name: View<Name>) -> Result<Greeting, Unlucky> {
        let name = name.name.as_str();
        match name {
            "caller 13" | "caller 113" | "caller 213" => {
                Err(Unlucky { why: format!("{name} is unlucky") })
            }
            _ => Ok(Greeting { text: format!("hello, {name}") }),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0").service(Polite.into_greeter()).start()?;
    let greeter = GreeterClient::connect(server.address()).wait()?;

    let (ends, waiting) = mpsc::channel();
    for number in 0..1000 {
        let ends = ends.clone();
        let name = Name { name: format!("caller {number}") };
        // The message is encoded at once: nothing is borrowed when `callback` returns.
        greeter.greet(&name).callback(move |end| {
            // Here we are on the client's thread: hand over and return, never block.
            let _ = ends.send(end.map(|greeting| greeting.text.to_string()));
        });
    }
    drop(ends);
    println!("1000 calls left, this thread goes on");

    let (mut greetings, mut refusals) = (Vec::new(), Vec::new());
    for end in waiting {
        match end {
            Ok(text) => greetings.push(text),
            Err(CallError::App(unlucky)) => refusals.push(unlucky.why),
            Err(error) => return Err(error.into()),
        }
    }
    println!(
        "{} greetings, {} refusals: the first {:?}, the first refusal: {}",
        greetings.len(),
        refusals.len(),
        greetings[0],
        refusals[0],
    );
    server.stop();
    Ok(())
}
