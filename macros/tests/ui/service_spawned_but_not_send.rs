#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> bool;
}

struct Book;

impl Orders for Book {
    async fn put(&self, size: u32) -> bool {
        size > 0
    }
}

fn main() {
    let _ = ringcall::Server::bind("127.0.0.1:0").service_spawned(Book.into_orders(), drop);
}
