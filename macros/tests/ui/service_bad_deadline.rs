#[ringcall::service]
trait Orders {
    #[method(deadline = "5 minutes")]
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
