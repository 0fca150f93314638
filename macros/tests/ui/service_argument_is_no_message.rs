struct Order;

#[ringcall::service]
trait Orders {
    async fn put(&self, order: Order) -> bool;
}

fn main() {}
