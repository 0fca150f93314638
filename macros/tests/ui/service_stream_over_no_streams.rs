use ringcall::{Channel, Stream};

#[ringcall::service]
trait Orders {
    async fn list(&self) -> impl Stream<Item = u32>;
}

fn list<C: Channel>(orders: &OrdersClient<C>) {
    let _ = orders.list();
}

fn main() {}
