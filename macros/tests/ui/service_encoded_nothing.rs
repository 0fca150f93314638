#[ringcall::service]
trait Quotes {
    #[method(encoded)]
    async fn all(&self) -> u64;
}

fn main() {}
