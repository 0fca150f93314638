#[ringcall::service(version = 2)]
trait Orders {
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
