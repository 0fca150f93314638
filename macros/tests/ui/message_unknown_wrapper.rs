use std::time::SystemTime;

#[ringcall::message]
struct Order {
    #[rkyv(with = rkyv::with::AsUnixTime)]
    at: SystemTime,
}

fn main() {}
