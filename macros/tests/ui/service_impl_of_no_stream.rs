#[ringcall::service]
trait Numbers {
    async fn count(&self) -> impl Iterator<Item = u64>;
}

fn main() {}
