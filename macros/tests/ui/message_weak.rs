use std::sync::Weak;

#[ringcall::message]
struct Order {
    parent: Weak<u64>,
}

fn main() {}
