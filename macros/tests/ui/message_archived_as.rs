#[ringcall::message]
#[rkyv(as = ArchivedOther)]
struct Order {
    size: u32,
}

fn main() {}
