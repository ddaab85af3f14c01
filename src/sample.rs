//! What one tick saw: the type between the half that reads a process and the half that makes pictures.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GilSample<'a> {
    /// Who held it.
    pub holder: SampledHolder<'a>,
    /// Handovers since the interpreter started, counted by the interpreter; `None` where it could not be read.
    pub switch_number: Option<u64>,
    /// The switch interval; `None` where it could not be read.
    pub switch_interval: Option<Duration>,
}

/// Who held a GIL, and what it was doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampledHolder<'a> {
    /// This thread.
    Thread {
        /// The thread.
        thread: ThreadIndex,
        /// Its stack, innermost call first; `None` where it could not be read consistently.
        stack: Option<&'a [Frame]>,
    },
    /// Nobody: it was free.
    Nobody,
    /// There is none (free-threaded build, GIL off).
    Disabled,
    /// It could not be read consistently.
    Unknown,
}
