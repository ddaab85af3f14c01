//! What one tick saw: the type between the half that reads a process and the half that makes pictures.

mod stacks;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use stacks::{StackIndex, StackTable};

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
    /// What it was doing, as the kernel sees it.
    pub run_state: RunState,
    /// Its stack; [`StackIndex::UNKNOWN`] where it could not be read consistently.
    pub stack: StackIndex,
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
    /// It could not be read consistently.
    Unknown,
}

/// What a thread is doing, as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// On a CPU, or ready to be.
    Running,
    /// Blocked in a system call.
    InSyscall {
        /// The call's number, by the target's architecture.
        number: u32,
        /// Its first argument: for futex(2) the address slept on.
        argument: u64,
    },
    /// Blocked, but not in a system call: waiting for a page of memory, or stopped.
    OutsideSyscall,
    /// The kernel does not say.
    Unknown,
}
