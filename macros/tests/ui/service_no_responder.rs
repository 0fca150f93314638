#[ringcall::service]
trait Orders {
    fn put(&self);
}

fn main() {}
