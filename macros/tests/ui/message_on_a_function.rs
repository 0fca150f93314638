#[ringcall::message]
fn order() {}

fn main() {}
