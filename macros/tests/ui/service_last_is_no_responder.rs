#[ringcall::service]
trait Orders {
    fn put(&self, size: u32);
}

fn main() {}
