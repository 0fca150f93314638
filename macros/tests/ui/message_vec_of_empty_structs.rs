#[ringcall::message]
struct Tick;

#[ringcall::message]
struct Ticks {
    ticks: Option<Vec<Tick>>,
}

fn main() {}
