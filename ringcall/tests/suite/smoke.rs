//! The first call, end to end.

use ringcall::{BlockingClient, Bytes, Server, View};

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct Symbol {
    code: String,
}

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct Quote {
    price: f64,
    size: u32,
}

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct NoSuch {
    code: String,
}

#[ringcall::service]
trait Quotes {
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch>;
    async fn echo(&self, body: Bytes) -> Bytes;
}

struct Book;

impl Quotes for Book {
    async fn last(&self, symbol: View<Symbol>) -> Result<Quote, NoSuch> {
        match symbol.code.as_str() {
            "ABC" => Ok(Quote { price: 42.5, size: 7 }),
            other => Err(NoSuch { code: other.to_owned() }),
        }
    }

    async fn echo(&self, body: Bytes) -> Bytes {
        body
    }
}

#[test]
fn a_typed_call_is_answered() {
    let server = Server::bind("127.0.0.1:0").service(Book.into_quotes()).start().unwrap();
    let client = BlockingClient::connect(server.address()).unwrap();
    let quotes = QuotesClient::new(&client);
    let quote = quotes.last(&Symbol { code: "ABC".into() }).wait().unwrap();
    assert_eq!(quote.price, 42.5);
    assert_eq!(quote.to_owned(), Quote { price: 42.5, size: 7 });
    let error = quotes.last(&Symbol { code: "XYZ".into() }).wait().unwrap_err();
    assert_eq!(error, ringcall::CallError::App(NoSuch { code: "XYZ".into() }));
    let body = Bytes::from(vec![7; 3_000_000]);
    assert_eq!(&quotes.echo(&body).wait().unwrap()[..], &body[..]);

    let shared = QuotesClient::connect(server.address()).wait().unwrap();
    let quote = shared.last(&Symbol { code: "ABC".into() }).wait().unwrap();
    assert_eq!(quote.size, 7);
    assert_eq!(&shared.echo(&body).wait().unwrap()[..], &body[..]);
    drop(client);
    let counters = server.stop();
    // Five of them, and the first client's question for the table of methods; the second one's, too, if the answer had
    // not come by then.
    assert!(matches!(counters.requests_taken, 6 | 7));
}
