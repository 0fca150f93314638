use ringcall::{Items, Responder};

#[ringcall::service]
trait Numbers {
    fn sum(&self, numbers: Items<u64>, responder: Responder<u64>);
}

fn main() {}
