use std::sync::Arc;

#[ringcall::message]
struct Order {
    symbol: Arc<String>,
}

fn main() {}
