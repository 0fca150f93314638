use ringcall::Context;

#[ringcall::service]
trait Orders {
    async fn put(&self, cx: Context) -> bool;
}

fn main() {}
