#[ringcall::message]
struct Order {
    symbol: &'static str,
}

fn main() {}
