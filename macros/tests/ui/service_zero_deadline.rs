#[ringcall::service]
trait Orders {
    #[method(deadline = "0ms")]
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
