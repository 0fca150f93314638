#[ringcall::message(borrowed)]
enum Kind {
    Market,
    Limit(f64),
}

#[ringcall::message(borrowed)]
struct Page<T> {
    items: Vec<T>,
}

#[ringcall::message(borrowed = Nothing)]
struct Empty;

fn main() {}
