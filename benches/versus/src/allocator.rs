//! Counts allocations, if asked to. Otherwise that costs each of them a look at a flag.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::Result;

struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

fn count_one() {
    if IS_COUNTING.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator, to which all is passed on as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations there have been in this process since it [began](begin) to count.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Begins to count, and to tell other processes, on a thread that sleeps meanwhile.
pub(crate) fn begin() -> Result<()> {
    let listener = UnixListener::bind_addr(&address(process::id())?)?;
    thread::Builder::new().name("tells its count".into()).spawn(move || {
        for stream in listener.incoming() {
            // Who does not wait for the answer does not get it.
            let _ = stream.and_then(|mut stream| stream.write_all(&count().to_ne_bytes()));
        }
    })?;
    IS_COUNTING.store(true, Ordering::Relaxed);
    Ok(())
}

/// The count of another process that has begun to.
pub(crate) fn count_of(process: u32) -> Result<u64> {
    let mut count = [0; 8];
    UnixStream::connect_addr(&address(process)?)?.read_exact(&mut count)?;
    Ok(u64::from_ne_bytes(count))
}

fn address(process: u32) -> Result<SocketAddr> {
    Ok(SocketAddr::from_abstract_name(format!("versus-{process}"))?)
}
