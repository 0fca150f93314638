use std::collections::HashSet;

#[ringcall::message]
struct Symbols {
    all: HashSet<String>,
}

fn main() {}
