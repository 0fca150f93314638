#[ringcall::service]
trait Orders<T> {
    async fn put(&self, order: T) -> bool;
}

fn main() {}
