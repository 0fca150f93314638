#[ringcall::service]
trait Orders {
    async fn put(&mut self, size: u32) -> bool;
}

fn main() {}
