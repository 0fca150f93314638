use ringcall::Stream;

#[ringcall::service]
trait Numbers {
    #[method(offload)]
    async fn count(&self) -> impl Stream<Item = u64>;
}

fn main() {}
