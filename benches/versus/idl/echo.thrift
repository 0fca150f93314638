namespace rs echo

struct Blob {
    1: required binary data,
}

struct Leg {
    1: required string symbol,
    2: required string venue,
    3: required i32 ratio,
    4: required double price,
    5: required i64 size,
}

struct Order {
    1: required i64 id,
    2: required string account,
    3: required string symbol,
    4: required bool is_buy,
    5: required double price,
    6: required list<Leg> legs,
    7: required list<string> notes,
}

service Echo {
    Blob blob(1: Blob blob),
    Order order(1: Order order),
}
