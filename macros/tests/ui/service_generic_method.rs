#[ringcall::service]
trait Orders {
    async fn put<T>(&self, order: T) -> bool;
}

fn main() {}
