use ringcall::View;

#[ringcall::service(send)]
trait Orders {
    async fn put(&self, symbol: View<String>) -> bool;
}

struct Book;

impl Orders for Book {
    async fn put(&self, symbol: View<String>) -> bool {
        std::future::ready(()).await;
        symbol.is_empty()
    }
}

fn main() {}
