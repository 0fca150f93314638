#[ringcall::service]
trait Orders {
    async fn service_table(&self, size: u32) -> u64;
}

fn main() {}
