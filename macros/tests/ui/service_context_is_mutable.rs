#[ringcall::service]
trait Orders {
    async fn put(&self, cx: &mut ringcall::Context) -> bool;
}

fn main() {}
