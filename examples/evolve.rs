//! Two versions of a message talk: a deployment in which not everything is replaced at once.
//!
//! ```text
//! $ cargo run --release --example evolve
//! old to old:  7 of ABC,           in archives
//! old to new:  7 of ABC,           in MessagePack
//! new to old:  7 of ABC,           in MessagePack
//! old to new:  7 of ABC,           in archives, since the new server kept the old layout
//! a venue that the old server does not know: the body did not pass validation (refused)
//! ```

use ringcall::{BlockingClient, Server, View};

/// Version 1, as it was deployed.
mod v1 {
    use super::*;

    #[ringcall::message]
    #[derive(Clone)]
    pub struct Order {
        pub symbol: String,
        pub size: u32,
        pub venue: Venue,
    }

    #[ringcall::message]
    #[derive(Clone)]
    pub enum Venue {
        Exchange,
    }

    #[ringcall::service(name = "shop.Desk")]
    pub trait Desk {
        async fn put(&self, order: View<Order>) -> String;
    }

    pub struct Clerk;

    impl Desk for Clerk {
        async fn put(&self, order: View<Order>) -> String {
            format!("{} of {}", order.size, order.symbol)
        }
    }
}

/// Version 2: fields have moved, there is another one, and another venue.
mod v2 {
    use super::*;

    #[ringcall::message]
    pub struct Order {
        pub size: u64,
        pub symbol: String,
        pub venue: Venue,
        pub note: Option<String>,
    }

    #[ringcall::message]
    #[derive(Clone)]
    pub enum Venue {
        Dark { limit: u64 },
        Exchange,
    }

    #[ringcall::service(name = "shop.Desk")]
    pub trait Desk {
        async fn put(&self, order: View<Order>) -> String;
    }

    pub struct Clerk;

    impl Desk for Clerk {
        async fn put(&self, order: View<Order>) -> String {
            format!("{} of {}", order.size, order.symbol)
        }
    }
}

/// Version 2 again, with the layout of version 1 on the fast path.
mod v2_with_v1 {
    use super::*;

    #[ringcall::message(also = v1::Order)]
    pub struct Order {
        pub size: u64,
        pub symbol: String,
        pub venue: v2::Venue,
        pub note: Option<String>,
    }

    impl From<v1::Order> for Order {
        fn from(old: v1::Order) -> Order {
            let v1::Venue::Exchange = old.venue;
            let venue = v2::Venue::Exchange;
            Order { size: old.size.into(), symbol: old.symbol, venue, note: None }
        }
    }

    #[ringcall::service(name = "shop.Desk")]
    pub trait Desk {
        async fn put(&self, order: View<Order>) -> String;
    }

    pub struct Clerk;

    impl Desk for Clerk {
        async fn put(&self, order: View<Order>) -> String {
            format!("{} of {}", order.size, order.symbol)
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use v1::Desk as _;
    use v2::Desk as _;
    use v2_with_v1::Desk as _;
    let old_server = serve(|server| server.service(v1::Clerk.into_desk()))?;
    let new_server = serve(|server| server.service(v2::Clerk.into_desk()))?;
    let kind_server = serve(|server| server.service(v2_with_v1::Clerk.into_desk()))?;

    let old = v1::Order { symbol: "ABC".into(), size: 7, venue: v1::Venue::Exchange };
    let new = v2::Order { symbol: "ABC".into(), size: 7, venue: v2::Venue::Exchange, note: None };

    let client = BlockingClient::connect(old_server.address())?;
    let said = v1::DeskClient::new(&client).put(&old).wait()?;
    println!("old to old:  {said},           in {}", codec(&client), said = said.as_str());

    let client = BlockingClient::connect(new_server.address())?;
    let said = v1::DeskClient::new(&client).put(&old).wait()?;
    println!("old to new:  {said},           in {}", codec(&client), said = said.as_str());

    let client = BlockingClient::connect(old_server.address())?;
    let said = v2::DeskClient::new(&client).put(&new).wait()?;
    println!("new to old:  {said},           in {}", codec(&client), said = said.as_str());

    let kind = BlockingClient::connect(kind_server.address())?;
    let said = v1::DeskClient::new(&kind).put(&old).wait()?;
    let how = codec(&kind);
    let said = said.as_str();
    println!("old to new:  {said},           in {how}, since the new server kept the old layout");

    let dark = v2::Order { venue: v2::Venue::Dark { limit: 5 }, ..new };
    let error = v2::DeskClient::new(&client).put(&dark).wait().unwrap_err();
    assert!(error.is_safe_to_retry());
    println!("a venue that the old server does not know: {error}");
    Ok(())
}

fn serve(
    services: impl FnOnce(Server) -> Server,
) -> Result<ringcall::RunningServer, ringcall::ServeError> {
    services(Server::bind("127.0.0.1:0")).start()
}

/// What the arguments of a client went in.
fn codec(client: &BlockingClient) -> &'static str {
    match client.counters().fallback_encoded {
        0 => "archives",
        _ => "MessagePack",
    }
}
