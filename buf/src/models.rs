//! Blocks that end on other threads, in every order: `cargo xtask models`. Loom sees to it that each block is
//! freed once, and that none is left.

use alloc::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread::{self, JoinHandle};

use crate::model::explore;
use crate::{Chunk, Pool, PoolStats, SharedChunk, SharedPool};

/// Stands for the memory of a block: loom reports it when somebody writes while another reads, or may not yet
/// see that the other is done.
#[derive(Clone)]
struct Witness(Arc<UnsafeCell<()>>);

impl Witness {
    fn new() -> Witness {
        Witness(Arc::new(UnsafeCell::new(())))
    }

    fn read(&self) {
        self.0.with(|_| ());
    }

    fn write(&self) {
        self.0.with_mut(|_| ());
    }

    /// Reads and lets go, on another thread.
    fn read_elsewhere(&self, held: SharedChunk) -> JoinHandle<()> {
        let witness = self.clone();
        thread::spawn(move || {
            witness.read();
            drop(held);
        })
    }

    /// Takes memory from the pool, and writes to it if it is that at `at`. Says whether it was.
    fn write_again(&self, pool: &Pool, at: *const u8) -> bool {
        let mut taken = pool.take(1);
        let is_it = core::ptr::eq(taken.spare().as_ptr(), at);
        if is_it {
            self.write();
        }
        is_it
    }
}

#[test]
fn the_last_of_three_handles_gives_a_block_back_once() {
    explore("buf: the last of three handles gives a block back once", Some(3), || {
        let witness = Witness::new();
        let pool = Pool::new(1 << 20);
        let chunk = pool.copy(b"held by three");
        let at = chunk.as_ptr();
        let readers = [(); 2].map(|()| witness.read_elsewhere(chunk.share()));
        witness.read();
        drop(chunk);
        witness.write_again(&pool, at);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(pool.stats().lent_bytes, 0);
        let both = [pool.take(1), pool.take(1)];
        assert_eq!(pool.stats().lent_bytes, 512, "a block was given back twice, or never");
        drop(both);
    });
}

#[test]
fn a_foreign_chunk_goes_home() {
    explore("buf: a chunk of another thread goes home, its pool lends again", None, || {
        let witness = Witness::new();
        let pool = Pool::new(1 << 20);
        let chunk = pool.copy(b"from afar");
        let at = chunk.as_ptr();
        let foreign = chunk.share();
        drop(chunk);
        let reader = {
            let witness = witness.clone();
            thread::spawn(move || {
                let chunk = Chunk::from(foreign);
                let copy = chunk.clone();
                drop(chunk);
                witness.read();
                drop(copy);
            })
        };
        let was_home = witness.write_again(&pool, at);
        reader.join().unwrap();
        let mut taken = [pool.take(1), pool.take(1)];
        let is_home = taken.iter_mut().any(|taken| core::ptr::eq(taken.spare().as_ptr(), at));
        assert!(was_home || is_home, "it did not come home");
        drop(taken);
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 512 });
    });
}

#[test]
fn a_pool_that_ends_frees_what_comes_home() {
    explore("buf: a pool ends while two blocks come home", Some(3), || {
        let witness = Witness::new();
        let pool = Pool::new(1 << 20);
        let readers = [(); 2].map(|()| witness.read_elsewhere(pool.copy(b"late").share()));
        drop(pool);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_shared_pool_lends_what_nobody_reads() {
    explore("buf: a block of a shared pool is read by two, and lent again", None, || {
        let witness = Witness::new();
        let pool = SharedPool::new(256);
        let written = || {
            let mut writer = pool.writer(256);
            writer.put(b"a body").unwrap();
            pool.finish(writer).0
        };
        let chunk = written();
        let at = chunk.as_ptr();
        let reader = witness.read_elsewhere(chunk.clone());
        drop(chunk);
        if core::ptr::eq(written().as_ptr(), at) {
            witness.write();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_shared_pool_lends_each_block_to_one() {
    explore("buf: two threads take from a shared pool and give back", Some(3), || {
        let pool = SharedPool::new(256);
        // One block is there for both.
        drop(pool.writer(256));
        let takers = [1u8, 2].map(|byte| {
            let pool = pool.clone();
            thread::spawn(move || {
                let mut writer = pool.writer(256);
                writer.put(&[byte; 8]).unwrap();
                let (chunk, _) = pool.finish(writer);
                thread::yield_now();
                assert_eq!(&*chunk, &[byte; 8]);
            })
        });
        drop(pool);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
    });
}
