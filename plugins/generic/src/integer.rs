//! Which leaves are integers.

/// An integer, by the name that it has without "not zero", and whether it is that; `None` if the leaf is something else.
pub(crate) fn integer(leaf: &str) -> Option<(&str, bool)> {
    let (name, is_non_zero) = match leaf.strip_prefix("nz-") {
        Some(name) => (name, true),
        None => (leaf, false),
    };
    let width = name.strip_prefix(['u', 'i'])?;
    ["8", "16", "32", "64", "128"].contains(&width).then_some((name, is_non_zero))
}
