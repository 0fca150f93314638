#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> bool;
    #[cfg(feature = "cancel")]
    async fn cancel(&self, order: u64) -> bool;
}

fn main() {}
