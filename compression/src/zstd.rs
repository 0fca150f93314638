//! zstd frames. One shot: the output is the window, so that no frame can ask for memory beside it.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::Algorithm;

/// The level: twice as fast as the default one, for a few percent of length.
const LEVEL: i32 = 1;

thread_local! {
    /// Contexts are large, some 100 KiB and more, so they are kept.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(crate) struct Zstd;

impl Algorithm for Zstd {
    fn room(&self, _: usize, data_max: usize) -> usize {
        data_max
    }

    fn compress(&self, body: &[u8], out: &mut [u8]) -> Option<usize> {
        COMPRESSOR.with_borrow_mut(|kept| {
            if kept.is_none() {
                *kept = Compressor::new(LEVEL).ok();
            }
            kept.as_mut()?.compress_to_buffer(body, out).ok()
        })
    }

    fn inflate(&self, data: &[u8], out: &mut [u8]) -> Option<usize> {
        DECOMPRESSOR.with_borrow_mut(|kept| {
            if kept.is_none() {
                *kept = Decompressor::new().ok();
            }
            kept.as_mut()?.decompress_to_buffer(data, out).ok()
        })
    }

    fn bytes_out_max(&self, data: usize) -> usize {
        // A block of 128 KiB takes four bytes when it is one byte repeated.
        data.saturating_mul(128 << 10) / 4
    }
}
