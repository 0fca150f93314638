#[ringcall::message(also = Old)]
struct Order {
    size: u32,
}

fn main() {}
