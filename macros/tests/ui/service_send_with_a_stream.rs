use ringcall::Items;

#[ringcall::service(send)]
trait Numbers {
    async fn sum(&self, numbers: Items<u64>) -> u64;
}

fn main() {}
