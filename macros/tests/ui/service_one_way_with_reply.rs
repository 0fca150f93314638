#[ringcall::service]
trait Orders {
    #[method(one_way)]
    async fn put(&self, size: u32) -> bool;
}

fn main() {}
