#[ringcall::service]
trait Orders {
    async fn new(&self, size: u32) -> u64;
}

fn main() {}
