//! Calls without the interface: a program that has neither the trait nor the types asks a server what it serves, and calls
//! it with values of JSON.
//!
//! ```text
//! $ cargo run --example generic
//! example.Shop/put:
//! Puts an order, and says its number.
//! async fn put(Order) -> Result<u64, Refused>;
//!
//! struct Order {
//!     item: String,
//!     count: u32,
//!     note: Option<String>,
//! }
//!
//! enum Refused {
//!     SoldOut { left: u32 },
//!     Unknown(String),
//! }
//!
//! for instance {"count":0,"item":"","note":""}
//!
//! {"count":3,"item":"apple"}: order 42
//! {"count":30,"item":"apple","note":"soon"}: refused: {"SoldOut":{"left":5}}
//! {"count":1,"item":"pear"}: refused: {"Unknown":"pear"}
//! {"count":-1,"item":"apple"}: example.Shop/put: `count`: a whole number from 0 to 4294967295 is expected, not -1
//! {"amount":1,"item":"apple"}: example.Shop/put: Order has no field amount; it has item, count, note
//! ```

use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{CallError, Client, Server};
use ringcall_generic::Generic;
use serde_json::json;

/// What only the server knows.
mod shop {
    #[ringcall::message]
    #[derive(Debug)]
    pub struct Order {
        pub item: String,
        pub count: u32,
        pub note: Option<String>,
    }

    #[ringcall::message]
    pub enum Refused {
        SoldOut { left: u32 },
        Unknown(String),
    }

    #[ringcall::service(name = "example.Shop")]
    pub trait Shop {
        /// Puts an order, and says its number.
        async fn put(&self, order: Order) -> Result<u64, Refused>;
    }

    pub struct Shelf;

    impl Shop for Shelf {
        async fn put(&self, order: Order) -> Result<u64, Refused> {
            match order.item.as_str() {
                "apple" if order.count <= 5 => Ok(42),
                "apple" => Err(Refused::SoldOut { left: 5 }),
                _ => Err(Refused::Unknown(order.item)),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0")
        .service(shop::Shop::into_shop(shop::Shelf))
        .service(Interface.into_reflection())
        .start()?;

    let shop = Generic::wait_for(Client::connect(server.address()).wait()?)?;
    for method in shop.catalog().methods().filter(|method| method.service() == "example.Shop") {
        println!("{}:\n{}\n{}\n", method.full_name(), method.docs(), method.signature());
        println!("for instance {}\n", method.example());
    }

    for order in [
        json!({ "item": "apple", "count": 3 }),
        json!({ "item": "apple", "count": 30, "note": "soon" }),
        json!({ "item": "pear", "count": 1 }),
        json!({ "item": "apple", "count": -1 }),
        json!({ "item": "apple", "amount": 1 }),
    ] {
        print!("{order}: ");
        match shop.call("example.Shop/put", &order) {
            Err(mistake) => println!("{mistake}"),
            Ok(call) => match call.wait() {
                Ok(number) => println!("order {number}"),
                Err(CallError::App(refused)) => println!("refused: {refused}"),
                Err(CallError::Failed(failure)) => return Err(failure.into()),
            },
        }
    }
    Ok(())
}
