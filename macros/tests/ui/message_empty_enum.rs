#[ringcall::message]
enum Never {}

fn main() {}
