#[ringcall::service]
trait Orders {
    async fn put(&self, (size, price): (u32, f64)) -> bool;
}

fn main() {}
