use ringcall::View;

struct Order;

#[ringcall::service]
trait Orders {
    async fn put(&self, order: View<Order>) -> bool;
}

fn main() {}
