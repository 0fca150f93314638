#[ringcall::service]
trait Orders {
    #[method(retries = 3)]
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
