#[ringcall::message]
struct Order {
    size: u32,
    #[cfg(feature = "venues")]
    venue: String,
}

fn main() {}
