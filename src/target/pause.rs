//! Pausing a process, for those who ask for it.
//!
//! By `PTRACE_SEIZE` and `PTRACE_INTERRUPT` (ptrace(2)): no signal is sent, so none can stay behind, and should gilspy be
//! killed meanwhile, the kernel lets the process go on, as it does when any tracer ends.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd;

use super::entry::ProcEntry;
use super::process::{Process, has_not_ended};
use super::tasks;
use crate::units::{Pid, Tid};

/// What can pause a process.
pub struct Pauser {
    pidfd: OwnedFd,
    entry: ProcEntry,
}

/// Why a process could not be paused.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot pause pid {pid}: {reason}\nAnother debugger or tracer may be attached; without --blocking nothing is paused"
)]
pub struct PauseError {
    pid: Pid,
    reason: std::io::Error,
}

/// The process stands still until this is dropped, also by a panic.
#[must_use]
pub struct Paused {
    _threads: Vec<PausedThread>,
}

impl Pauser {
    /// For a process.
    ///
    /// # Errors
    /// When it cannot be paused; it is tried once, unless it is stopped.
    pub fn new(process: &Process) -> Result<Self, PauseError> {
        let failed = |reason| PauseError { pid: process.pid(), reason };
        let pidfd = process.pidfd().try_clone_to_owned().map_err(failed)?;
        let pauser = Pauser { pidfd, entry: process.entry().clone() };
        if !pauser.is_stopped() {
            drop(pauser.pause_threads().map_err(|error| failed(error.into()))?);
        }
        Ok(pauser)
    }

    /// Pauses every thread; `None` where that does not succeed, because the process is ending, or where it is stopped
    /// already. What is read then is as consistent as without pausing.
    pub fn pause(&self) -> Option<Paused> {
        // Its pid may be another's once it has ended.
        let is_there = || has_not_ended(self.pidfd.as_fd());
        if !is_there() || self.is_stopped() {
            return None;
        }
        let threads = self.pause_threads().ok();
        threads.filter(|_| is_there()).map(|threads| Paused { _threads: threads })
    }

    /// Whether SIGSTOP or the like has stopped it (T in proc_pid_stat(5)): it stands still then, and stays stopped.
    fn is_stopped(&self) -> bool {
        self.entry.stat().is_ok_and(|stat| stat.state == 'T')
    }

    /// Pauses all threads that there are, and those that they start until they are paused.
    fn pause_threads(&self) -> nix::Result<Vec<PausedThread>> {
        let (mut paused, mut met) = (Vec::new(), HashSet::new());
        loop {
            let new: Vec<Tid> = tasks::tids(&self.entry).into_iter().filter(|tid| met.insert(*tid)).collect();
            if new.is_empty() {
                return if paused.is_empty() { Err(Errno::ESRCH) } else { Ok(paused) };
            }
            for tid in new {
                paused.extend(PausedThread::pause(&self.entry, tid)?);
            }
        }
    }
}

/// A thread that stands still until this is dropped. All of it has to be done by one thread of gilspy.
struct PausedThread(unistd::Pid);

impl PausedThread {
    /// `None` where it has ended or is about to.
    fn pause(process: &ProcEntry, tid: Tid) -> nix::Result<Option<Self>> {
        let thread = unistd::Pid::from_raw(tid.raw());
        let is_none_of_it = || tasks::is_ending(process, tid);
        // It stops before it ends, and could not be waited for otherwise.
        match ptrace::seize(thread, Options::PTRACE_O_TRACEEXIT) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(None),
            // One that ends is refused so too (`ptrace_attach` in Linux `kernel/ptrace.c`).
            Err(Errno::EPERM) if is_none_of_it() => return Ok(None),
            Err(error) => return Err(error),
        }
        let seized = PausedThread(thread);
        if ptrace::interrupt(thread).is_err() {
            return Ok(None);
        }
        // Its number could have become another's before it was seized.
        Ok(seized.wait()?.filter(|_| !is_none_of_it()))
    }

    /// Waits until it has stopped.
    fn wait(self) -> nix::Result<Option<Self>> {
        loop {
            match waitpid(self.0, Some(WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL)) {
                // By the interruption; by SIGSTOP or the like, which came first; or because it ends.
                Ok(WaitStatus::PtraceEvent(..)) => return Ok(Some(self)),
                // It is about to get a signal, which is not to be lost.
                Ok(WaitStatus::Stopped(_, signal)) => {
                    // If it has been killed meanwhile, it says so next.
                    let _ = ptrace::cont(self.0, signal);
                }
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    return Ok(None);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for PausedThread {
    fn drop(&mut self) {
        // One that has ended meanwhile is not traced any more.
        let _ = ptrace::detach(self.0, None);
    }
}
