use ringcall::Items;

struct Plain;

#[ringcall::service]
trait Plains {
    async fn take(&self, plains: Items<Plain>);
}

fn main() {}
