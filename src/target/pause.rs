//! Pausing a process, for those who ask for it.
//!
//! By `PTRACE_SEIZE` and `PTRACE_INTERRUPT` (ptrace(2)): no signal is sent, so none can stay behind, and should gilspy be
//! killed meanwhile, the kernel lets the process go on, as it does when any tracer ends.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd;

use super::entry::ProcEntry;
use super::process::{Process, has_not_ended};
use super::tasks;
use crate::units::{Pid, Tid};

/// For how long a thread is waited for that does not stop: one that waits for a disk does not until that has answered.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often to see whether it has, after so long.
const EAGER: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_micros(100);

/// What can pause a process.
pub struct Pauser {
    pidfd: OwnedFd,
    entry: ProcEntry,
    /// Threads that could not be let go, since they were not standing still: killed, or slow to stop. They stop once
    /// more before they end, and are let go then.
    seized: RefCell<Vec<unistd::Pid>>,
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

/// The process stands still until this is dropped, also by a panic. All of it has to be done by one thread of gilspy.
#[must_use]
pub struct Paused<'a> {
    pauser: &'a Pauser,
    threads: Vec<unistd::Pid>,
}

impl Pauser {
    /// For a process.
    ///
    /// # Errors
    /// When it cannot be paused; it is tried once, unless it is stopped.
    pub fn new(process: &Process) -> Result<Self, PauseError> {
        let failed = |reason| PauseError { pid: process.pid(), reason };
        let pidfd = process.pidfd().try_clone_to_owned().map_err(failed)?;
        let pauser = Pauser { pidfd, entry: process.entry().clone(), seized: RefCell::default() };
        if !pauser.is_stopped() {
            match pauser.pause_threads() {
                // It may, but has no CPU, or waits for a disk; or it is ending, which the next look will find.
                Ok(_) | Err(Errno::ETIMEDOUT | Errno::ESRCH) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(pauser)
    }

    /// Pauses every thread; `None` where that does not succeed, because the process is ending or a thread does not stop in
    /// time, or where it is stopped already. What is read then is as consistent as without pausing.
    pub fn pause(&self) -> Option<Paused<'_>> {
        self.let_go();
        // Its pid may be another's once it has ended.
        let is_there = || has_not_ended(self.pidfd.as_fd());
        if !is_there() || self.is_stopped() {
            return None;
        }
        self.pause_threads().ok().filter(|_| is_there())
    }

    /// Whether SIGSTOP or the like has stopped it (T in proc_pid_stat(5)): it stands still then, and stays stopped.
    fn is_stopped(&self) -> bool {
        self.entry.stat().is_ok_and(|stat| stat.state == 'T')
    }

    /// Pauses all threads that there are, and those that they start until they are paused.
    fn pause_threads(&self) -> nix::Result<Paused<'_>> {
        let (mut paused, mut met) = (Paused { pauser: self, threads: Vec::new() }, HashSet::new());
        loop {
            let new: Vec<Tid> = tasks::tids(&self.entry).into_iter().filter(|tid| met.insert(*tid)).collect();
            if new.is_empty() {
                return if paused.threads.is_empty() { Err(Errno::ESRCH) } else { Ok(paused) };
            }
            for tid in new {
                paused.add(tid)?;
            }
        }
    }

    /// Lets threads go that have come to stand still after all, or have ended.
    fn let_go(&self) {
        self.seized.borrow_mut().retain(|&thread| match look(thread) {
            Look::Runs => true,
            Look::Stopped => ptrace::detach(thread, None) == Err(Errno::ESRCH),
            Look::Ended => false,
        });
    }
}

impl Paused<'_> {
    /// Pauses one more thread, unless it has ended or is about to.
    fn add(&mut self, tid: Tid) -> nix::Result<()> {
        let thread = unistd::Pid::from_raw(tid.raw());
        let is_none_of_it = || tasks::is_ending(&self.pauser.entry, tid);
        // It stops before it ends, so that it can be let go then.
        match ptrace::seize(thread, Options::PTRACE_O_TRACEEXIT) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            // One that ends is refused so too (`ptrace_attach` in Linux `kernel/ptrace.c`).
            Err(Errno::EPERM) if is_none_of_it() => return Ok(()),
            Err(error) => return Err(error),
        }
        let began = Instant::now();
        // One that has ended says so below.
        let _ = ptrace::interrupt(thread);
        loop {
            match look(thread) {
                // Its number could have become another's before it was seized.
                Look::Stopped if is_none_of_it() => {
                    self.release(thread);
                    return Ok(());
                }
                Look::Stopped => {
                    self.threads.push(thread);
                    return Ok(());
                }
                Look::Ended => return Ok(()),
                Look::Runs if began.elapsed() > PATIENCE => {
                    self.release(thread);
                    return Err(Errno::ETIMEDOUT);
                }
                Look::Runs if began.elapsed() < EAGER => std::thread::yield_now(),
                Look::Runs => std::thread::sleep(POLL),
            }
        }
    }

    /// Lets a thread go: now if it stands still, else as soon as it does.
    fn release(&self, thread: unistd::Pid) {
        // One that was killed while it stood still does not any more, nor has it ended.
        if ptrace::detach(thread, None) == Err(Errno::ESRCH) {
            self.pauser.seized.borrow_mut().push(thread);
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        for &thread in &self.threads {
            self.release(thread);
        }
        self.pauser.let_go();
    }
}

/// What a seized thread does.
enum Look {
    Runs,
    Stopped,
    Ended,
}

fn look(thread: unistd::Pid) -> Look {
    match waitpid(thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WSTOPPED | WaitPidFlag::__WALL)) {
        // By the interruption; by SIGSTOP or the like, which came first; or because it ends.
        Ok(WaitStatus::PtraceEvent(..)) => Look::Stopped,
        Ok(WaitStatus::Stopped(_, signal)) => {
            // It is about to get a signal, which is not to be lost. If it has been killed meanwhile, it says so next.
            let _ = ptrace::cont(thread, signal);
            Look::Runs
        }
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => Look::Ended,
        _ => Look::Runs,
    }
}
