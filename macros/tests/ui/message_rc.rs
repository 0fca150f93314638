use std::rc::Rc;

#[ringcall::message]
struct Order {
    symbol: Rc<String>,
}

fn main() {}
