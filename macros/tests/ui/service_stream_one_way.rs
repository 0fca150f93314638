use ringcall::Items;

#[ringcall::service]
trait Numbers {
    #[method(one_way)]
    async fn sum(&self, numbers: Items<u64>);
}

fn main() {}
