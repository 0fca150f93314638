#[ringcall::message]
struct Order<'a> {
    symbol: &'a str,
}

fn main() {}
