#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32, price: f64) -> bool;
}

fn main() {}
