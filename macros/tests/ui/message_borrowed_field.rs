use ringcall::Encoded;

#[ringcall::message(borrowed)]
struct Order {
    symbol: String,
    size: u32,
    notes: Vec<String>,
}

fn main() {
    let _ = Encoded::<Order>::of(&OrderRef { symbol: 5u8, size: 1, notes: ["one"] });
    let _ = Encoded::<Order>::of(&OrderRef { symbol: "ABC", size: 1, notes: [1] });
    let few = ["one", "two"].iter().filter(|note| note.len() > 3);
    let _ = Encoded::<Order>::of(&OrderRef { symbol: "ABC", size: 1, notes: ringcall::each(few) });
}
