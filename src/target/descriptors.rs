//! How many file descriptors gilspy may have open, and how near to that it is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left for other purposes than watching threads.
const NOT_FOR_THREADS: u64 = 64;

/// Descriptors that are left for other purposes than processes that turn up while recording.
const NOT_FOR_PROCESSES: u64 = 24;

/// Descriptors that parsing a program takes at once.
const FOR_A_PROGRAM: u64 = 4;

/// How many may be open at once. Asks the kernel for as many as it allows first.
pub fn limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        let more = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let current = setrlimit(Resource::Nofile, more).map_or(limit.current, |()| limit.maximum);
        current.unwrap_or(u64::MAX)
    })
}

/// Whether a descriptor may be kept for watching a thread: the kernel gives the lowest number that is free.
pub fn are_plenty(open: impl AsFd) -> bool {
    number(open) < limit().saturating_sub(NOT_FOR_THREADS)
}

/// Whether a descriptor is one of the last ones.
pub fn are_few(open: impl AsFd) -> bool {
    number(open) >= limit().saturating_sub(NOT_FOR_PROCESSES)
}

/// Whether there are none left, or hardly any: parsing a program takes some.
pub fn are_used_up() -> bool {
    File::open("/proc/self/exe").map_or(true, |open| number(open) + FOR_A_PROGRAM >= limit())
}

fn number(open: impl AsFd) -> u64 {
    u64::try_from(open.as_fd().as_raw_fd()).unwrap_or(u64::MAX)
}
