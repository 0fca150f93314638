#[ringcall::service]
trait Orders {
    fn put(&self, size: u32) -> bool;
}

fn main() {}
