#[ringcall::service(name = "market/Orders")]
trait Orders {
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
