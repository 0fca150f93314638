struct Symbol(String);

#[ringcall::message]
struct Order {
    symbol: Symbol,
}

fn main() {}
