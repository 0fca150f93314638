@0xc2f3a1f0b7d95e11;

struct Leg {
  symbol @0 :Text;
  venue @1 :Text;
  ratio @2 :Int32;
  price @3 :Float64;
  size @4 :Int64;
}

struct Order {
  id @0 :Int64;
  account @1 :Text;
  symbol @2 :Text;
  isBuy @3 :Bool;
  price @4 :Float64;
  legs @5 :List(Leg);
  notes @6 :List(Text);
}

interface Echo {
  blob @0 (data :Data) -> (data :Data);
  order @1 (order :Order) -> (order :Order);
}
