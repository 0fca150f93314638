#[ringcall::service]
trait Orders {
    async fn put(&self, size: u32) -> Result<bool, std::io::Error>;
}

fn main() {}
