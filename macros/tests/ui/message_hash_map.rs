use std::collections::HashMap;

#[ringcall::message]
struct Prices {
    by_symbol: HashMap<String, u64>,
}

fn main() {}
