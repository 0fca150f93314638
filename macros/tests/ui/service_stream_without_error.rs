use ringcall::Stream;

#[ringcall::service]
trait Numbers {
    async fn count(&self) -> Result<impl Stream<Item = u64>>;
}

fn main() {}
