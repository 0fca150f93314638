use ringcall::Context;

#[ringcall::service(send)]
trait Orders {
    async fn put(&self, cx: &Context, size: u32) -> bool;
}

struct Book;

impl Orders for Book {
    async fn put(&self, cx: &Context, size: u32) -> bool {
        cx.is_cancelled() || size > 0
    }
}

fn main() {}
