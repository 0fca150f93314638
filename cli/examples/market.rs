//! A server to try the tool with, which tells what it serves, and what it does.
//!
//! ```text
//! $ cargo run -p ringcall-cli --example market
//! market.Quotes at 127.0.0.1:7000
//! ```

#![expect(clippy::print_stdout, reason = "a program")]

use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Server, View};
use ringcall_metrics::{Inspection as _, Metrics};

/// What is traded.
#[ringcall::message]
struct Symbol {
    /// Such as `ABC`.
    code: String,
}

/// What was paid.
#[ringcall::message]
struct Quote {
    /// In euros.
    price: f64,
    /// How many.
    size: u32,
}

/// There is no quote.
#[ringcall::message]
enum NoQuote {
    /// Nobody trades it.
    NoSuchSymbol {
        /// What was asked for.
        code: String,
    },
    /// Come back tomorrow.
    Closed,
}

/// Prices as they are traded.
#[ringcall::service(name = "market.Quotes")]
trait Quotes {
    /// The last quote of a symbol.
    #[method(idempotent)]
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoQuote>;
    /// Tells the floor that somebody is interested.
    #[method(one_way)]
    async fn watch(&self, symbol: View<Symbol>);
}

struct Book;

impl Quotes for Book {
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoQuote> {
        match symbol.code.as_str() {
            "ABC" => Ok(Quote { price: 42.5, size: 100 }),
            "" => Err(NoQuote::Closed),
            code => Err(NoQuote::NoSuchSymbol { code: code.to_owned() }),
        }
    }

    async fn watch(&self, _: View<Symbol>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    println!("market.Quotes at {at}");
    let metrics = Metrics::new();
    let server = Server::bind(at).service(Book.into_quotes()).service(Interface.into_reflection());
    let server = server.observer(metrics.observer()).service(metrics.inspector().into_inspection());
    // Until somebody presses Ctrl-C.
    server.run()?;
    Ok(())
}
