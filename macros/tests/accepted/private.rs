//! A service of one module, of which only the server is used, and one of which only the client is.

#![deny(warnings)]

mod inner {
    #[ringcall::message]
    struct Order {
        size: u32,
    }

    #[ringcall::service]
    trait Served {
        async fn put(&self, order: Order) -> bool;
    }

    struct Book;

    impl Served for Book {
        async fn put(&self, order: Order) -> bool {
            order.size > 0
        }
    }

    #[ringcall::service]
    trait Called {
        async fn put(&self, order: Order) -> bool;
    }

    pub(super) async fn call(client: ringcall::Client) -> bool {
        let _ = Book.into_served();
        let orders = CalledClient::new(client);
        orders.put(&Order { size: 1 }).await.is_ok_and(|is_taken| *is_taken)
    }
}

#[test]
fn it_is_accepted() {
    let _ = inner::call;
}
