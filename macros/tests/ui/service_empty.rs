#[ringcall::service]
trait Orders {}

fn main() {}
