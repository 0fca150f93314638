//! LZ4 blocks.

use std::cell::RefCell;

use lz4_flex::block::{self, CompressTable};

use crate::Algorithm;

/// Below this length the table of small inputs does.
const SMALL_BYTES_MAX: usize = u16::MAX as usize - 1;

thread_local! {
    /// What was seen where, for small inputs and for large ones: 8 KiB and 16 KiB, made when first used.
    static TABLES: RefCell<[Option<CompressTable>; 2]> = const { RefCell::new([None, None]) };
}

pub(crate) struct Lz4;

impl Algorithm for Lz4 {
    fn room(&self, body: usize, _: usize) -> usize {
        // It does not try with less.
        block::get_maximum_output_size(body)
    }

    fn compress(&self, body: &[u8], out: &mut [u8]) -> Option<usize> {
        TABLES.with_borrow_mut(|[small, large]| {
            let table = match body.len() {
                0..SMALL_BYTES_MAX => small.get_or_insert_with(CompressTable::small),
                _ => large.get_or_insert_with(CompressTable::large),
            };
            block::compress_into_with_table(body, out, table).ok()
        })
    }

    fn inflate(&self, data: &[u8], out: &mut [u8]) -> Option<usize> {
        block::decompress_into(data, out).ok()
    }

    fn bytes_out_max(&self, data: usize) -> usize {
        // A byte of a match's length stands for 255 bytes.
        data.saturating_mul(255)
    }
}
