#[ringcall::service]
trait Orders {
    async fn put(size: u32) -> bool;
}

fn main() {}
