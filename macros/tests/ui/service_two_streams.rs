use ringcall::{Items, Stream};

#[ringcall::service]
trait Numbers {
    async fn sum(&self, numbers: Items<u64>, others: impl Stream<Item = u64>) -> u64;
}

fn main() {}
