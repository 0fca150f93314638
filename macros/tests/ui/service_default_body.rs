#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> bool {
        size > 0
    }
}

fn main() {}
