//! What the driver asks of a ring: the kernel's own, or a script's in tests.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::Features;

/// An operation. Whoever submits it keeps what it refers to until its terminal completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Accept a connection, or all that come.
    Accept {
        /// The listening socket.
        fd: RawFd,
        /// All that come.
        multishot: bool,
    },
    /// Tell when there is something to read, once or always.
    PollIn {
        /// Where.
        fd: RawFd,
        /// Always.
        multishot: bool,
    },
    /// Tell when there is room to write.
    PollOut {
        /// Where.
        fd: RawFd,
    },
    /// Receive into provided buffers, once or whenever data comes.
    ReceiveProvided {
        /// From where.
        fd: RawFd,
        /// Whenever data comes.
        multishot: bool,
    },
    /// Receive into this memory.
    Receive {
        /// From where.
        fd: RawFd,
        /// Where to.
        into: *mut u8,
        /// How much at most.
        len: u32,
    },
    /// Send this memory.
    Send {
        /// Where to.
        fd: RawFd,
        /// From where.
        from: *const u8,
        /// How much.
        len: u32,
    },
    /// Send what the message's vector names.
    SendMessage {
        /// Where to.
        fd: RawFd,
        /// The message.
        message: *const libc::msghdr,
    },
    /// Write this memory to a file.
    Write {
        /// Where to.
        fd: RawFd,
        /// From where.
        from: *const u8,
        /// How much.
        len: u32,
        /// To which offset.
        offset: u64,
    },
    /// End another operation early, if it is still going on.
    Cancel {
        /// Its token.
        token: u64,
    },
}

/// What has become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Whose.
    pub token: u64,
    /// A number of bytes, a file descriptor, or the negative number of an error.
    pub result: i32,
    /// The number of the provided buffer that was used.
    pub buffer: Option<u16>,
    /// Whether the operation goes on. If not, this completion is its terminal one.
    pub more: bool,
}

/// A ring of operations and completions.
pub trait Kernel: fmt::Debug {
    /// What it can do.
    fn features(&self) -> Features;

    /// Queues an operation; it begins with the next [`enter`](Kernel::enter) at the latest.
    fn push(&mut self, token: u64, op: Op);

    /// Whether [`enter`](Kernel::enter) would begin something or bring something.
    fn wants_enter(&mut self) -> bool;

    /// Whether all that [`enter`](Kernel::enter) would do is work that was put off until then, so that nothing is taken
    /// from any socket unless it is called. `false` where that cannot be known.
    fn defers(&mut self) -> bool {
        false
    }

    /// Begins what is queued and makes what has completed visible. Waits for a completion, for at most so
    /// long if a time is given; `Some(Duration::ZERO)` does not wait.
    fn enter(&mut self, timeout: Option<Duration>);

    /// The next completion.
    fn next(&mut self) -> Option<Completion>;

    /// Lends a buffer under this number; seen by the kernel after [`publish`](Kernel::publish).
    fn provide(&mut self, number: u16, into: *mut u8, len: u32);

    /// Shows the kernel what was provided.
    fn publish(&mut self);

    /// Makes this eventfd readable whenever something completes. `false` if that cannot be.
    fn notify(&mut self, eventfd: RawFd) -> bool;
}

/// The kernel's ring, of this thread.
pub struct Ring {
    ring: IoUring,
    features: Features,
    provided: Option<ProvidedRing>,
    /// What did not fit into the submission queue.
    waiting: VecDeque<squeue::Entry>,
    /// System calls so far.
    enters: u64,
}

/// The only group of provided buffers.
const GROUP: u16 = 0;
/// With fewer buffers their ring takes no fewer pages.
const BUFFERS_MIN: u16 = 64;

impl Ring {
    /// A ring with these features, room for so many operations between two calls of the kernel, and so
    /// many provided buffers; fewer buffers if there is too little memory to lock for them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(features: Features, entries: u32, buffers: u16) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(entries * 8);
        if features.single_issuer {
            builder.setup_single_issuer();
        }
        if features.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if features.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        if features.taskrun_flag {
            builder.setup_taskrun_flag();
        }
        if features.submit_all {
            builder.setup_submit_all();
        }
        if features.no_sqarray {
            builder.setup_no_sqarray();
        }
        let ring = builder.build(entries)?;
        let provided = match features.provided_buffers {
            true => Some(ProvidedRing::register_at_most(&ring, buffers)?),
            false => None,
        };
        Ok(Ring { ring, features, provided, waiting: VecDeque::new(), enters: 0 })
    }

    /// For how many provided buffers there is room.
    pub(crate) fn buffers(&self) -> Option<u16> {
        self.provided.as_ref().map(|provided| provided.count)
    }

    /// Whether the kernel has what no feature can do without, and these operations.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        let params = self.ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_fast_poll() {
            return Some("the kernel is older than 5.11");
        }
        if !params.is_feature_nodrop() {
            return Some("the kernel may drop completions");
        }
        let mut probe = io_uring::register::Probe::new();
        if self.ring.submitter().register_probe(&mut probe).is_err() {
            return Some("its operations cannot be asked for");
        }
        let needed = [
            opcode::Accept::CODE,
            opcode::PollAdd::CODE,
            opcode::Recv::CODE,
            opcode::Send::CODE,
            opcode::SendMsg::CODE,
            opcode::Write::CODE,
            opcode::AsyncCancel::CODE,
        ];
        let lacking = needed.iter().any(|code| !probe.is_supported(*code));
        lacking.then_some("an operation is not supported")
    }

    /// How often the kernel was entered.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    fn submit(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the driver keeps what the operation refers to until its terminal completion, also if
        // this ring is dropped. (test: `the_kernel_agrees`)
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Lets what waits into the submission queue. Whether all has gone.
    fn submit_waiting(&mut self) -> bool {
        while let Some(entry) = self.waiting.pop_front() {
            if !self.submit(&entry) {
                self.waiting.push_front(entry);
                return false;
            }
        }
        true
    }

    fn call(&mut self, want: u32, timeout: Option<Duration>) {
        self.enters += 1;
        let submit = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let flags = EnterFlags::GETEVENTS;
        // What fails here is tried again by the next turn: interrupted, timed out, or busy because
        // completions have to be taken first. Operations that were not begun stay queued.
        let _ = match timeout.filter(|_| want > 0) {
            Some(timeout) => {
                let timespec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
                let args = SubmitArgs::new().timespec(&timespec);
                submitter.submit_with_args(want as usize, &args)
            }
            // SAFETY: no argument; the operations were vouched for when they were pushed. (test: `the_kernel_agrees`)
            None => unsafe { submitter.enter::<libc::sigset_t>(submit, want, flags.bits(), None) },
        };
    }
}

impl Kernel for Ring {
    fn features(&self) -> Features {
        self.features
    }

    fn push(&mut self, token: u64, op: Op) {
        let entry = entry(op).user_data(token);
        if !self.waiting.is_empty() || !self.submit(&entry) {
            self.waiting.push_back(entry);
        }
    }

    #[inline]
    fn wants_enter(&mut self) -> bool {
        let (_, submission, completion) = self.ring.split();
        if !submission.is_empty() || submission.cq_overflow() {
            return true;
        }
        match self.features.taskrun_flag {
            // Deferred work shows in the flag, so spinning needs no system call.
            true => completion.is_empty() && submission.taskrun(),
            false => completion.is_empty(),
        }
    }

    #[inline]
    fn defers(&mut self) -> bool {
        let (_, submission, completion) = self.ring.split();
        let is_told = self.features.defer_taskrun && self.features.taskrun_flag;
        is_told
            && submission.taskrun()
            && submission.is_empty()
            && completion.is_empty()
            && self.waiting.is_empty()
            && !submission.cq_overflow()
    }

    fn enter(&mut self, timeout: Option<Duration>) {
        if !self.submit_waiting() {
            // Submits the full queue. More than two fulls at once go with the turns that follow.
            self.call(0, None);
            if !self.submit_waiting() {
                return;
            }
        }
        match timeout {
            Some(Duration::ZERO) => self.call(0, None),
            timeout => self.call(1, timeout),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        Some(Completion {
            token: entry.user_data(),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        })
    }

    fn provide(&mut self, number: u16, into: *mut u8, len: u32) {
        if let Some(provided) = &mut self.provided {
            provided.add(number, into, len);
        }
    }

    fn publish(&mut self) {
        if let Some(provided) = &mut self.provided {
            provided.publish();
        }
    }

    fn notify(&mut self, eventfd: RawFd) -> bool {
        self.ring.submitter().register_eventfd(eventfd).is_ok()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("features", &self.features)
            .field("enters", &self.enters)
            .finish_non_exhaustive()
    }
}

fn entry(op: Op) -> squeue::Entry {
    match op {
        Op::Accept { fd, multishot: true } => {
            opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build()
        }
        Op::Accept { fd, multishot: false } => {
            opcode::Accept::new(Fd(fd), ptr::null_mut(), ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        }
        Op::PollIn { fd, multishot } => {
            opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(multishot).build()
        }
        Op::PollOut { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build(),
        Op::ReceiveProvided { fd, multishot: true } => {
            opcode::RecvMulti::new(Fd(fd), GROUP).build()
        }
        Op::ReceiveProvided { fd, multishot: false } => {
            opcode::Recv::new(Fd(fd), ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        }
        Op::Receive { fd, into, len } => opcode::Recv::new(Fd(fd), into, len).build(),
        Op::Send { fd, from, len } => {
            opcode::Send::new(Fd(fd), from, len).flags(libc::MSG_NOSIGNAL).build()
        }
        Op::SendMessage { fd, message } => {
            opcode::SendMsg::new(Fd(fd), message).flags(libc::MSG_NOSIGNAL as u32).build()
        }
        Op::Write { fd, from, len, offset } => {
            opcode::Write::new(Fd(fd), from, len).offset(offset).build()
        }
        Op::Cancel { token } => opcode::AsyncCancel::new(token).build(),
    }
}

/// The memory that is shared with the kernel to say which buffers it may use.
struct ProvidedRing {
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
}

impl ProvidedRing {
    /// Tries fewer on the same ring: another ring would have to wait until the kernel has given back what
    /// this one had locked, which takes a while.
    fn register_at_most(ring: &IoUring, mut count: u16) -> io::Result<ProvidedRing> {
        loop {
            match ProvidedRing::register(ring, count) {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && count > BUFFERS_MIN => {
                    count = (count / 4).max(BUFFERS_MIN);
                }
                registered => return registered,
            }
        }
    }

    fn register(ring: &IoUring, count: u16) -> io::Result<ProvidedRing> {
        debug_assert!(count.is_power_of_two());
        let provided = ProvidedRing { entries: map(bytes(count))?, count, tail: 0 };
        let address = provided.entries.as_ptr().expose_provenance() as u64;
        // SAFETY: page-aligned memory of the right size; it is unmapped only after the ring, which is
        // declared before it in `Ring`. (test: `the_kernel_agrees`)
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        Ok(provided)
    }

    fn add(&mut self, number: u16, into: *mut u8, len: u32) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: within the mapping, since the count is a power of two. (test: `the_kernel_agrees`)
        let mut at = unsafe { self.entries.add(index) };
        // SAFETY: the kernel reads entries below the tail only, and this one is not yet. Zeroes are a
        // valid entry. (test: `the_kernel_agrees`)
        let entry = unsafe { at.as_mut() };
        entry.set_addr(into.expose_provenance() as u64);
        entry.set_len(len);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the first entry of the ring, where the kernel's interface has the tail. (test: `the_kernel_agrees`)
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: aligned and alive; the kernel only reads it. (test: `the_kernel_agrees`)
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for ProvidedRing {
    fn drop(&mut self) {
        // SAFETY: mapped with this length by `map`; nobody refers to it any more. (test: `the_kernel_agrees`)
        let _ = unsafe { rustix::mm::munmap(self.entries.as_ptr().cast(), bytes(self.count)) };
    }
}

fn bytes(count: u16) -> usize {
    usize::from(count) * size_of::<BufRingEntry>()
}

/// Zeroed pages.
fn map(bytes: usize) -> io::Result<NonNull<BufRingEntry>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses. (test: `the_kernel_agrees`)
    let pages = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)? };
    NonNull::new(pages.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
