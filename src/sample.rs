//! What one tick saw: the type between the half that reads a process and the half that makes pictures.

mod stacks;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use syscalls::Sysno;

use crate::units::Tid;

pub use stacks::{NewStacks, StackIndex, StackTable};

/// What stands for a name that could not be read.
pub const UNKNOWN_NAME: &str = "<unknown>";

/// One call in a Python stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Frame {
    /// The qualified name where the interpreter keeps one (3.11 on), else the bare name.
    pub function: Arc<str>,
    /// The file as the code object has it.
    pub file: Arc<str>,
    /// The line that was executing; `None` where there is none or it could not be read.
    pub line: Option<u32>,
}

impl Frame {
    /// Where it is, in short: `blur at thumbs.py:88`.
    pub fn place(&self) -> String {
        let file = self.file.rsplit('/').next().unwrap_or(&self.file);
        match self.line {
            Some(line) => format!("{} at {file}:{line}", self.function),
            None if self.file == self.function => self.function.to_string(),
            None => format!("{} in {file}", self.function),
        }
    }
}

/// A thread's number: counted from 0 in the order of first sight, never used again for another thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadIndex(pub u32);

/// What one tick saw of one GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilSample {
    /// Who held it.
    pub holder: Holder,
    /// Handovers since the interpreter started, counted by the interpreter; `None` where it could not be read.
    pub switch_number: Option<u64>,
    /// The switch interval; `None` where it could not be read.
    pub switch_interval: Option<Duration>,
}

/// What one tick saw of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSample {
    /// The thread.
    pub thread: ThreadIndex,
    /// What it was doing.
    pub state: ThreadState,
    /// Its stack; [`StackIndex::UNKNOWN`] where it could not be read consistently.
    pub stack: StackIndex,
    /// Time on a CPU since the tick before, and ready to run but waiting for a CPU.
    pub times: TaskTimes,
}

/// What a thread was doing at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadState {
    /// It held a GIL and ran, or was ready to.
    Hold,
    /// It held a GIL and was blocked: nobody else could run Python.
    Stall(Option<Syscall>),
    /// It waited for a GIL.
    Wait {
        /// Which: its place among the process's GILs.
        gil: u16,
    },
    /// It held no GIL and ran, or was ready to: C code that has released the GIL.
    Native,
    /// It held no GIL and was blocked.
    Blocked(Option<Syscall>),
    /// There is no GIL and it ran Python, or was ready to.
    Parallel,
    /// It could not be read consistently.
    Unknown,
}

impl ThreadState {
    /// Its name, as in `docs/reading-the-results.md`.
    pub fn name(self) -> &'static str {
        match self {
            ThreadState::Hold => "hold",
            ThreadState::Stall(_) => "stall",
            ThreadState::Wait { .. } => "wait",
            ThreadState::Native => "native",
            ThreadState::Blocked(_) => "blocked",
            ThreadState::Parallel => "parallel",
            ThreadState::Unknown => "unknown",
        }
    }

    /// The system call that it is blocked in, if it is.
    pub fn syscall(self) -> Option<Syscall> {
        match self {
            ThreadState::Stall(syscall) | ThreadState::Blocked(syscall) => syscall,
            _ => None,
        }
    }
}

/// The system call that a thread is blocked in, by its number on this architecture. Without one a thread is
/// blocked by a page of memory that is not there, or stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Syscall(NonZeroU32);

impl Syscall {
    /// From the kernel's number.
    pub fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number.wrapping_add(1)).map(Syscall)
    }

    /// The kernel's number.
    pub fn number(self) -> u32 {
        self.0.get() - 1
    }

    /// Its name, such as `futex`; `syscall 999` where it has none.
    pub fn name(self) -> Cow<'static, str> {
        match Sysno::new(self.number() as usize) {
            Some(known) => Cow::Borrowed(known.name()),
            None => Cow::Owned(format!("syscall {}", self.number())),
        }
    }
}

/// What the kernel's scheduler counts of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskTimes {
    /// On a CPU.
    pub cpu: Duration,
    /// Ready to run, but waiting for a CPU.
    pub run_queue: Duration,
}

impl TaskTimes {
    /// What has come since an earlier moment.
    pub fn since(self, earlier: TaskTimes) -> TaskTimes {
        TaskTimes {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            run_queue: self.run_queue.saturating_sub(earlier.run_queue),
        }
    }

    /// Both together.
    pub fn plus(self, more: TaskTimes) -> TaskTimes {
        TaskTimes {
            cpu: self.cpu.saturating_add(more.cpu),
            run_queue: self.run_queue.saturating_add(more.run_queue),
        }
    }

    /// A part of it, from 0 to 1.
    pub fn part(self, share: f64) -> TaskTimes {
        TaskTimes { cpu: part(self.cpu, share), run_queue: part(self.run_queue, share) }
    }
}

/// A thread of the target that has no Python thread state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeThread {
    /// Its id as gilspy's namespace counts.
    pub tid: Tid,
    /// The kernel's name of it.
    pub name: Option<String>,
    /// What the scheduler counted of it during the recording.
    pub times: TaskTimes,
}

/// What a CPU quota of a process's control group did to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttling {
    /// Enforcement periods in which something of the group ran.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// For how long the group was kept from running.
    pub throttled: Duration,
    /// The quota, in CPUs; `None` where it cannot be read.
    pub quota_cpus: Option<f64>,
}

impl Throttling {
    /// What has come since an earlier moment.
    pub fn since(self, earlier: Throttling) -> Throttling {
        Throttling {
            periods: self.periods.saturating_sub(earlier.periods),
            throttled_periods: self.throttled_periods.saturating_sub(earlier.throttled_periods),
            throttled: self.throttled.saturating_sub(earlier.throttled),
            ..self
        }
    }

    /// Both together, with the later quota.
    pub fn plus(self, more: Throttling) -> Throttling {
        Throttling {
            periods: self.periods.saturating_add(more.periods),
            throttled_periods: self.throttled_periods.saturating_add(more.throttled_periods),
            throttled: self.throttled.saturating_add(more.throttled),
            ..more
        }
    }

    /// A part of it, from 0 to 1.
    pub fn part(self, share: f64) -> Throttling {
        let of = |periods: u64| (periods as f64 * share).round() as u64;
        Throttling {
            periods: of(self.periods),
            throttled_periods: of(self.throttled_periods),
            throttled: part(self.throttled, share),
            ..self
        }
    }
}

/// A part of a time, from 0 to 1.
pub fn part(time: Duration, share: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(time)
}

/// Who holds a GIL. "Nobody" and "not known" are different answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This thread, executing this stack.
    Thread {
        /// The thread.
        thread: ThreadIndex,
        /// Its stack; [`StackIndex::UNKNOWN`] where it could not be read consistently.
        stack: StackIndex,
    },
    /// Nobody: the GIL was free.
    Nobody,
    /// There is no GIL to hold (free-threaded build, GIL off).
    Disabled,
    /// The same, and one thread has stopped all others, as the garbage collector does.
    Stopped,
    /// It could not be read consistently.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_have_the_names_of_their_manual_pages() {
        let name = |number: Sysno| Syscall::from_number(number as u32).map(|call| call.name().into_owned());
        assert_eq!(name(Sysno::read).as_deref(), Some("read"));
        assert_eq!(name(Sysno::futex).as_deref(), Some("futex"));
        assert_eq!(Syscall::from_number(60_000).map(Syscall::name).as_deref(), Some("syscall 60000"));
        assert_eq!(Syscall::from_number(u32::MAX), None);
    }
}
