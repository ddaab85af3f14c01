//! Pausing a process, for those who ask for it.

use std::os::fd::{AsFd, OwnedFd};

use remoteprocess::Lock;

use super::process::{Process, has_not_ended};
use crate::units::Pid;

/// What can pause a process.
pub struct Pauser {
    pidfd: OwnedFd,
    process: remoteprocess::Process,
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
    /// For a process.
    ///
    /// # Errors
    /// When it cannot be paused; it is tried once.
    pub fn new(process: &Process) -> Result<Self, PauseError> {
        let failed = |reason| PauseError { pid: process.pid(), reason };
        let pidfd = process.pidfd().try_clone_to_owned().map_err(|error| failed(error.into()))?;
        let process = remoteprocess::Process::new(process.pid().raw()).map_err(failed)?;
        drop(process.lock().map_err(failed)?);
        Ok(Pauser { pidfd, process })
    }

    /// Pauses every thread; `None` where that does not succeed, because the process is ending or somebody
    /// else has stopped it. What is read then is as consistent as without pausing.
    pub fn pause(&self) -> Option<Paused> {
        // Its pid may be another's once it has ended.
        let is_there = || has_not_ended(self.pidfd.as_fd());
        let lock = is_there().then(|| self.process.lock().ok())?;
        lock.filter(|_| is_there()).map(|lock| Paused { _lock: lock })
    }
}
