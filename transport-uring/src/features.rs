//! What the kernel can do, and why it cannot.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ringcall_buf::Pool;

use crate::buffers::Buffers;
use crate::{Kernel, Op, Ring, Token};

/// What a ring uses of the kernel. Each can be missing: the engine then does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Features {
    /// Only one thread submits (6.0).
    pub single_issuer: bool,
    /// Completions are worked out when the thread asks for them, and not in between (6.1).
    pub defer_taskrun: bool,
    /// No interrupts to tell of completions (5.19).
    pub coop_taskrun: bool,
    /// A flag in memory says whether entering brings something (5.19): spinning without system calls.
    pub taskrun_flag: bool,
    /// One bad operation does not stop those behind it (5.18).
    pub submit_all: bool,
    /// One indirection less (6.6).
    pub no_sqarray: bool,
    /// Accepting goes on by itself (5.19).
    pub multishot_accept: bool,
    /// Buffers that the kernel picks from (5.19).
    pub provided_buffers: bool,
    /// Receiving goes on by itself (6.0).
    pub multishot_receive: bool,
}

/// How each is called, in the order in which they are given up.
const NAMES: [&str; 9] = [
    "no_sqarray",
    "defer_taskrun",
    "single_issuer",
    "taskrun_flag",
    "coop_taskrun",
    "submit_all",
    "multishot_accept",
    "multishot_receive",
    "provided_buffers",
];

impl Features {
    /// Everything.
    pub const ALL: Features = Features {
        single_issuer: true,
        defer_taskrun: true,
        coop_taskrun: true,
        taskrun_flag: true,
        submit_all: true,
        no_sqarray: true,
        multishot_accept: true,
        provided_buffers: true,
        multishot_receive: true,
    };

    /// The most that works here, of those wanted: sets a ring up, gives up one flag after another until
    /// the kernel takes it, and proves on a socket pair that data arrives.
    ///
    /// # Errors
    /// Why there can be no ring at all.
    pub fn probe(wanted: Features) -> Result<Features, Refusal> {
        let mut features = wanted.consistent();
        loop {
            let error = match Ring::new(features, 8, 8) {
                Ok(mut ring) => match ring.lacks() {
                    Some(what) => return Err(Refusal::Lacking(what)),
                    None => match self_test(&mut ring) {
                        Ok(()) => return Ok(features.as_old_as_its_buffers()),
                        Err(error) => error,
                    },
                },
                Err(error) => error,
            };
            // Whatever flag it is about, a ring without it would fail as well.
            if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) {
                return Err(Refusal::Os(error.raw_os_error().unwrap_or(0)));
            }
            features = features.without_one().ok_or(Refusal::SelfTest)?;
        }
    }

    /// Without what needs something that is missing.
    fn consistent(mut self) -> Features {
        self.defer_taskrun &= self.single_issuer;
        self.taskrun_flag &= self.defer_taskrun || self.coop_taskrun;
        self.multishot_receive &= self.provided_buffers;
        self
    }

    /// Accepting by itself cannot be tried on a socket pair; it came with provided buffers.
    fn as_old_as_its_buffers(mut self) -> Features {
        self.multishot_accept &= self.provided_buffers;
        self
    }

    fn without_one(mut self) -> Option<Features> {
        let name = NAMES.iter().find(|name| self.feature(name).is_some_and(|feature| *feature))?;
        *self.feature(name)? = false;
        Some(self.consistent())
    }

    fn feature(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "single_issuer" => &mut self.single_issuer,
            "defer_taskrun" => &mut self.defer_taskrun,
            "coop_taskrun" => &mut self.coop_taskrun,
            "taskrun_flag" => &mut self.taskrun_flag,
            "submit_all" => &mut self.submit_all,
            "no_sqarray" => &mut self.no_sqarray,
            "multishot_accept" => &mut self.multishot_accept,
            "provided_buffers" => &mut self.provided_buffers,
            "multishot_receive" => &mut self.multishot_receive,
            _ => return None,
        })
    }

    /// The names of those that are missing, and of those that need them.
    pub fn missing(mut self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |name| self.feature(name).is_some_and(|feature| !*feature))
    }

    /// All but these, by name and separated by commas: to try what a lesser kernel would do.
    ///
    /// # Errors
    /// A name that is none; says which there are.
    pub fn without(names: &str) -> Result<Features, UnknownFeature> {
        let mut features = Features::ALL;
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            *features.feature(name).ok_or_else(|| UnknownFeature(name.to_owned()))? = false;
        }
        Ok(features.consistent())
    }
}

impl Default for Features {
    fn default() -> Features {
        Features::ALL
    }
}

/// Not the name of a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFeature(String);

impl fmt::Display for UnknownFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a feature of the ring; there are {}", self.0, NAMES.join(", "))
    }
}

impl std::error::Error for UnknownFeature {}

/// Why there is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The system's answer, by its number.
    Os(i32),
    /// The kernel does not have what the engine cannot do without.
    Lacking(&'static str),
    /// It could be set up, but no data arrived.
    SelfTest,
}

impl Refusal {
    /// Whether it may be otherwise a moment later: memory or descriptors ran out.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Refusal::Os(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, remedy) = match *self {
            Refusal::Os(libc::ENOSYS) => ("the kernel has no io_uring", "run Linux 5.19 or newer"),
            Refusal::Os(libc::EPERM | libc::EACCES) => (
                "io_uring is forbidden here",
                "see the sysctl kernel.io_uring_disabled, and the seccomp profile of a container",
            ),
            Refusal::Os(libc::ENOMEM) => {
                ("there is no memory for a ring", "raise `ulimit -l`, or the memory limit")
            }
            Refusal::Os(libc::EMFILE | libc::ENFILE) => {
                ("there is no file descriptor for a ring", "raise `ulimit -n`")
            }
            Refusal::Os(number) => {
                return write!(
                    f,
                    "setting up a ring failed: {}",
                    io::Error::from_raw_os_error(number)
                );
            }
            Refusal::Lacking(what) => (what, "run Linux 5.19 or newer"),
            Refusal::SelfTest => ("no data arrived through a ring", "use the epoll engine"),
        };
        write!(f, "{what}: {remedy}")
    }
}

impl std::error::Error for Refusal {}

/// Two messages through a socket pair, in the way in which the engine will receive.
fn self_test(ring: &mut Ring) -> io::Result<()> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let features = ring.features();
    let token = Token::Bell.pack();
    let fd = theirs.as_raw_fd();
    let pool = Pool::new(0);
    let mut buffers = Buffers::new(&pool, 4096, 4, 8);
    if features.provided_buffers {
        buffers.refill(ring);
    }
    let receive = match features.provided_buffers {
        true => Op::ReceiveProvided { fd, multishot: features.multishot_receive },
        false => Op::PollIn { fd, multishot: false },
    };
    let mut is_armed = false;
    let tested = (|| {
        for message in [b"first ", b"second"] {
            if !is_armed {
                ring.push(token, receive);
                is_armed = true;
                ring.enter(Some(Duration::ZERO));
            }
            ours.write_all(message)?;
            ring.enter(Some(Duration::from_secs(1)));
            let completion = ring.next().ok_or(io::ErrorKind::TimedOut)?;
            is_armed = completion.more;
            if completion.result < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result));
            }
            if let Some(number) = completion.buffer {
                let mut buffer = buffers.take(number).ok_or(io::ErrorKind::InvalidData)?;
                let n = (completion.result as usize).min(buffer.missing());
                buffer.fill(n);
                if buffer.filled() != message {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
            }
        }
        Ok(())
    })();
    drop(ours);
    // The end of the stream ends what is armed; what the kernel still has then is not freed.
    while is_armed {
        ring.enter(Some(Duration::from_secs(1)));
        match ring.next() {
            Some(completion) => is_armed = completion.more,
            None => break,
        }
    }
    if is_armed {
        buffers.leak();
    }
    tested
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_given_up_one_by_one_and_stay_consistent() {
        let mut features = Features::ALL;
        let mut steps = 0;
        while let Some(less) = features.without_one() {
            assert_eq!(less, less.consistent());
            assert!(less.missing().count() > features.missing().count());
            features = less;
            steps += 1;
        }
        assert!(steps <= NAMES.len() && features.missing().count() == NAMES.len());
    }

    #[test]
    fn a_mask_names_features() {
        let features = Features::without("single_issuer, provided_buffers").unwrap();
        assert!(!features.defer_taskrun && !features.multishot_receive && features.coop_taskrun);
        let error = Features::without("sqpoll").unwrap_err().to_string();
        assert!(error.contains("\"sqpoll\"") && error.contains("multishot_receive"), "{error}");
    }

    #[test]
    fn e10_a_refusal_says_what_to_do() {
        assert!(Refusal::Os(libc::EPERM).to_string().contains("kernel.io_uring_disabled"));
        assert!(Refusal::Os(libc::ENOMEM).to_string().contains("ulimit -l"));
    }
}
