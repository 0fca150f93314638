#[ringcall::service]
trait Quotes {
    #[method(encoded)]
    async fn all(&self) -> u64;
}

#[ringcall::service]
trait Desk {
    #[method(encoded)]
    async fn find(&self, symbol: String) -> u64;
    async fn find_encoded(&self, symbol: String) -> u64;
}

fn main() {}
