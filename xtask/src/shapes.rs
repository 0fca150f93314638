//! Two files of shapes beside each other.

use std::fs;

use ringcall_codec_rkyv::compare::{Verdict, compare as compare_shapes};

/// Prints what becomes of each method; fails if one is incompatible.
pub(crate) fn compare(old: &str, new: &str) -> Result<(), String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let comparisons = compare_shapes(&read(old)?, &read(new)?)?;
    comparisons.iter().for_each(|comparison| println!("{comparison}"));
    match comparisons.iter().any(|comparison| comparison.verdict == Verdict::Incompatible) {
        false => Ok(()),
        true => Err("some methods are incompatible".to_owned()),
    }
}
