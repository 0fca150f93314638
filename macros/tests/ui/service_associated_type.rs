#[ringcall::service]
trait Orders {
    type Order;
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
