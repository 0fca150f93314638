#[ringcall::service]
trait Orders: Send {
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
