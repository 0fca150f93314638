#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> bool;
    #[method(name = "put")]
    async fn put_again(&self, size: u32) -> bool;
}

fn main() {}
