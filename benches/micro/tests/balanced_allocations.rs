//! The balanced calls whose time is measured allocate nothing.

#[path = "../../../cluster/tests/policies/stubs/counting.rs"]
mod counting;

use counting::ALLOCATIONS;
use ringcall_benches::balanced::Hundred;

/// A hundred instances; and the same with ten rules, of which one reads the metadata that each call has.
#[test]
fn a_balanced_call_allocates_nothing() {
    for mut hundred in [Hundred::new(), Hundred::routed()] {
        // Until all have been looked at, which is once a second of their time.
        hundred.balanced(200_000);
        let before = ALLOCATIONS.get();
        assert_eq!(hundred.balanced(200_000), 200_000);
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
}
