use std::rc::Rc;

#[ringcall::service(send)]
trait Orders {
    async fn put(&self, size: u32) -> bool;
}

struct Book;

impl Orders for Book {
    async fn put(&self, size: u32) -> bool {
        let size = Rc::new(size);
        std::future::ready(()).await;
        *size > 0
    }
}

fn main() {}
