use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

#[ringcall::message]
struct Order {
    by_name: BTreeMap<String, u64>,
    seen: Option<HashSet<u64>>,
    name: Vec<Arc<str>>,
    parent: Rc<Order>,
    path: PathBuf,
    size: usize,
    change: (u64, isize),
    then: Box<dyn Fn() + Send>,
    at: Option<SystemTime>,
    since: std::time::Instant,
    made: chrono::DateTime<chrono::Utc>,
    price: rust_decimal::Decimal,
    unknown: bool,
}

fn main() {}
