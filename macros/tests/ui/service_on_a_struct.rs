#[ringcall::service]
struct Orders;

fn main() {}
