//! Pausing a process, for those who ask for it.

use remoteprocess::{Lock, Process};

use crate::units::Pid;

/// What can pause a process.
pub struct Pauser {
    process: Process,
}

/// Why a process could not be paused.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot pause pid {pid}: {reason}\nAnother debugger or tracer may be attached; without --blocking nothing is paused"
)]
pub struct PauseError {
    pid: Pid,
    reason: remoteprocess::Error,
}

/// The process stands still until this is dropped, also by a panic. Should gilspy be killed meanwhile, the
/// kernel lets the process go on, as it does when any tracer ends (ptrace(2), `PTRACE_SEIZE`).
#[must_use]
pub struct Paused {
    _lock: Lock,
}

impl Pauser {
    /// For the process of this pid.
    ///
    /// # Errors
    /// When it cannot be paused; it is tried once.
    pub fn new(pid: Pid) -> Result<Self, PauseError> {
        let failed = |reason| PauseError { pid, reason };
        let pauser = Pauser { process: Process::new(pid.raw()).map_err(failed)? };
        drop(pauser.process.lock().map_err(failed)?);
        Ok(pauser)
    }

    /// Pauses every thread; `None` where that does not succeed, because the process is ending or somebody
    /// else has stopped it. What is read then is as consistent as without pausing.
    pub fn pause(&self) -> Option<Paused> {
        self.process.lock().ok().map(|lock| Paused { _lock: lock })
    }
}
