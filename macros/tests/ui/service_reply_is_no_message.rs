struct Receipt;

#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> Receipt;
}

fn main() {}
