use std::ops::Range;

#[ringcall::message]
struct Order {
    sizes: Range<u64>,
}

fn main() {}
