//! LZ4 blocks.

use std::cell::RefCell;

use lz4_flex::block::{self, CompressTable};

/// From this length on the table of small inputs does not do.
const SMALL_BYTES_MAX: usize = u16::MAX as usize - 1;

thread_local! {
    /// What was seen where; 8 KiB and 16 KiB, made when first used.
    static TABLES: RefCell<(Option<CompressTable>, Option<CompressTable>)> = const { RefCell::new((None, None)) };
}

/// How much room the compressor wants.
pub(crate) fn room(body: usize) -> usize {
    block::get_maximum_output_size(body)
}

/// How much of `out` is used; `None` if there was not enough.
pub(crate) fn compress(body: &[u8], out: &mut [u8]) -> Option<usize> {
    TABLES.with_borrow_mut(|(small, large)| {
        let table = match body.len() {
            0..SMALL_BYTES_MAX => small.get_or_insert_with(CompressTable::small),
            _ => large.get_or_insert_with(CompressTable::large),
        };
        block::compress_into_with_table(body, out, table).ok()
    })
}

/// How much of `out` is used; `None` if it is not LZ4, or there was not enough.
pub(crate) fn inflate(data: &[u8], out: &mut [u8]) -> Option<usize> {
    block::decompress_into(data, out).ok()
}
